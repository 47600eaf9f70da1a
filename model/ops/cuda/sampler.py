"""The exact sampler on a GPU: from whole rows of logits to the tokens of `bitlens.sampling`.

Shapes: B rows, V vocabulary, N tokens listed of a row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ...sampling.batch import VOCAB_LIMIT, Batch, Ids
from ...sampling.edits import is_edited
from ...sampling.sample import Counters, Params, SampleOutput
from ...sampling.shard import U64, id_of, logprobs
from .edits import edit_row
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


@dataclass(frozen=True)
class CudaSampler:
    """`sample` of whole rows that are on a GPU; tokens and numbers come to the CPU."""

    kernels: CudaKernels

    def __call__(
        self,
        logits: torch.Tensor,
        params: Params,
        *,
        positions: Counters,
        draws: Counters | None,
        prompt_ids: Ids | None,
        output_ids: Ids | None,
    ) -> SampleOutput:
        batch = Batch.make(
            params, positions, draws, prompt_ids, output_ids, size=len(logits),
            seeds_must_agree=False,
        )  # fmt: skip
        rows, keys_BN = sample_rows(self.kernels, logits, batch)
        return _output(batch, rows, keys_BN)


def sample_rows(
    kernels: CudaKernels, logits_BV: torch.Tensor, batch: Batch
) -> tuple[npt.NDArray[np.void], U64]:
    """Returns a record (`SAMPLED`) a row, and the order keys of the first tokens of rows that ask
    for log-probabilities of such [B, N], descending, 0 where there are none; on the CPU.

    Args:
        logits_BV: fp32 or bf16, whole rows, on the kernels' device.
        batch: Parameters, counters and histories of the rows.

    Raises ValueError for a vocabulary whose weights could overflow their sum.
    """
    size, n = logits_BV.shape
    if n >= VOCAB_LIMIT:
        raise ValueError(f"logits: {n} columns; sums of weights hold fewer than {VOCAB_LIMIT}")
    edited = [b for b, params in enumerate(batch.params) if is_edited(params)]
    if edited or logits_BV.dtype is not torch.float32:
        logits_BV = kernels.cast(logits_BV, torch.float32)  # a copy: edits are in place
    for b in edited:
        edit_row(kernels, logits_BV[b], 0, batch, b)
    temperature = torch.from_numpy(batch.temperature).to(kernels.device)
    rows = torch.from_numpy(batch.rows.view(np.uint8).copy()).to(kernels.device)
    out = kernels.empty((size, SAMPLED.itemsize), torch.uint8)
    listed = np.array([p.logprobs or 0 for p in batch.params], dtype=np.int32)
    width = int(listed.max(initial=0))
    keys = torch.zeros(size, width, dtype=torch.int64, device=kernels.device)
    kernels.library.launch(
        "sample", logits_BV.contiguous(), temperature, rows, size, n, kernels.empty((size, n)), out,
        torch.from_numpy(listed).to(kernels.device), width, keys,
    )  # fmt: skip
    found = keys.cpu().numpy().view(np.uint64)
    return out.cpu().numpy().view(SAMPLED)[:, 0], np.sort(found, axis=1)[:, ::-1]


def _output(batch: Batch, rows: npt.NDArray[np.void], keys_BN: U64) -> SampleOutput:
    """Records as `sample` returns them."""
    tokens = torch.from_numpy(id_of(rows["key"]))
    asked = np.array([p.logprobs is not None for p in batch.params])
    own = np.where(asked & (rows["key"] != 0), rows["logprob"], np.float32("nan"))
    top = np.full(keys_BN.shape, np.nan, dtype=np.float32)
    there = keys_BN != 0
    of_row = np.nonzero(there)[0]
    top[there] = logprobs(keys_BN[there], rows["x_max"][of_row], rows["total"][of_row])
    is_listed = keys_BN.shape[1] > 0
    return SampleOutput(
        tokens=tokens,
        valid=tokens >= 0,
        logprobs=torch.from_numpy(own) if asked.any() else None,
        top_ids=torch.from_numpy(id_of(keys_BN)) if is_listed else None,
        top_logprobs=torch.from_numpy(top) if is_listed else None,
    )
