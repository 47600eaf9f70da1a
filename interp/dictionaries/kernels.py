"""The compiled kernels of dictionaries on tensors: fixed bits on every instruction set and any
number of threads, and on a GPU for tensors that are there.

Shapes: N rows, F features, k entries a row, d width, E entries in all.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import torch

from ... import _core
from ...model.ops.kernels import empty, linear
from ...model.ops.kernels import exp as cpu_exp
from ...model.ops.packed import PackedWeight, pack
from ...model.weights.checkpoint import Format, StoredMatrix

CPU = torch.device("cpu")

if TYPE_CHECKING:
    from ...model.ops.cuda.dictionaries import CudaDictionaryKernels


def on_gpu(x: torch.Tensor) -> CudaDictionaryKernels | None:
    """Returns the kernels of the GPU that holds x; None for one on the CPU.

    Raises CudaUnavailable where bitlens has none for it.
    """
    return None if x.device.type == "cpu" else _gpu_kernels(x.device)


@functools.cache
def _gpu_kernels(device: torch.device) -> CudaDictionaryKernels:
    from ...model.ops.cuda.dictionaries import CudaDictionaryKernels
    from ...model.ops.cuda.on_device import gpu_kernels

    return CudaDictionaryKernels(gpu_kernels(device))


class TopK(NamedTuple):
    """The largest entries of each row, by ascending index.

    Attributes:
        values: fp32 [N, k].
        indices: int32 [N, k]; -1 where a row has fewer than k numbers.
    """

    values: torch.Tensor
    indices: torch.Tensor


@dataclass(frozen=True, eq=False)
class Columns:
    """The entries of a sparse matrix, column by column.

    Attributes:
        starts: int64 [F + 1]: the entries of column f are order[starts[f] : starts[f + 1]].
        order: int32 [E], where each stands among the entries row by row; ascending in a column.
    """

    starts: torch.Tensor
    order: torch.Tensor

    def counts(self) -> torch.Tensor:
        """Returns the number of entries in each column, int64 [F]."""
        return self.starts[1:] - self.starts[:-1]


def packed(rows_FD: torch.Tensor, format: Format) -> PackedWeight:
    """Returns the rows [F, d] of a matrix as products read them, where they are."""
    n, k = rows_FD.shape
    weight = pack(StoredMatrix(format, n, k, rows_FD.detach().cpu().contiguous()))
    return replace(weight, data=weight.data.to(rows_FD.device))


def product(x: torch.Tensor, weight: PackedWeight, bias: torch.Tensor | None) -> torch.Tensor:
    """Returns x [N, d] times a packed weight [F, d] plus bias [F], fp32, as `linear` does."""
    if gpu := on_gpu(x):
        return gpu.product(x, weight, bias)
    return linear(x, weight.data, weight.format, weight.n, bias, torch.float32)


def dense(x: torch.Tensor, rows_FD: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Returns x [N, d] times rows_FD [F, d] transposed, plus bias [F], as `linear` computes it."""
    return product(x.detach(), packed(rows_FD, Format.F32), bias)


def exp(x: torch.Tensor) -> torch.Tensor:
    """Returns exp of each element, fp32; of parameters, so the CPU computes it."""
    return cpu_exp(x.cpu()).to(x.device)


def top_k(x: torch.Tensor, k: int) -> TopK:
    """Returns the k largest of each row of x, fp32 [N, F]; of equal ones the first.

    Raises ValueError for a k that is no number of columns.
    """
    x = x.detach().contiguous()
    rows, n = x.shape
    if not 1 <= k <= n:
        raise ValueError(f"top_k: k = {k} of {n} columns")
    if gpu := on_gpu(x):
        return TopK(*gpu.top_k(x, k))
    values, indices = empty((rows, k)), empty((rows, k), torch.int32)
    _core.top_k(x, rows, n, k, values, indices)
    return TopK(values, indices)


class Active(NamedTuple):
    """The entries of each row that are above a threshold, row after row by ascending index.

    Attributes:
        starts: int64 [N + 1]: row r has entries starts[r] to starts[r + 1].
        indices: int32 [E].
        values: fp32 [E].
    """

    starts: torch.Tensor
    indices: torch.Tensor
    values: torch.Tensor


def encode_top_k(x: torch.Tensor, weight: PackedWeight, bias: torch.Tensor, k: int) -> TopK:
    """Returns the k largest outputs of each row of x [N, d] times a packed weight [F, d] plus bias
    [F]: `top_k` of `linear`, bit for bit, without N x F outputs in memory.

    Raises ValueError for a k that is no number of outputs.
    """
    if not 1 <= k <= weight.n:
        raise ValueError(f"encode_top_k: k = {k} of {weight.n} outputs")
    x, bias = x.detach().contiguous(), bias.detach().contiguous()
    if gpu := on_gpu(x):
        return TopK(*gpu.encode_top_k(x, weight, bias, k))
    values, indices = empty((len(x), k)), empty((len(x), k), torch.int32)
    _core.encode_top_k(
        x, len(x), weight.data, weight.format, weight.n, weight.k, bias, k, values, indices,
    )  # fmt: skip
    return TopK(values, indices)


