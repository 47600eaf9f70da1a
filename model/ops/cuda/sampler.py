"""The exact sampler on a GPU: from whole rows of logits to the tokens of `bitlens.sampling`."""

from __future__ import annotations

import ctypes

import numpy as np
import numpy.typing as npt
import torch

from ...sampling.batch import VOCAB_LIMIT, Batch
from ...sampling.edits import edits_of, is_edited
from .kernels import CudaKernels

SAMPLED = np.dtype(
    [
        ("key", "<u8"), ("mass", "<u8"), ("mass_before", "<u8"), ("threshold_key", "<u8"),
        ("typical_key", "<u8"), ("centre", "<u4"), ("kept", "<u4"), ("rank", "<u4"),
        ("reserved", "<u4"), ("total", "<u8"), ("x_max", "<f4"), ("logprob", "<f4"),
    ]
)  # fmt: skip
"""`Sampled` of csrc/cuda/library.h: `CHOICE`, the mass of all tokens, x_max and ln of the token's
probability. A key of 0: the row is not valid."""


class _Edits(ctypes.Structure):
    """`SampleEdits` of csrc/cuda/library.h."""

    _fields_ = (
        ("allowed", ctypes.c_void_p), ("n_allowed", ctypes.c_int64),
        ("bias_ids", ctypes.c_void_p), ("bias", ctypes.c_void_p), ("n_bias", ctypes.c_int64),
        ("banned", ctypes.c_void_p), ("n_banned", ctypes.c_int64),
        ("seen", ctypes.c_void_p), ("output_counts", ctypes.c_void_p), ("n_seen", ctypes.c_int64),
        ("repetition", ctypes.c_float), ("frequency", ctypes.c_float), ("presence", ctypes.c_float),
    )  # fmt: skip


def sample_rows(
    kernels: CudaKernels, logits_BV: torch.Tensor, batch: Batch
) -> npt.NDArray[np.void]:
    """Returns a record (`SAMPLED`) a row, on the CPU.

    Args:
        logits_BV: fp32 or bf16, whole rows, on the kernels' device.
        batch: Parameters, counters and histories of the rows.

    Raises ValueError for a vocabulary whose weights could overflow their sum.
    """
    size, n = logits_BV.shape
    if n >= VOCAB_LIMIT:
        raise ValueError(f"logits: {n} columns; sums of weights hold fewer than {VOCAB_LIMIT}")
    logits_BV = kernels.cast(logits_BV, torch.float32)  # a copy: edits are in place
    for b, params in enumerate(batch.params):
        if is_edited(params):
            _edit(kernels, logits_BV[b], batch, b)
    temperature = torch.from_numpy(batch.temperature).to(kernels.device)
    rows = torch.from_numpy(batch.rows.view(np.uint8).copy()).to(kernels.device)
    out = kernels.empty((size, SAMPLED.itemsize), torch.uint8)
    kernels.library.launch(
        "sample", logits_BV, temperature, rows, size, n, kernels.empty((size, n)), out
    )
    return out.cpu().numpy().view(SAMPLED)[:, 0]


def _edit(kernels: CudaKernels, row_V: torch.Tensor, batch: Batch, b: int) -> None:
    edits = edits_of(batch, b)
    counts = edits.output_counts.view(np.int32)
    arrays = [edits.bias_ids, edits.bias, edits.banned, edits.seen, counts]
    here = [torch.from_numpy(x).to(kernels.device) for x in arrays]
    bias_ids, bias, banned, seen, output_counts = (x.data_ptr() for x in here)
    allowed, n_allowed = None, 0
    if edits.allowed is not None:
        here.append(torch.from_numpy(edits.allowed).to(kernels.device))
        allowed, n_allowed = here[-1].data_ptr(), len(edits.allowed)
    record = _Edits(
        allowed, n_allowed, bias_ids, bias, len(edits.bias), banned, len(edits.banned), seen,
        output_counts, len(edits.seen), *edits.penalties,
    )  # fmt: skip
    kernels.library.launch("sample_edit", row_V, len(row_V), ctypes.byref(record))
