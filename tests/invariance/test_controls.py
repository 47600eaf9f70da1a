"""Negative controls: the same function in another order must differ under the same comparison.

Tensor names: B batch, P padded positions.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bitlens.audit.invariance.observation import Tally, cut
from bitlens.audit.invariance.variations import Scope, Subject, one_chain, other_leaf
from bitlens.model.ops import kernels
from invariance.subjects import (
    ARCHITECTURES,
    WIDE,
    Views,
    assert_same,
    count_different,
    draw_tokens,
    dtypes_of,
    small,
    with_dtypes,
)
from support.random_models import random_model


def leaves_of(length: int) -> Any:
    """An override that sums a linear by leaves of another length.

    Zeroing x outside a leaf leaves that leaf's chain as it is.
    """

    def linear(original: Any, x: torch.Tensor, weight: Any, bias: Any, out_dtype: Any) -> Any:
        total = None
        for start in range(0, x.shape[-1], length):
            leaf = torch.zeros_like(x)
            leaf[:, start : start + length] = x[:, start : start + length]
            part = kernels.linear(leaf, weight.data, weight.format, weight.n, None, torch.float32)
            total = part if total is None else total + part
        total = total if bias is None else total + bias
        if original.__self__.policy.name == "hf_bf16":
            total = total.bfloat16()
        return total.to(out_dtype or x.dtype)

    return linear


@pytest.mark.parametrize("address", ["blocks.1.mlp.down", "blocks.0.attn.q", "unembed"])
@pytest.mark.parametrize(("architecture", "dtype"), with_dtypes(ARCHITECTURES))
def test_another_leaf_length_differs(architecture: str, dtype: str, address: str) -> None:
    """Where the result is not rounded to bf16, which hides most other orders."""
    model = small(architecture, dtype)
    views, tokens_P = Views(model), draw_tokens(model, 30)
    expected = views.alone(tokens_P)
    with model.override(address, leaves_of(256)):
        assert_same(views(tokens_P[None])[0], expected)  # the canonical length, the same way
    n_different = {}
    for length in (64, 128):
        with model.override(address, leaves_of(length)):
            n_different[length] = count_different(views(tokens_P[None])[0], expected)
    if dtype in ("fp32", "bf16_weights") or (dtype == "bf16" and address == "unembed"):
        assert all(n_different.values()), n_different


def test_one_long_chain_differs() -> None:
    """A single chain over all of k, as one leaf of 2048 would give."""
    model = random_model("mistral", changes=WIDE)
    views, tokens_P = Views(model), draw_tokens(model, 8)
    expected = views.alone(tokens_P)

    def linear(original: Any, x: torch.Tensor, weight: Any, bias: Any, out_dtype: Any) -> Any:
        w = weight.rows().double()
        total = torch.zeros(len(x), len(w), dtype=torch.float64)
        for k in range(x.shape[1]):  # a product of two fp32 is exact in fp64: this is an FMA
            total = (total + x[:, k, None].double() * w[:, k]).float().double()
        return total.float()

    with model.override("blocks.1.mlp.down", linear):
        (seen,) = views(tokens_P[None])
    found, want = seen["blocks.1.mlp.hook_out"], expected["blocks.1.mlp.hook_out"]
    assert count_different({"out": found}, {"out": want}) > 0
    assert torch.allclose(found, want, rtol=1e-4, atol=1e-5)
    before = {name: x for name, x in expected.items() if name.startswith("blocks.0.")}
    assert_same(seen, before)


@pytest.mark.parametrize(
    ("architecture", "control", "dtype"),
    [
        (architecture, control, dtype)
        for architecture in ARCHITECTURES
        for control, dtype in ((other_leaf, "fp32"), (one_chain, "hf_bf16"))
        if dtype in dtypes_of(architecture)
    ],
)
def test_the_control_of_verify_differs(architecture: str, control: Any, dtype: str) -> None:
    model = small(architecture, dtype)
    subject = Subject(model, model.name, "", Scope(n_tokens=8, chunk_lengths=(1,)))
    tally = Tally()
    assert len(subject.alone) == 17  # the references, before anything is replaced
    control(subject, tally)
    assert 0 < tally.different < tally.values


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_torch_prefill_differs_from_its_own_decode(architecture: str) -> None:
    """Matrix products that choose their order by shape fail the comparison ours passes."""
    model = random_model(architecture, changes=WIDE, backend="torch")
    views, tokens_P = Views(model), draw_tokens(model, 70)
    (expected,) = views(tokens_P[None])
    views.keep_cache(1)
    moved = 0
    for at in range(70):
        (seen,) = views(tokens_P[None, at : at + 1])
        moved += count_different(seen, cut(expected, at, at + 1))
    assert moved > 0
