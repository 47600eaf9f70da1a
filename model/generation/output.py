"""The result of a generation.

Tensor names: B sequences (prompts times n), P prompt columns, N new tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence as Sequences
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from ...precision import notebook
from ..text.prompts import left_pad
from .monitors import GenerationWatch
from .sequence import Sequence

FinishReason = Literal["stop", "length", "alarm", "error"]
"""Why a sequence ended: a token or text that ends it; `max_new_tokens`; a monitor; an error."""


@dataclass(frozen=True)
class GenerateOutput:
    """The generated tokens and texts. The samples of one prompt are consecutive rows.

    Attributes:
        tokens: int64 [B, P + N]. Prompts are padded on the left, so new tokens begin in column P;
            a sequence that ended early is padded on the right.
        attention_mask: int64 [B, P + N], 1 at real tokens.
        n_new: New tokens of each row, the one that ended it included.
        text: The new text of each row, without special tokens and up to a stop string; empty
            without a tokenizer.
        captured: Activations by hook name, position by position as the passes computed them:
            [B, P + N - 1, ...] (the last token is never run), scores and patterns
            [B, H, P + N - 1, K]. Zeros (scores: -inf) on padding and after a sequence's end.
        finish_reason: Why each row ended: "stop", "length" or "alarm"; "error" where a monitor's
            function raised, and for rows that were under way in a call that raised.
        n_steps: Passes that were run, the one over the prompts included.
        logprobs: fp32 [B, N], the natural logarithm of each new token's probability after penalties
            and temperature, before filters; NaN on padding. None unless asked for.
        top_ids, top_logprobs: int64 and fp32 [B, N, n], the best n tokens in each new token's
            place; -1 and NaN on padding. None unless asked for.
        scores: By monitor, the score after each token, fp32 [B, P + N]; NaN on padding and where a
            monitor gave none.
        alarms: What monitors raised, in order.
    """

    tokens: torch.Tensor
    attention_mask: torch.Tensor
    n_new: list[int]
    text: list[str]
    captured: dict[str, torch.Tensor]
    finish_reason: list[FinishReason] = field(default_factory=list)
    n_steps: int = 0
    logprobs: torch.Tensor | None = None
    top_ids: torch.Tensor | None = None
    top_logprobs: torch.Tensor | None = None
    scores: dict[str, torch.Tensor] = field(default_factory=dict)
    alarms: list[Any] = field(default_factory=list)

    def _repr_html_(self) -> str:
        """The new texts in a notebook, and alarms; token ids where there is no tokenizer."""
        n_prompt = self.tokens.shape[1] - max(self.n_new)
        new = [row[n_prompt : n_prompt + n] for row, n in zip(self.tokens, self.n_new, strict=True)]
        texts = self.text or [str(row.tolist()) for row in new]
        counts = zip(self.n_new, self.finish_reason, texts, strict=True)
        rows = [(i, *each) for i, each in enumerate(counts)]
        columns = ("row", "new tokens", "ended by", "text")
        parts = [notebook.table(columns, rows, words=(2, 3))]
        if self.alarms:
            alarms = [(a.monitor, a.row, a.position, a.score, a.threshold) for a in self.alarms]
            parts.append(
                notebook.table(("alarm of", "row", "position", "score", "threshold"), alarms)
            )
        return notebook.output(*parts)


def output_of(
    sequences: Sequences[Sequence],
    pad_id: int,
    captured: dict[str, torch.Tensor],
    n_steps: int,
    n_logprobs: int | None,
    max_new_tokens: int,
    watch: GenerationWatch | None,
) -> GenerateOutput:
    """Returns what the sequences hold, as one padded batch."""
    n_new = [len(sequence.new) for sequence in sequences]
    prompt_BP, mask_BP = left_pad([sequence.prompt for sequence in sequences], pad_id)
    new_BN = torch.full((len(sequences), max(n_new)), pad_id, dtype=torch.int64, device="cpu")
    for b, sequence in enumerate(sequences):
        new_BN[b, : n_new[b]] = torch.tensor(sequence.new, dtype=torch.int64, device="cpu")
    real_BN = torch.arange(max(n_new), device="cpu") < torch.tensor(n_new, device="cpu")[:, None]
    return GenerateOutput(
        tokens=torch.cat([prompt_BP, new_BN], dim=1),
        attention_mask=torch.cat([mask_BP, real_BN.long()], dim=1),
        n_new=n_new,
        text=[sequence.stream.text for sequence in sequences if sequence.stream],
        captured=captured,
        finish_reason=[_reason(sequence, max_new_tokens) for sequence in sequences],
        n_steps=n_steps,
        scores=watch.scores(prompt_BP.shape[1] + max(n_new)) if watch is not None else {},
        alarms=list(watch.alarms) if watch is not None else [],
        **_logprobs(sequences, n_logprobs, max(n_new)),
    )


def _reason(sequence: Sequence, max_new_tokens: int) -> FinishReason:
    if sequence.ended is not None:
        return sequence.ended
    return "length" if len(sequence.new) == max_new_tokens else "error"


def _logprobs(sequences: Sequences[Sequence], n_logprobs: int | None, n_new: int) -> dict[str, Any]:
    if n_logprobs is None:
        return {}
    shape = len(sequences), n_new
    chosen = torch.full(shape, math.nan, dtype=torch.float32, device="cpu")
    ids = torch.full((*shape, n_logprobs), -1, dtype=torch.int64, device="cpu")
    best = torch.full((*shape, n_logprobs), math.nan, dtype=torch.float32, device="cpu")
    for b, sequence in enumerate(sequences):
        for i, (logprob, top_ids, top_logprobs) in enumerate(sequence.logprobs):
            chosen[b, i] = logprob
            ids[b, i, : len(top_ids)] = torch.tensor(top_ids, dtype=torch.int64, device="cpu")
            best[b, i, : len(top_logprobs)] = torch.tensor(
                top_logprobs, dtype=torch.float32, device="cpu"
            )
    found = {"logprobs": chosen}
    return found | ({"top_ids": ids, "top_logprobs": best} if n_logprobs else {})
