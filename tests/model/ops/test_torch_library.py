"""torch.ops.bitlens.*: each passes opcheck, and refuses what would read or write out of bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import bitlens
import pytest
import torch
from bitlens.model.ops.packed import pack
from bitlens.model.weights.checkpoint import Format, StoredMatrix

OPS = torch.ops.bitlens
Sample = tuple[Any, ...]


def packed(n: int, k: int, format: Format = Format.F32) -> torch.Tensor:
    dtype = {Format.F32: torch.float32, Format.BF16: torch.bfloat16}[format]
    return pack(StoredMatrix(format, n, k, torch.randn(n, k).to(dtype))).data


def cache(dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """Pages of two sequences, 70 and 5 tokens long, 2 key-value heads of 16."""
    k_pages = torch.randn(3, 2, 16, 64).to(dtype)
    v_pages = torch.randn(3, 2, 64, 16).to(dtype)
    page_table = torch.tensor([[2, 0], [1, 0]], dtype=torch.int32)
    starts, past = torch.tensor([0, 6, 8]), torch.tensor([64, 3])
    return k_pages, v_pages, page_table, starts, past


def samples(dtype: torch.dtype) -> dict[str, Sample]:
    torch.manual_seed(0)
    x, y = torch.randn(8, 48).to(dtype), torch.randn(8, 48).to(dtype)
    weight = torch.rand(48)
    heads = torch.randn(8, 2, 16).to(dtype)
    positions = torch.arange(8)
    table = torch.rand(9, 8)
    return {
        "linear": (x, packed(40, 48), Format.F32, 40, torch.randn(40), torch.float32),
        "embedding": (positions, packed(40, 48, Format.BF16), Format.BF16, 40, 48, 2.0, dtype),
        "rms_norm": (x.float(), weight, 1e-5, dtype),
        "add_rms_norm": (x.float(), y, weight, 1e-5),
        "rope": (heads, positions, table, table),
        "kv_write": (heads, heads, *cache(dtype)),
        "attention": (torch.randn(8, 4, 16).to(dtype), *cache(dtype), 0.25, 3, 0.5),
        "gated_act": (x, y, "gelu_tanh"),
        "softmax": (x.float(),),
        "log_softmax": (x.float(),),
        "logsumexp": (x.float(),),
        "cross_entropy": (x, torch.tensor([0, 1, -100, 3, 4, 5, 6, 47]), 0.1, -100, True),
        "exp": (x.float(),),
        "log": (x.float().abs(),),
        "tanh": (x.float(),),
        "soft_cap": (x.float(), 30.0),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", samples(torch.float32))
def test_opcheck(name: str, dtype: torch.dtype) -> None:
    torch.library.opcheck(getattr(OPS, name).default, samples(dtype)[name])


def test_every_operator_is_checked() -> None:
    assert set(samples(torch.float32)) == set(bitlens.model.ops.torch_library.OPERATORS)


def replaced(sample: Sample, index: int, value: Any) -> Sample:
    return (*sample[:index], value, *sample[index + 1 :])


BAD: dict[str, tuple[str, int, Callable[[Any], Any], str]] = {
    "linear: fp64 activations": ("linear", 0, lambda x: x.double(), "float64"),
    "linear: k of another matrix": ("linear", 0, lambda x: x[:, :40], "panels"),
    "linear: unknown format": ("linear", 2, lambda _: 9, "format 9"),
    "linear: short bias": ("linear", 4, lambda b: b[:39], "bias"),
    "embedding: token beyond the vocabulary": ("embedding", 0, lambda t: t + 40, "tokens"),
    "embedding: negative token": ("embedding", 0, lambda t: t - 1, "tokens"),
    "rms_norm: weight of another width": ("rms_norm", 1, lambda w: w[:47], "weight"),
    "add_rms_norm: shorter residual": ("add_rms_norm", 1, lambda y: y[:7], "residual"),
    "rope: position beyond the table": ("rope", 1, lambda p: p + 2, "positions"),
    "kv_write: page that is not there": ("kv_write", 4, lambda t: t + 1, "page_table"),
    "kv_write: more keys than pages": ("kv_write", 6, lambda p: p + 64, "page_table"),
    "kv_write: rows of nobody": ("kv_write", 5, lambda s: s + 1, "starts"),
    "attention: heads that do not divide": ("attention", 0, lambda q: q[:, :3], "share"),
    "attention: strided pages": ("attention", 1, lambda k: k[:, :, ::2], "pages"),
    "attention: negative window": ("attention", 7, lambda _: -1, "window"),
    "attention: negative cap": ("attention", 8, lambda _: -1.0, "cap -1.0"),
    "attention: subnormal cap": ("attention", 8, lambda _: 1e-45, "cap 1e-45"),
    "gated_act: unknown kind": ("gated_act", 2, lambda _: "relu", "relu"),
    "softmax: bf16": ("softmax", 0, lambda x: x.bfloat16(), "bfloat16"),
    "cross_entropy: a class beyond the logits": ("cross_entropy", 1, lambda t: t + 1, "targets"),
    "cross_entropy: every target ignored": ("cross_entropy", 1, lambda t: t * 0 - 100, "ignored"),
    "cross_entropy: smoothing above 1": ("cross_entropy", 2, lambda _: 1.5, "smoothing 1.5"),
    "soft_cap: no cap": ("soft_cap", 1, lambda _: 0.0, "cap 0.0"),
    "soft_cap: infinite cap": ("soft_cap", 1, lambda _: float("inf"), "cap inf"),
    "soft_cap: bf16": ("soft_cap", 0, lambda x: x.bfloat16(), "bfloat16"),
    "logsumexp: nothing to reduce": ("logsumexp", 0, lambda x: x[:, :0], "reduce"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments_raise(case: str) -> None:
    name, index, damage, message = BAD[case]
    sample = samples(torch.float32)[name]
    with pytest.raises(ValueError, match=message):
        getattr(OPS, name)(*replaced(sample, index, damage(sample[index])))


def test_cuda_tensors_have_no_kernel() -> None:
    x = torch.empty(2, 48, device="meta")
    assert OPS.rms_norm(x, torch.empty(48, device="meta"), 1e-5).shape == x.shape
    with pytest.raises(NotImplementedError):
        OPS.exp(torch.zeros(2).to_sparse())
