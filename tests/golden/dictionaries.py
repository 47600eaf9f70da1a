"""The golden cases of dictionaries, by the kernels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from bitlens import _core
from bitlens.interp.dictionaries import kernels
from bitlens.model.ops.packed import pack
from bitlens.model.weights.checkpoint import Format, StoredMatrix

from .cases import Case

Outputs = tuple[torch.Tensor, ...]


def _words(values: torch.Tensor, indices: torch.Tensor, *head: int) -> Outputs:
    """Values and indices in turn, behind some words, as raw bits."""
    pairs = torch.stack([values.view(torch.int32), indices], dim=-1).reshape(-1).numpy()
    words = np.concatenate([np.array(head, dtype=np.int32), pairs])
    return (torch.from_numpy(words.view(np.float64)),)


def _top_k(case: Case) -> Outputs:
    x = case.centered(0, case.n)
    if case.flag == 1:
        x = (4 * x).floor() * 0.25
    if case.flag == 2:
        x[::3] = torch.nan
    top = kernels.top_k(x[None], case.k)
    return _words(top.values[0], top.indices[0])


def _above(case: Case) -> Outputs:
    """The fused encoding: x times the identity is x, but for -0, which no case draws."""
    x, thresholds = case.centered(0, case.n), case.centered(1, case.n)
    if case.flag == 1:
        thresholds[::2] = x[::2]
    one = pack(StoredMatrix(Format.F32, case.n, 1, x[:, None].contiguous()))
    found = kernels.encode_above(torch.ones(1, 1), one, torch.zeros(case.n), thresholds)
    values, indices = torch.zeros(case.n), torch.full((case.n,), -1, dtype=torch.int32)
    count = len(found.values)
    values[:count], indices[:count] = found.values, found.indices
    return _words(values, indices, count, 0)


def _sparse_decode(case: Case) -> Outputs:
    coefs, table = case.centered(0, case.n), case.centered(2, case.rows, case.k)
    chosen = case.stream(1, case.n) % np.uint64(case.rows + 1)
    indices = torch.from_numpy(chosen.astype(np.int32) - 1)
    bias = case.centered(3, case.k) if case.flag == 1 else None
    return (kernels.weighted_sums(coefs, indices, torch.tensor([0, case.n]), table, bias),)


def _step(case: Case) -> Outputs:
    w, g, m, v = (case.centered(stream, 1, case.n) for stream in range(4))
    v = v.abs()
    kernels.unit_rows_(w)
    kernels.project_rows_(g, w)
    unit, gradient = w.clone(), g.clone()
    _core.adam(
        g, case.n, 0.9, 0.1, 0.999, 0.001, 1e-3, 1.5, 1e-8, case.real,
        0.99 if case.flag == 1 else 1.0, w, m, v,
    )  # fmt: skip
    return unit, gradient, w, m, v


CHECKS: dict[str, Callable[[Case], Outputs]] = {
    "top_k": _top_k,
    "above": _above,
    "sparse_decode": _sparse_decode,
    "dictionary_step": _step,
}
