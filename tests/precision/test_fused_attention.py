"""Attention in one unit: any order that an honest kernel may take is permitted, faults are not.

H heads, G key/value heads, T queries, K keys, d d_head.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from bitlens.precision import PrecisionContract
from bitlens.precision.contracts import unit_contract
from bitlens.precision.emulation import emulate
from bitlens.precision.inputs import InputsError
from bitlens.precision.oracle import check
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel

Tensor = torch.Tensor
STORAGE = {torch.float32: "fp32", torch.bfloat16: "bf16"}
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])


def drawn(dtype: torch.dtype, *, seed: int = 0, n_keys: int = 40, spread: float = 2.0) -> Any:
    g = torch.Generator().manual_seed(seed)
    q = (torch.randn(4, n_keys, 16, generator=g) * spread).to(dtype)
    k, v = (torch.randn(2, n_keys, 16, generator=g).to(dtype) for _ in range(2))
    return {"q": q, "k": k, "v": v, "causal": True, "scale": 0.3}


def _scores(q: Tensor, k: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """In fp32, and what is seen."""
    seen = torch.ones(q.shape[1], k.shape[1], dtype=torch.bool).tril()
    return q.float() @ k.float().mT * scale, seen


def _sdpa(backend: Any) -> Callable[..., Tensor]:
    def run(q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool) -> Tensor:
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(
                q[None], k[None], v[None], is_causal=causal, scale=scale, enable_gqa=True
            )[0]

    return run


def _online(block: int, order: list[int] | None = None) -> Callable[..., Tensor]:
    """Blocks of keys in any order, rescaled to a running maximum, exponentials stored."""

    def run(q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool) -> Tensor:
        k, v = (x.repeat_interleave(2, 0) for x in (k, v))
        scores, seen = _scores(q, k, scale)
        scores = scores.masked_fill(~seen, -torch.inf)
        starts = list(range(0, k.shape[1], block))
        top = torch.full_like(scores[..., :1], -1e30)
        total, mixed = torch.zeros_like(top), torch.zeros(*q.shape)
        for start in [starts[i % len(starts)] for i in order] if order else starts:
            part = scores[..., start : start + block]
            peak = torch.maximum(top, part.amax(-1, keepdim=True))
            weights, shrunk = (part - peak).exp(), (top - peak).exp()
            total = total * shrunk + weights.sum(-1, keepdim=True)
            stored = weights.to(v.dtype).float()
            mixed = mixed * shrunk + stored @ v[:, start : start + block].float()
            top = peak
        return (mixed / total).to(q.dtype)

    return run


def _stored_pattern(q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool) -> Tensor:
    k, v = (x.repeat_interleave(2, 0) for x in (k, v))
    scores, seen = _scores(q, k, scale)
    return scores.masked_fill(~seen, -torch.inf).softmax(-1).to(v.dtype) @ v


HONEST = {
    "sdpa, flash": _sdpa(SDPBackend.FLASH_ATTENTION),
    "sdpa, math": _sdpa(SDPBackend.MATH),
    "blocks of 8": _online(8),
    "blocks backward": _online(16, [2, 1, 0]),
    "probabilities stored": _stored_pattern,
}


@DTYPES
@pytest.mark.parametrize("name", HONEST)
def test_honest_kernels_are_acquitted(name: str, dtype: torch.dtype) -> None:
    contract = unit_contract("fused_attention", STORAGE[dtype])
    for spread in (0.1, 2.0, 10.0):
        inputs = drawn(dtype, spread=spread)
        verdict = check(HONEST[name](**inputs), inputs, contract)
        assert verdict.ok, verdict.reason
        assert not verdict.unclaimed


@given(st.integers(1, 45), st.integers(0, 999), st.sampled_from([torch.float32, torch.bfloat16]))
def test_any_blocks_of_keys_are_permitted(block: int, seed: int, dtype: torch.dtype) -> None:
    inputs = drawn(dtype, seed=seed, n_keys=24)
    verdict = check(
        _online(block)(**inputs), inputs, unit_contract("fused_attention", STORAGE[dtype])
    )
    assert verdict.ok, verdict.reason


def _softmax_in_bf16(q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool) -> Tensor:
    k, v = (x.repeat_interleave(2, 0) for x in (k, v))
    scores, seen = _scores(q, k, scale)
    pattern = scores.bfloat16().masked_fill(~seen, -torch.inf).softmax(-1)
    return pattern.to(v.dtype) @ v


FAULTY: dict[str, Callable[..., Tensor]] = {
    "softmax in bf16": _softmax_in_bf16,
    "scale ignored": lambda scale, **x: HONEST["sdpa, flash"](scale=0.25, **x),
    "mask off by one": lambda **x: HONEST["sdpa, flash"](**x | {"k": x["k"].roll(1, 1)}),
    "no mask": lambda causal, **x: HONEST["sdpa, math"](causal=False, **x),
    "a block left out": _online(8, [0, 1, 2, 3]),
}


@DTYPES
@pytest.mark.parametrize("name", FAULTY)
def test_faults_are_not(name: str, dtype: torch.dtype) -> None:
    inputs = drawn(dtype)
    assert not check(
        FAULTY[name](**inputs), inputs, unit_contract("fused_attention", STORAGE[dtype])
    ).ok


def _capped(cap: float | None) -> Callable[..., Tensor]:
    def run(q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool) -> Tensor:
        k, v = (x.repeat_interleave(2, 0) for x in (k, v))
        scores, seen = _scores(q, k, scale)
        scores = scores if cap is None else cap * torch.tanh(scores / cap)
        pattern = scores.masked_fill(~seen, -torch.inf).softmax(-1)
        return (pattern @ v.float()).to(v.dtype)

    return run


@DTYPES
def test_a_cap_belongs_to_the_unit(dtype: torch.dtype) -> None:
    inputs, contract = drawn(dtype), unit_contract("fused_attention", STORAGE[dtype])
    for cap, right in ((5.0, True), (None, False), (5.5, False)):
        verdict = check(_capped(cap)(**inputs), inputs | {"cap": 5.0}, contract)
        assert verdict.ok is right, (cap, verdict.reason)


@DTYPES
@pytest.mark.parametrize("op", ["rotated_attention", "attention_block"])
def test_wider_units_hold_what_is_computed_step_by_step(op: str, dtype: torch.dtype) -> None:
    """Every step stored, or none until the end; a base of another RoPE is outside."""
    g = torch.Generator().manual_seed(0)
    if op == "rotated_attention":
        inputs = drawn(dtype)
    else:
        shapes = {"x": (40, 32), "q": (32, 64), "k": (32, 32), "v": (32, 32), "o": (64, 32)}
        inputs = {
            name: (torch.randn(shape, generator=g) * shape[0] ** (-0.5 if name != "x" else 0))
            .to(dtype) for name, shape in shapes.items()
        }  # fmt: skip
        inputs |= {"d_head": 16, "causal": True, "q_norm": torch.rand(16, generator=g).to(dtype)}
    contract = unit_contract(op, STORAGE[dtype])
    storage = contract.storage
    for casts in (contract.casts, ("output",)):
        honest = emulate(inputs, PrecisionContract(op, storage=storage, casts=casts))
        verdict = check(honest, inputs, contract)
        assert verdict.ok, verdict.reason
        assert not verdict.unclaimed
        assert not check(honest, inputs | {"theta": 100.0}, contract).ok


def test_inputs_of_units_are_checked() -> None:
    x, w = torch.ones(3, 8), torch.ones(8, 8)
    block = {"x": x, "q": w, "k": w, "v": w, "o": w, "d_head": 4}
    contract = PrecisionContract("attention_block")
    assert check(torch.full((3, 8), 64.0), block, contract).ok
    for wrong in ({"d_head": 3}, {"k": torch.ones(8, 4)}, {"o": torch.ones(4, 8)}, {"theta": 0.5}):
        with pytest.raises(InputsError):
            check(x, block | wrong, contract)
