"""The text of an evaluation: token sequences that the model runs on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ...model.transformer import HookedTransformer
from ..activations import Packing, TextSource
from ..activations.documents import Split
from ..activations.sequences import Batch, batches


@dataclass(frozen=True)
class EvaluatedText:
    """Sequences of a text, each of which is read once.

    Attributes:
        sequences: Those that losses are measured on, kept in memory.
        rest: Those that follow, which end at the longer length asked for.
        n_tokens: Tokens in `sequences`.
    """

    sequences: list[list[int]]
    rest: Iterator[list[int]]
    n_tokens: int


def read_text(
    model: HookedTransformer,
    source: TextSource,
    packing: Packing,
    split: Split,
    n_tokens: int,
    n_dead_tokens: int,
) -> EvaluatedText:
    """Returns at least `n_tokens` of a text in whole sequences, if it has as many, and the rest up
    to `n_dead_tokens`.

    Raises ValueError for a model without tokenizer, a context the model does not have, and text
    without a sequence that has a next token.
    """
    if n_tokens < 1:
        raise ValueError(f"n_tokens = {n_tokens}: expected at least 1")
    if model.tokenizer is None:
        raise ValueError("evaluate: this model was loaded without a tokenizer")
    if packing.context_size > model.config.n_ctx:
        raise ValueError(
            f"context_size = {packing.context_size} exceeds the model's {model.config.n_ctx}"
        )
    every = packing.sequences(source.documents(split), model.tokenizer)
    sequences = list(first_tokens(every, n_tokens))
    if max(map(len, sequences), default=0) < 2:
        kind = "" if split == "all" else f"{split} "
        hint = "; split='all' takes every document" if split != "all" else ""
        raise ValueError(
            f"text {source.name!r}: no {kind}document of {max(2, packing.min_tokens)} tokens or "
            f"more{hint}"
        )
    found = sum(map(len, sequences))
    return EvaluatedText(sequences, first_tokens(every, n_dead_tokens - found), found)


def first_tokens(sequences: Iterator[list[int]], n_tokens: int) -> Iterator[list[int]]:
    """Yields sequences until they come to `n_tokens`; takes no further one."""
    seen = 0
    while seen < n_tokens and (sequence := next(sequences, None)) is not None:
        seen += len(sequence)
        yield sequence


def padded_batches(sequences: Iterable[list[int]], n_positions: int) -> Iterator[Batch]:
    """Yields batches of consecutive sequences that take at most `n_positions` with their padding,
    where one sequence alone does not take more."""
    rows: list[list[int]] = []
    width = 0
    for sequence in sequences:
        if rows and (len(rows) + 1) * max(width, len(sequence)) > n_positions:
            yield from batches(rows, sum(map(len, rows)))
            rows, width = [], 0
        rows.append(sequence)
        width = max(width, len(sequence))
    yield from batches(rows, sum(map(len, rows)))
