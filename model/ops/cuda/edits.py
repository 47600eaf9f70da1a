"""Masks, bias and penalties of a row of logits on a GPU."""

from __future__ import annotations

import ctypes

import numpy as np
import torch

from ...sampling.batch import Batch
from ...sampling.edits import edits_of
from .kernels import CudaKernels


class _Edits(ctypes.Structure):
    """`SampleEdits` of csrc/cuda/library.h."""

    _fields_ = (
        ("allowed", ctypes.c_void_p), ("n_allowed", ctypes.c_int64),
        ("bias_ids", ctypes.c_void_p), ("bias", ctypes.c_void_p), ("n_bias", ctypes.c_int64),
        ("banned", ctypes.c_void_p), ("n_banned", ctypes.c_int64),
        ("seen", ctypes.c_void_p), ("output_counts", ctypes.c_void_p), ("n_seen", ctypes.c_int64),
        ("repetition", ctypes.c_float), ("frequency", ctypes.c_float), ("presence", ctypes.c_float),
    )  # fmt: skip


def edit_row(
    kernels: CudaKernels, row_V: torch.Tensor, first_id: int, batch: Batch, b: int
) -> None:
    """Edits row b in place: fp32, ids first_id .. of it; ids of other slices are passed over."""
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
    kernels.library.launch("sample_edit", row_V, len(row_V), first_id, ctypes.byref(record))
