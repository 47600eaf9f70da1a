"""Case 7, vllm#48271: RMSNorm reduces with 1024 threads below 256 tokens and with 256 from there.

The block size sets the order of the fp32 sum, so a row's bits depend on how many rows share the
launch, VLLM_BATCH_INVARIANT=1 or not: greedy decoding and scoring the same text disagree.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bitlens
import torch
from bitlens import HookedTransformer
from bitlens.precision.contract import PrecisionContract
from bitlens.precision.divergence import first_divergence
from bitlens.precision.metamorphic import padding_invariance
from bitlens.precision.oracle import check
from support.conventional import assert_close
from support.replaced_kernels import replaced

TEXT = Path(bitlens.__file__).resolve().parent / "docs" / "numerics.md"
ONE_CAST = PrecisionContract("rms_norm", storage="bf16")


def block_reduce(x: torch.Tensor, threads: int) -> torch.Tensor:
    """In fp32: each thread its strided elements, a tree in each warp of 32, warps in order."""
    padded = torch.nn.functional.pad(x, (0, -x.shape[-1] % threads))
    lanes = in_order(padded.unflatten(-1, (-1, threads)), -2).unflatten(-1, (-1, 32))
    while lanes.shape[-1] > 1:
        half = lanes.shape[-1] // 2
        lanes = lanes[..., :half] + lanes[..., half:]
    return in_order(lanes, -2)


def in_order(x: torch.Tensor, axis: int) -> torch.Tensor:
    first, *others = x.unbind(axis)
    for other in others:
        first = first + other
    return first


def norm_with(threads: int, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    mean = block_reduce(x.float().square(), threads) / x.shape[-1]
    return (x.float() * torch.rsqrt(mean + eps) * weight.float()).bfloat16()


def vllm_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    return norm_with(1024 if len(x) < 256 else 256, x, weight, eps)


def pinned_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    return norm_with(1024, x, weight, eps)


def rows(n: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(n, 4096, generator=generator)
    x[:, 7] *= 200  # a massive activation, as residual streams have them
    return {"x": x.bfloat16(), "weight": torch.ones(4096).bfloat16(), "eps": 1e-6}


def test_the_conventional_test_passes_on_either_side() -> None:
    for n in (255, 256):
        inputs = rows(n)
        assert_close(vllm_norm(**inputs), pinned_norm(**inputs))
        # Nor is any single result wrong: what is broken is the promise that they agree.
        assert check(vllm_norm(**inputs), inputs, ONE_CAST).ok


def test_ours_finds_that_rows_depend_on_their_batch() -> None:
    inputs = rows(250)
    assert padding_invariance(pinned_norm, "rms_norm", inputs, rows=10).ok
    assert padding_invariance(vllm_norm, "rms_norm", inputs, rows=5).ok
    broken = padding_invariance(vllm_norm, "rms_norm", inputs, rows=10)
    assert not broken.ok
    assert 0 < broken.differing < inputs["x"].numel() / 100
    assert "1 ULP away" in broken.reason


def test_lockstep_names_the_norms(models: tuple[HookedTransformer, HookedTransformer]) -> None:
    decoding, scoring = models
    norms = [at for at in decoding.op_addresses if at.split(".")[-1] in ("ln1", "ln2", "ln_final")]
    tokens = decoding.to_tokens(TEXT.read_text(encoding="utf-8"))[0, :256]
    with (
        replaced(decoding, norms, lambda **inputs: norm_with(1024, **inputs)),
        replaced(scoring, norms, lambda **inputs: norm_with(256, **inputs)),
    ):
        found = first_divergence(decoding, scoring, tokens, mode="lockstep")
    assert found.created
    assert set(found.created) <= set(norms)
    assert found.first in norms
