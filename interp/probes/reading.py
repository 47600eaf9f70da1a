"""Activations of labelled conversations, one pass of the model for every hook."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from ...model.text.tokenizer import Tokenizer
from ...model.transformer import HookedTransformer
from ..activations.read import hook_widths, read_rows
from ..activations.sequences import padded
from ..dictionaries import Dictionary, Features, check_fits
from .data import DataError, Dataset
from .rows import TokenRows, ragged

TOKENS_PER_PASS = 2048
MAX_TOKENS = 256
"""Tokens that are read of a conversation unless another number is asked for."""

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, tokens done and tokens in all."""


@dataclass(frozen=True)
class TokenIds:
    """The token ids of each conversation, of the first `max_tokens`."""

    ids: tuple[tuple[int, ...], ...]
    max_tokens: int

    @property
    def lengths(self) -> list[int]:
        return [len(i) for i in self.ids]

    def texts(self, model: HookedTransformer) -> list[str]:
        """Returns the text of what was read, which surface baselines see."""
        tokenizer = tokenizer_of(model)
        return [tokenizer.decode(list(ids)) for ids in self.ids]


def tokenize(model: HookedTransformer, dataset: Dataset, max_tokens: int = MAX_TOKENS) -> TokenIds:
    """Returns the first tokens of each conversation, with a BOS where the model was trained with
    one.

    Raises ValueError for a model without a tokenizer, DataError naming an example without tokens.
    """
    if max_tokens < 1:
        raise ValueError(f"max_tokens = {max_tokens}: expected at least 1")
    tokenizer = tokenizer_of(model)
    ids = []
    for example in dataset:
        found = tokenizer.encode(example.text, add_bos=tokenizer.prepends_bos)[:max_tokens]
        if not found:
            raise DataError(f"{dataset.name}: {example.id} has no tokens")
        ids.append(tuple(found))
    return TokenIds(tuple(ids), max_tokens)


def tokenizer_of(model: HookedTransformer) -> Tokenizer:
    """Returns the model's tokenizer. Raises ValueError where it has none."""
    if model.tokenizer is None:
        raise ValueError(f"{model.name} has no tokenizer, which texts need")
    return model.tokenizer


def check_hooks(model: HookedTransformer, hook_names: Sequence[str]) -> None:
    """Raises ValueError for a name that is no hook, or that holds no rows of activations."""
    try:
        hook_widths(model, hook_names)
    except KeyError as error:
        raise ValueError(error.args[0]) from error


def read_passes(
    model: HookedTransformer,
    tokens: TokenIds,
    hook_names: Sequence[str],
    progress: Progress | None = None,
    stage: str = "reading",
) -> Iterator[tuple[list[int], dict[str, torch.Tensor]]]:
    """Yields, pass after pass, which conversations it held and their rows [N, D] by hook; those of
    like length share a pass.

    Raises KeyError for a name that is no hook, ValueError for NaN or infinity in an activation: a
    token without a score would raise no alarm.
    """
    order = sorted(range(len(tokens.ids)), key=lambda i: len(tokens.ids[i]))
    total, done = sum(tokens.lengths), 0
    while order:
        held: list[int] = []
        longest = 0
        while order and max(longest, len(tokens.ids[order[0]])) * (len(held) + 1) <= max(
            TOKENS_PER_PASS, len(tokens.ids[order[0]])
        ):
            held.append(order.pop(0))
            longest = len(tokens.ids[held[-1]])
        batch = padded([list(tokens.ids[i]) for i in held])
        rows = read_rows(model, batch, hook_names)
        for name, each in rows.items():
            if not bool(torch.isfinite(each).all()):
                raise ValueError(f"{name} of {model.name} holds NaN or infinity: it has no score")
        yield held, rows
        done += batch.n_tokens
        if progress is not None:
            progress(stage, done, total)


def read(
    model: HookedTransformer,
    tokens: TokenIds,
    hook_names: Sequence[str],
    *,
    dictionary: Dictionary | None = None,
    progress: Progress | None = None,
    stage: str = "reading",
) -> dict[str, TokenRows]:
    """Returns the rows of every conversation, in the data set's order, by hook: activations, or the
    features of a dictionary, which reads one hook.

    Needs tokens x width x 4 bytes of memory for each hook.
    """
    if dictionary is not None:
        check_fits(dictionary, model)
        if list(hook_names) != [dictionary.cfg.hook_name]:
            raise ValueError(f"the dictionary reads {dictionary.cfg.hook_name} only")
    parts: dict[str, dict[int, torch.Tensor | Features]] = {name: {} for name in hook_names}
    for held, found in read_passes(model, tokens, hook_names, progress, stage):
        for name, rows in found.items():
            split = torch.split(rows, [len(tokens.ids[i]) for i in held])
            for i, part in zip(held, split, strict=True):
                kept = part.clone() if dictionary is None else dictionary.encode_sparse(part)
                parts[name][i] = kept
    n = len(tokens.ids)
    return {
        name: ragged(_joined([p[i] for i in range(n)]), tokens.lengths) for name, p in parts.items()
    }


def side_by_side(rows: Sequence[TokenRows]) -> TokenRows:
    """Returns the dense rows of several hooks, joined along their width."""
    if len(rows) == 1:
        return rows[0]
    dense = [r.rows for r in rows if isinstance(r.rows, torch.Tensor)]
    if len(dense) < len(rows):
        raise ValueError("features of several hooks are not joined")
    first = rows[0]
    return TokenRows(torch.cat(dense, 1), first.starts, first.columns, first.shape)


def _joined(parts: Sequence[torch.Tensor | Features]) -> torch.Tensor | Features:
    dense = [p for p in parts if isinstance(p, torch.Tensor)]
    if len(dense) == len(parts):
        return torch.cat(dense)
    sparse = [p for p in parts if isinstance(p, Features)]
    counts = torch.cat([p.indptr.diff() for p in sparse])
    indptr = torch.zeros(len(counts) + 1, dtype=torch.int64, device="cpu")
    torch.cumsum(counts, 0, out=indptr[1:])
    return Features(
        indptr,
        torch.cat([p.indices for p in sparse]),
        torch.cat([p.values for p in sparse]),
        (len(counts), sparse[0].shape[-1]),
    )
