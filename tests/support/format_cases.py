"""Dictionaries as other libraries store them: random ones, and how two of them agree."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from bitlens.interp.dictionaries import (
    Dictionary,
    DictionaryConfig,
)
from bitlens.model.hooks import same_bits

D, F, K = 12, 40, 5
READ, WRITTEN = "blocks.3.mlp.hook_in", "blocks.3.mlp.hook_out"

U = 2.0**-24


def generator(seed: int = 0) -> torch.Generator:
    """A generator of this seed."""
    return torch.Generator().manual_seed(seed)


def rows(n: int = 30) -> torch.Tensor:
    """Inputs [n, D], the same in every run."""
    return torch.randn(n, D, generator=generator(7)) + 0.3


def dictionary(architecture: str, dtype: torch.dtype = torch.float32, **changes: Any) -> Dictionary:
    """Random weights; `changes` are to its config."""
    transcoder = architecture.endswith("transcoder")
    values: dict[str, Any] = {
        "architecture": architecture,
        "d_in": D,
        "d_sae": F,
        "d_out": D,
        "k": K if "topk" in architecture else None,
        "hook_name": READ,
        "hook_name_out": WRITTEN if transcoder else READ,
        "apply_b_dec_to_input": not transcoder,
        "metadata": {"model_name": "tiny", "note": [1, "é"]},
    }
    cfg = DictionaryConfig(**(values | changes))
    g = generator(1)
    tensors = {
        name: torch.randn(shape, generator=g) * 0.4 for name, shape in cfg.tensor_shapes().items()
    }
    if cfg.has_threshold:
        tensors["threshold"] = tensors["threshold"].abs()
    return Dictionary(cfg, tensors).to(dtype)


def same(a: Dictionary, b: Dictionary) -> None:
    """Both have the same settings and the same bits."""
    assert dataclasses.replace(a.cfg, metadata={}) == dataclasses.replace(b.cfg, metadata={})
    for name, value in b.cfg.metadata.items():
        assert a.cfg.metadata[name] == value
    for (name, x), y in zip(a.named_parameters(), b.parameters(), strict=True):
        assert x.dtype == y.dtype, name
        assert same_bits(x, y), name


def agree(ours: Dictionary, theirs: Any, x: torch.Tensor, factor: float = 1.0) -> None:
    """Activations and reconstructions of both within what fp32 products of this size may err."""
    w, b = ours.W_enc.detach().double().abs(), ours.b_dec.detach().double().abs()
    size = (x.double().abs() * factor + b + 1) @ w + 1
    bound = 2 * (D + 8) * U * size
    a, c = ours.encode(x).double(), theirs.encode(x).detach().double()
    assert torch.equal(a != 0, c != 0)
    assert int((a != 0).sum()) > 0
    assert ((a - c).abs() <= bound).all()
    w_dec = ours.W_dec.detach().double().abs()
    reach = (a.abs() + bound) @ w_dec + b + x.double().abs()
    spread = bound.max() * w_dec.sum(0) + 2 * (F + 8) * U * reach
    assert ((ours(x).double() - theirs(x).detach().double()).abs() <= spread).all()


def gemma_tensors(d_out: int = D, prefix: str = "W") -> dict[str, torch.Tensor]:
    g = generator(3)
    return {
        f"{prefix}_enc": torch.randn(D, F, generator=g) * 0.4,
        f"{prefix}_dec": torch.randn(F, d_out, generator=g) * 0.4,
        "b_enc": torch.randn(F, generator=g) * 0.1,
        "b_dec": torch.randn(d_out, generator=g) * 0.1,
        "threshold": torch.rand(F, generator=g) * 0.5,
    }