def encode_above(
    x: torch.Tensor, weight: PackedWeight, bias: torch.Tensor, thresholds: torch.Tensor
) -> Active:
    """Returns the outputs of each row of x [N, d] times a packed weight [F, d] plus bias [F] that
    are strictly above thresholds [F], without N x F outputs in memory. NaN never is."""
    x, bias, thresholds = (t.detach().contiguous() for t in (x, bias, thresholds))
    if gpu := on_gpu(x):
        return Active(*gpu.encode_above(x, weight, bias, thresholds))
    found = _core.encode_above(
        x, len(x), weight.data, weight.format, weight.n, weight.k, bias, thresholds,
    )  # fmt: skip
    starts = torch.empty(len(x) + 1, dtype=torch.int64, device="cpu")
    indices = torch.empty(found.entries, dtype=torch.int32, device="cpu")
    values = torch.empty(found.entries, dtype=torch.float32, device="cpu")
    found.write(starts, indices, values)
    return Active(starts, indices, values)


def row_starts(n_rows: int, per_row: int, device: torch.device = CPU) -> torch.Tensor:
    """Returns where each row's entries begin if all have as many, int64 [N + 1]."""
    return torch.arange(0, (n_rows + 1) * per_row, per_row, dtype=torch.int64, device=device)[
        : n_rows + 1
    ]


def weighted_sums(
    coefs: torch.Tensor,
    indices: torch.Tensor,
    starts: torch.Tensor,
    table: torch.Tensor,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """Returns fp32 [N, d]: for each row the sum of coefs times the rows of table [R, d] that
    `indices` name, plus bias [d]. Row r has entries starts[r] to starts[r + 1]."""
    coefs, table = coefs.detach().contiguous(), table.detach().contiguous()
    indices, starts = indices.contiguous(), starts.contiguous()
    bias = None if bias is None else bias.detach().contiguous()
    n_rows, d = len(starts) - 1, table.shape[1]
    _check_entries(starts, coefs, indices)
    if gpu := on_gpu(coefs):
        _check_rows(indices, len(table))
        return gpu.weighted_sums(coefs, indices, starts, table, bias)
    out = empty((n_rows, d))
    _core.weighted_sums(
        coefs, indices, starts, n_rows, table,
        len(table), d, bias, out,
    )  # fmt: skip
    return out


def gathered_dots(
    x: torch.Tensor, indices: torch.Tensor, starts: torch.Tensor, table: torch.Tensor
) -> torch.Tensor:
    """Returns fp32 [E]: for each entry, its row of x [N, d] times the row of table it names."""
    x, table = x.detach().contiguous(), table.detach().contiguous()
    indices, starts = indices.contiguous(), starts.contiguous()
    _check_entries(starts, indices)
    if gpu := on_gpu(x):
        _check_rows(indices, len(table))
        return gpu.gathered_dots(x, indices, starts, table)
    out = empty((indices.numel(),))
    _core.gathered_dots(
        x, indices, starts, len(starts) - 1, table,
        len(table), table.shape[1], out,
    )  # fmt: skip
    return out


def by_column(indices: torch.Tensor, n_columns: int) -> Columns:
    """Returns the entries with these column indices, int32, sorted by column; -1 is left out."""
    indices = indices.contiguous()
    starts = torch.empty(n_columns + 1, dtype=torch.int64, device="cpu")
    order = torch.empty(indices.numel(), dtype=torch.int32, device="cpu")
    _core.by_column(indices, indices.numel(), n_columns, starts, order)
    return Columns(starts, order[: int(starts[-1])])


def column_sums(x: torch.Tensor, coefs: torch.Tensor | None = None) -> torch.Tensor:
    """Returns [d]: the sum over rows of x [N, d], each times its coefficient, in the order of
    `weighted_sums`."""
    n = len(x)
    starts = torch.tensor([0, n], device=x.device)
    indices = torch.arange(n, dtype=torch.int32, device=x.device)
    if coefs is None:
        coefs = torch.ones(n, dtype=torch.float32, device=x.device)
    return weighted_sums(coefs, indices, starts, x)[0]


def sums_of_squares(x: torch.Tensor) -> torch.Tensor:
    """Returns the sum of squares of each row of x, fp32 [N, d] -> [N]."""
    x = x.detach().contiguous()
    if gpu := on_gpu(x):
        return gpu.sums_of_squares(x)
    out = torch.empty(len(x), dtype=torch.float32, device="cpu")
    _core.sums_of_squares(x, len(x), x.shape[1], out)
    return out


def unit_rows_(w: torch.Tensor) -> None:
    """Divides each row of w, fp32 [F, d], by its norm, in place; a zero row stays."""
    if gpu := on_gpu(w):
        gpu.unit_rows_(w)
    else:
        _core.unit_rows(w, len(w), w.shape[1])


def project_rows_(g: torch.Tensor, w: torch.Tensor) -> None:
    """Takes from each row of g, in place, what lies along the row of w, whose norm is 1."""
    _core.project_rows(g, w, len(g), g.shape[1])


def _check_entries(starts: torch.Tensor, *entries: torch.Tensor) -> None:
    last = int(starts[-1])
    for each in entries:
        if each.numel() < last:
            raise ValueError(f"starts end at entry {last} of {each.numel()}")


def _check_rows(indices: torch.Tensor, limit: int) -> None:
    """Raises IndexError, as the core does, for an index that names no row of a table."""
    low, high = (int(x) for x in torch.aminmax(indices)) if indices.numel() else (-1, -1)
    if low < -1 or high >= limit:
        wrong = low if low < -1 else high
        raise IndexError(f"index {wrong} of a table with {limit} rows")
