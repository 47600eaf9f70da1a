"""Masks, bias and penalties: the edits of a row of logits before temperature."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ... import _core
from .batch import Batch
from .params import SamplingParams

Ids = npt.NDArray[np.int64]


def is_edited(p: SamplingParams) -> bool:
    """Whether these parameters change logits before temperature."""
    return (
        p.allowed_token_ids is not None
        or bool(p.logit_bias)
        or p.min_tokens > 0
        or (p.repetition_penalty, p.frequency_penalty, p.presence_penalty) != (1, 0, 0)
    )


@dataclass(frozen=True)
class RowEdits:
    """The edits of one row as kernels take them; ids are int64.

    Attributes:
        allowed: Ascending; None where all are.
        banned: Stop tokens, before min_tokens are written.
        seen: Ascending, with how often the output holds each.
        penalties: Repetition, frequency, presence.
    """

    allowed: Ids | None
    bias_ids: Ids
    bias: npt.NDArray[np.float32]
    banned: Ids
    seen: Ids
    output_counts: npt.NDArray[np.uint32]
    penalties: tuple[float, float, float]


def edits_of(batch: Batch, b: int) -> RowEdits:
    """Returns what is done to row b before temperature."""
    p, output = batch.params[b], batch.outputs[b]
    counts = Counter(output)
    seen = {*output, *batch.prompts[b]} if p.repetition_penalty != 1 else set(output)
    return RowEdits(
        allowed=None if p.allowed_token_ids is None else np.unique(_int64(p.allowed_token_ids)),
        bias_ids=_int64(list(p.logit_bias)),
        bias=np.array(list(p.logit_bias.values()), dtype=np.float32),
        banned=_int64(p.stop_token_ids if len(output) < p.min_tokens else ()),
        seen=_int64(sorted(seen)),
        output_counts=np.array([counts[i] for i in sorted(seen)], dtype=np.uint32),
        penalties=(p.repetition_penalty, p.frequency_penalty, p.presence_penalty),
    )


def edit_row(row_V: torch.Tensor, first_id: int, batch: Batch, b: int) -> None:
    """Edits row b in place: fp32, ids first_id .. of it; ids of other slices are passed over."""
    edits = edits_of(batch, b)
    _core.sampling_edit(
        row_V, len(row_V), first_id,
        (edits.allowed, 0 if edits.allowed is None else len(edits.allowed)),
        (edits.bias_ids, edits.bias, len(edits.bias)),
        (edits.banned, len(edits.banned)),
        (edits.seen, edits.output_counts, len(edits.seen)),
        edits.penalties,
    )  # fmt: skip


def _int64(ids: object) -> Ids:
    return np.array(ids, dtype=np.int64)
