"""Lenses: mean Jacobians by fp64, resumption, files, and what they read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from bitlens.interp.activations import Packing
from bitlens.interp.lenses import JacobianLens, LogitLens, fit_jacobian_lens
from bitlens.model.hooks.registry import same_bits
from bitlens.model.transformer import HookedTransformer
from support.random_models import byte_tokenizer, random_model
from support.training_runs import documents


def tiny(**options: Any) -> HookedTransformer:
    from bitlens.model.config import LayerConfig

    changes = {"n_layers": 2, "layers": (LayerConfig(),) * 2, "d_model": 12, "d_mlp": 20}
    return random_model("llama", tokenizer=byte_tokenizer(), changes=changes, **options)


MODEL = tiny()
FIT: dict[str, Any] = {"n_tokens": 60, "context_size": 20, "batch_tokens": 40}


def fitted(path: Path, **options: Any) -> JacobianLens:
    return fit_jacobian_lens(MODEL, text=documents(20), output=path, **(FIT | options))


def test_jacobians_are_fp64s(tmp_path: Path) -> None:
    """The torch backend's autograd in fp64, position by position, averaged."""
    lens = fitted(tmp_path / "lens.safetensors", n_tokens=20)
    exact = tiny(backend="torch", dtype="fp64")
    assert exact.tokenizer is not None
    sequences = Packing(20).sequences([d for d in documents(20) if _trained(d)], exact.tokenizer)
    tokens = torch.tensor([next(sequences)])

    def final(change_Pd: torch.Tensor) -> torch.Tensor:
        seen: list[torch.Tensor] = []
        hooks = [
            ("blocks.0.hook_resid_post", lambda x, hook: x + change_Pd),
            ("blocks.1.hook_resid_post", lambda x, hook: seen.append(x)),
        ]
        exact.run_with_hooks(tokens, hooks, return_type=None)
        return seen[0][0].sum(0)

    zeros = torch.zeros(tokens.shape[1], 12, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(final, zeros)
    expected = jacobian[:, 1:].mean(1)
    assert float((lens.J[0] - expected).abs().max()) < 1e-4 * float(expected.abs().max())
    assert float((jacobian.mean(1) - expected).abs().max()) > 1e-3  # first positions do not count


def _trained(text: str) -> bool:
    import hashlib

    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:4], "little") % 1000 >= 50


def test_an_interrupted_fit_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    whole = fitted(tmp_path / "whole.safetensors")

    class Interrupted(Exception):
        pass

    def interrupt(done: int, total: int) -> None:
        raise Interrupted

    path = tmp_path / "parts.safetensors"
    with pytest.raises(Interrupted):
        fitted(path, progress=interrupt)
    assert (tmp_path / "parts.partial.safetensors").exists()
    seen: list[int] = []
    assert same_bits(fitted(path, progress=lambda done, total: seen.append(done)).J, whole.J)
    assert len(seen) == 2
    assert not (tmp_path / "parts.partial.safetensors").exists()
    assert same_bits(fitted(path).J, whole.J)  # is read
    with pytest.raises(ValueError, match="n_tokens"):
        fitted(path, n_tokens=80)


def test_what_lenses_read(tmp_path: Path) -> None:
    lens, logit = fitted(tmp_path / "a.safetensors"), LogitLens(MODEL)
    tokens = torch.tensor([[1, 5, 9, 12]])
    names = [f"blocks.{i}.hook_resid_post" for i in range(2)]
    logits, cache = MODEL.run_with_cache(tokens, names)
    for each in (lens, logit):
        assert same_bits(each.logits(cache[names[1]], 1), logits)
        assert each.logits(cache[names[0]], 0).shape == logits.shape
    assert not same_bits(lens.logits(cache[names[0]], 0), logit.logits(cache[names[0]], 0))
    again = JacobianLens.load(tmp_path / "a.safetensors", MODEL)
    assert same_bits(again.J, lens.J)
    with pytest.raises(IndexError, match="layer 2"):
        lens.logits(cache[names[0]], 2)


def test_lenses_that_are_none(tmp_path: Path) -> None:
    fitted(tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="fingerprint"):
        JacobianLens.load(tmp_path / "a.safetensors", tiny(seed=1))
    with pytest.raises(ValueError, match="does not fit"):
        JacobianLens.load(tmp_path / "a.safetensors", random_model("llama"))
    (tmp_path / "b.safetensors").write_bytes(b"{}")
    with pytest.raises(ValueError, match="no Jacobian lens"):
        JacobianLens.load(tmp_path / "b.safetensors", MODEL)
    with pytest.raises(ValueError, match="long enough"):
        fit_jacobian_lens(MODEL, text=["x"], output=tmp_path / "c.safetensors", **FIT)
    with pytest.raises(ValueError, match="context_size"):
        fitted(tmp_path / "d.safetensors", context_size=1000)
