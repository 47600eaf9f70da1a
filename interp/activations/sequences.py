"""From documents to the token sequences that a model runs on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch

from ...model.text.tokenizer import Tokenizer

_MIXED = 2048
"""Sequences that are held at once to be mixed."""


@dataclass(frozen=True)
class Packing:
    """The rule by which documents become sequences.

    Attributes:
        context_size: Tokens of the longest sequence.
        across_documents: True joins documents by an end-of-text token and cuts sequences of exactly
            `context_size`, so tokens see documents before their own. False gives each document
            sequences of its own; the model runs them side by side without padding.
        min_tokens: Shorter documents, and shorter rests of one, are left out.
        max_tokens: Tokens taken of a document; None takes all.
        prepend_bos: Whether a document begins with the BOS token; None does as the model was
            trained.
    """

    context_size: int = 256
    across_documents: bool = False
    min_tokens: int = 16
    max_tokens: int | None = 1024
    prepend_bos: bool | None = None

    def __post_init__(self) -> None:
        if self.context_size < 2:
            raise ValueError(f"context_size = {self.context_size}: expected at least 2")
        if self.min_tokens < 1:
            raise ValueError(f"min_tokens = {self.min_tokens}: expected at least 1")
        if self.max_tokens is not None and self.max_tokens < self.min_tokens:
            raise ValueError(
                f"max_tokens = {self.max_tokens} is below min_tokens = {self.min_tokens}"
            )

    def sequences(self, documents: Iterable[str], tokenizer: Tokenizer) -> Iterator[list[int]]:
        """Yields sequences of token ids, in the order of the documents."""
        rows = self._tokenized(documents, tokenizer)
        return self._joined(rows, tokenizer) if self.across_documents else self._cut(rows)

    def _tokenized(self, documents: Iterable[str], tokenizer: Tokenizer) -> Iterator[list[int]]:
        add_bos = tokenizer.prepends_bos if self.prepend_bos is None else self.prepend_bos
        for text in documents:
            ids = tokenizer.encode(text, add_bos=add_bos)[: self.max_tokens]
            if len(ids) >= self.min_tokens:
                yield ids

    def _cut(self, rows: Iterable[list[int]]) -> Iterator[list[int]]:
        for ids in rows:
            for start in range(0, len(ids), self.context_size):
                if len(piece := ids[start : start + self.context_size]) >= self.min_tokens:
                    yield piece

    def _joined(self, rows: Iterable[list[int]], tokenizer: Tokenizer) -> Iterator[list[int]]:
        if not tokenizer.eos_ids:
            raise ValueError("across_documents: the tokenizer has no end-of-text token to join by")
        stream = (token for ids in rows for token in (*ids, tokenizer.eos_ids[0]))
        while len(sequence := list(islice(stream, self.context_size))) == self.context_size:
            yield sequence


@dataclass(frozen=True)
class Batch:
    """Sequences that the model runs at once, padded on the right.

    Attributes:
        tokens: int64 [B, P].
        mask: Bool [B, P], True at real tokens.
    """

    tokens: torch.Tensor
    mask: torch.Tensor

    @property
    def n_tokens(self) -> int:
        return int(self.mask.sum())


def mixed(sequences: Iterable[list[int]], seed: int) -> Iterator[list[int]]:
    """Yields the sequences in another order, drawn from the seed within each block of 2,048.

    Pieces of one document, which follow each other, then rarely share a batch.
    """
    generator = torch.Generator(device="cpu").manual_seed(seed)
    rest = iter(sequences)
    while block := list(islice(rest, _MIXED)):
        for i in torch.randperm(len(block), generator=generator, device="cpu").tolist():
            yield block[i]


def batches(sequences: Iterable[list[int]], n_tokens: int) -> Iterator[Batch]:
    """Yields batches of consecutive sequences: as many as come to at least `n_tokens` tokens."""
    rows: list[list[int]] = []
    size = 0
    for sequence in sequences:
        rows.append(sequence)
        size += len(sequence)
        if size >= n_tokens:
            yield padded(rows)
            rows, size = [], 0
    if rows:
        yield padded(rows)


def padded(rows: list[list[int]]) -> Batch:
    """Returns one batch of these sequences, padded on the right."""
    width = max(map(len, rows))
    tokens = torch.zeros(len(rows), width, dtype=torch.int64, device="cpu")
    mask = torch.zeros(len(rows), width, dtype=torch.bool, device="cpu")
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = torch.tensor(row, dtype=torch.int64, device="cpu")
        mask[i, : len(row)] = True
    return Batch(tokens, mask)
