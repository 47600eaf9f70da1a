"""Masks, bias and penalties: the edits of a row of logits before temperature."""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch

from ... import _core
from .batch import Batch
from .params import SamplingParams


def is_edited(p: SamplingParams) -> bool:
    """Whether these parameters change logits before temperature."""
    return (
        p.allowed_token_ids is not None
        or bool(p.logit_bias)
        or p.min_tokens > 0
        or (p.repetition_penalty, p.frequency_penalty, p.presence_penalty) != (1, 0, 0)
    )


def edit_row(row_V: torch.Tensor, first_id: int, batch: Batch, b: int) -> None:
    """Edits row b in place: fp32, ids first_id .. of it; ids of other slices are passed over."""
    p, output = batch.params[b], batch.outputs[b]
    allowed = None if p.allowed_token_ids is None else np.unique(_int64(p.allowed_token_ids))
    bias_ids = _int64(list(p.logit_bias))
    bias = np.array(list(p.logit_bias.values()), dtype=np.float32)
    banned = _int64(p.stop_token_ids if len(output) < p.min_tokens else ())
    counts = Counter(output)
    seen = {*output, *batch.prompts[b]} if p.repetition_penalty != 1 else set(output)
    seen_ids = _int64(sorted(seen))
    output_counts = np.array([counts[i] for i in sorted(seen)], dtype=np.uint32)
    _core.sampling_edit(
        row_V, len(row_V), first_id,
        (allowed, 0 if allowed is None else len(allowed)),
        (bias_ids, bias, len(bias)),
        (banned, len(banned)),
        (seen_ids, output_counts, len(seen_ids)),
        (p.repetition_penalty, p.frequency_penalty, p.presence_penalty),
    )  # fmt: skip


def _int64(ids: object) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(ids, dtype=np.int64)
