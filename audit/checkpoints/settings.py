"""Configs, tokenizers and chat templates, compared by what they do, not by how they are kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

import numpy as np

from ...model.config import ModelConfig
from ...model.text.tokenizer import Tokenizer

# A name that nothing is computed from, what `layers` says of each layer, where a norm's 1 is added
# (its weights are compared with it), and ties, which the tensors show.
_ELSEWHERE = {"architecture", "layers", "norm_offset", "folded_norm_offset", "tie_embeddings"}
_SHOWN = 3


def config_differences(a: ModelConfig, b: ModelConfig) -> tuple[str, ...]:
    """Returns the fields that differ, such as "eps 1e-06 against 1e-05": B's value against A's."""
    fields = [f.name for f in dataclasses.fields(a) if f.name not in _ELSEWHERE]
    found = [_against(name, getattr(a, name), getattr(b, name)) for name in fields]
    if a.multiplies_by_offset != b.multiplies_by_offset:
        found.append(_against("1 + w in norms", a.multiplies_by_offset, b.multiplies_by_offset))
    for name in (f.name for f in dataclasses.fields(a.layers[0])):
        pairs = zip(a.layers, b.layers, strict=False)
        words = [_against(name, getattr(x, name), getattr(y, name)) for x, y in pairs]
        places: dict[str, list[int]] = {}
        for i, difference in enumerate(words):
            if difference:
                places.setdefault(difference, []).append(i)
        found += [f"{difference} in {_layers(where)}" for difference, where in places.items()]
    return tuple(filter(None, found))


def _against(name: str, a: Any, b: Any) -> str:
    numbers = isinstance(a, float) and isinstance(b, float)
    same = np.float32(a) == np.float32(b) if numbers else a == b
    return "" if same else f"{name} {_shown(b)} against {_shown(a)}"


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _layers(where: list[int]) -> str:
    return f"layer {where[0]}" if len(where) == 1 else f"{len(where)} layers from {where[0]} on"


def tokenizer_differences(a: Tokenizer, b: Tokenizer) -> tuple[str, ...]:
    """Returns what differs in words: entries, special ids, and the ids of texts.

    The texts, where the files differ at all, are every entry of A's vocabulary by itself, which
    takes each of its merges, and some sentences; two files that hold one tokenizer in other words
    give the same.
    """
    return tuple(_tokenizer_differences(a, b))


def _tokenizer_differences(a: Tokenizer, b: Tokenizer) -> Iterator[str]:
    entries = range(max(a.n_tokens, b.n_tokens))
    names_a, names_b = [a.token(i) for i in entries], [b.token(i) for i in entries]
    other = [i for i in entries if names_a[i] != names_b[i]]
    if other:
        shown = ", ".join(f"{i} is {names_b[i]!r} against {names_a[i]!r}" for i in other[:_SHOWN])
        yield f"{len(other):,} of {len(entries):,} ids stand for other tokens: {shown}"
    for field in ("bos_id", "eos_ids", "prepends_bos"):
        if difference := _against(field, getattr(a, field), getattr(b, field)):
            yield difference
    if a.special_ids.keys() != b.special_ids.keys():
        lone = sorted(a.special_ids.keys() ^ b.special_ids.keys())
        yield f"special in one only: {', '.join(map(repr, lone[:_SHOWN]))}"
    if a.definition == b.definition:
        return
    texts = [*_SENTENCES, *a.token_strings([i for i in entries if names_a[i] is not None])]
    apart = [text for text in texts if a.encode(text) != b.encode(text)]
    if apart:
        ids = f"{b.encode(apart[0])} against {a.encode(apart[0])}"
        yield f"{len(apart):,} of {len(texts):,} texts give other ids: {apart[0]!r} gives {ids}"


_SENTENCES = (
    'The 3 cats: "naïve" fn(x) -> 12.5%\n\tなに?',
    "  two  spaces,\r\n\r\nand 1234567 digits; e\u0301 composed",
    "def f(x):\n    return x**2  # 🙂\n",
)


def template_differences(a: str | None, b: str | None) -> tuple[str, ...]:
    """Returns what differs in words: none on one side, or the first line that is another."""
    if a == b:
        return ()
    if a is None or b is None:
        return (f"{'A' if a is None else 'B'} has no chat template",)
    lines = enumerate(zip_longest(a.splitlines(), b.splitlines(), fillvalue=""), 1)
    other = [(i, x, y) for i, (x, y) in lines if x != y]
    if not other:
        return ("only the ends of lines differ",)
    i, x, y = other[0]
    at = next((n for n, pair in enumerate(zip_longest(x, y)) if pair[0] != pair[1]), 0)
    cut = slice(max(0, at - 20), at + 40)
    return (f"{len(other)} lines differ, first line {i}: {y[cut]!r} against {x[cut]!r}",)
