"""The golden cases of training, by the kernels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from bitlens.model.gradients import weight_kernels as kernels

from .cases import Case

Outputs = tuple[torch.Tensor, ...]


def _ids(case: Case) -> torch.Tensor:
    return torch.from_numpy((case.stream(1, case.rows) % np.uint64(case.n)).astype(np.int64))


def _starts(case: Case, heads: int = 1) -> torch.Tensor:
    return torch.tensor([0, case.rows // 3 // heads, case.rows // heads])


def _token_logprob(case: Case) -> Outputs:
    logits, ids = case.centered(0, case.rows, case.n) * 20.0, _ids(case)
    logprob, *saved = kernels.token_logprob(logits, ids, case.real)
    gradient = case.centered(2, case.rows)
    of_logits = kernels.token_logprob_backward(gradient, logits, ids, case.real, *saved)
    return (torch.cat([logprob[:, None], of_logits], dim=1),)


def _linear(case: Case) -> Outputs:
    sums = case.centered(2, case.n, case.k)
    dy, x = case.activations(0, case.rows, case.n), case.activations(1, case.rows, case.k)
    kernels.add_linear_weight_grad(sums, dy, x, _starts(case))
    return (sums,)


def _bias(case: Case) -> Outputs:
    sums = case.centered(2, case.n)
    kernels.add_bias_grad(sums, case.activations(0, case.rows, case.n), _starts(case))
    return (sums,)


def _norm(case: Case) -> Outputs:
    sums, shape = case.centered(2, case.n), (case.rows // case.k, case.k, case.n)
    dy, normalized = case.activations(0, *shape), case.centered(1, *shape)
    kernels.add_norm_weight_grad(sums, dy, normalized, _starts(case, case.k))
    return (sums,)


def _embed(case: Case) -> Outputs:
    sums = case.centered(2, case.n, case.k)
    dresid = case.centered(0, case.rows, case.k)
    kernels.add_embed_grad(sums, dresid, _ids(case), case.real, _starts(case))
    return (sums,)


CHECKS: dict[str, Callable[[Case], Outputs]] = {
    "token_logprob": _token_logprob,
    "linear_weight_grad": _linear,
    "bias_grad": _bias,
    "norm_weight_grad": _norm,
    "embed_grad": _embed,
}
