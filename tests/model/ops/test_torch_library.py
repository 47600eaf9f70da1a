"""torch.ops.bitlens.*: each passes opcheck, and refuses what would read or write out of bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import bitlens
import pytest
import torch
from bitlens.model.gradients.token_logprob import token_logprob
from support.operator_samples import Sample, samples

OPS = torch.ops.bitlens


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", samples(torch.float32))
def test_opcheck(name: str, dtype: torch.dtype) -> None:
    torch.library.opcheck(getattr(OPS, name).default, samples(dtype)[name])


def test_every_operator_is_checked() -> None:
    assert set(samples(torch.float32)) == set(bitlens.model.ops.operator.OPERATORS)


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
    "token_logprob: an id beyond the logits": ("token_logprob", 1, lambda t: t + 14, "ids"),
    "token_logprob: negative temperature": ("token_logprob", 2, lambda _: -1.0, "temperature -1"),
    "token_logprob: bf16": ("token_logprob", 0, lambda x: x.bfloat16(), "bfloat16"),
    "token_logprob_backward: short": ("token_logprob_backward", 0, lambda x: x[:7], "dlogprob"),
    "linear_weight_grad: narrow sums": ("add_linear_weight_grad", 0, lambda x: x[:40], "sums"),
    "linear_weight_grad: starts beyond": ("add_linear_weight_grad", 3, lambda s: s + 1, "starts"),
    "linear_weight_grad: fewer rows of x": ("add_linear_weight_grad", 2, lambda x: x[:7], "row a"),
    "bias_grad: starts that fall": ("add_bias_grad", 2, lambda s: s.flip(0), "starts"),
    "bias_grad: fp64": ("add_bias_grad", 1, lambda x: x.double(), "float64"),
    "norm_weight_grad: other heads": ("add_norm_weight_grad", 2, lambda x: x[:, :1], "normalized"),
    "embed_grad: token beyond": ("add_embed_grad", 2, lambda t: t + 2, "ids"),
    "embed_grad: negative token": ("add_embed_grad", 2, lambda t: t - 1, "ids"),
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


def test_compiled_log_probabilities_have_the_bits_and_gradients_of_the_eager_ones() -> None:
    logits = torch.randn(6, 31, requires_grad=True)
    ids = torch.arange(6)

    def loss(x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = OPS.token_logprob(x, ids, 0.7)[0]
        return found.sum()

    found, expected = torch.compile(loss, fullgraph=True)(logits), token_logprob(logits, ids, 0.7)
    assert torch.equal(found, expected.sum())
    (gradient,) = torch.autograd.grad(found, logits)
    assert torch.equal(gradient, torch.autograd.grad(expected.sum(), logits)[0])
    with pytest.raises(RuntimeError, match="create_graph"):
        torch.autograd.grad(loss(logits), logits, create_graph=True)
