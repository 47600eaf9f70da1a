"""The effects of path B on the features of a dictionary.

Tensor names: N prompts, P positions, d width of the dictionary's hook.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ..interp.activations.read import read_rows
from ..interp.activations.sequences import Batch
from ..interp.dictionaries import Dictionary, check_fits, check_hooks, load_dictionary
from ..interp.stability import StabilityResult, Tally
from ..interp.stability.stability import places_of
from ..model.transformer import HookedTransformer
from .black_box import BlackBox
from .paths import ModelPath
from .result import FeatureChanges

if TYPE_CHECKING:
    from ..precision.addresses import Addressable

_WORST = 20
_CONTEXT = 60
_BATCH = 16

_WRITTEN_BY: Mapping[str, str] = {"hook_resid_mid": "resid_mid", "hook_resid_post": "resid_post"}
"""Hooks that hold just what an operation gives, by the last part of its address."""


@dataclass(frozen=True)
class NamedDictionary:
    """A dictionary and what it is called in the report."""

    name: str
    dictionary: Dictionary


def read_dictionary(
    name: str, model: HookedTransformer, b: ModelPath | BlackBox
) -> NamedDictionary:
    """Returns the dictionary of that name, which fits model A and can be read in path B.

    Raises as `load_dictionary`; DictionaryError, too, for hooks that B lacks; ValueError for hooks
    that a model without hooks has no operation for, and for a path that shows logits only.
    """
    if isinstance(b, BlackBox):
        raise ValueError(f"--b {b.name}: it shows logits only, so no feature of it is seen")
    dictionary = load_dictionary(name)
    check_fits(dictionary, model)
    if isinstance(b.model, HookedTransformer):
        check_hooks(dictionary, b.model)
    else:
        _address(dictionary.cfg.hook_name, b)
    return NamedDictionary(name, dictionary)


@torch.no_grad()
def feature_changes(
    a: ModelPath,
    b: ModelPath,
    tokens_NP: torch.Tensor,
    named: NamedDictionary,
    progress: Callable[[int, int], None],
) -> FeatureChanges:
    """Returns what B changes of the dictionary's features, over all positions of the prompts."""
    hook = named.dictionary.cfg.hook_name
    tally = Tally(named.dictionary, _context(a, tokens_NP))
    for first in range(0, len(tokens_NP), _BATCH):
        progress(first, len(tokens_NP))
        tokens_BP = tokens_NP[first : first + _BATCH]
        batch = Batch(tokens_BP, torch.ones_like(tokens_BP, dtype=torch.bool))
        rows_a, rows_b = (_rows(path, batch, hook) for path in (a, b))
        tally.add(rows_a, rows_b, places_of(batch, first))
    return _changes(named.name, hook, tally.result())


def _changes(name: str, hook: str, found: StabilityResult) -> FeatureChanges:
    worst = [tuple(row.values()) for row in found.to_dict()["by_feature"][:_WORST]]
    return FeatureChanges(
        dictionary=name,
        hook_name=hook,
        active=found.active,
        gained=found.gained,
        lost=found.lost,
        changed_share=found.changed_share,
        positions=found.n_tokens,
        changed_positions=found.n_changed_tokens,
        pairs=found.pairs,
        certified=found.certified,
        wrong=found.wrong,
        features=tuple(worst),
        examples=found.examples,
    )


def _rows(path: ModelPath, batch: Batch, hook: str) -> torch.Tensor:
    """What a path has at a hook, fp32 [B P, d]."""
    if isinstance(path.model, HookedTransformer):
        return read_rows(path.model, batch, [hook])[hook].float().cpu()
    model: Addressable = path.model
    found: list[torch.Tensor] = []

    def keep(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        found.append(result.detach().flatten(0, -2).float())
        return result

    with model.override(_address(hook, path), keep):
        model(batch.tokens)
    return found[0]


def _address(hook: str, path: ModelPath) -> str:
    """The operation that writes what a hook holds."""
    block, _, kind = hook.rpartition(".")
    address = f"{block}.{_WRITTEN_BY.get(kind, kind)}"
    if kind not in _WRITTEN_BY or address not in path.model.op_addresses:
        raise ValueError(
            f"--b {path.name}: has no {hook} to read features from; take a dictionary of "
            f"{' or '.join(_WRITTEN_BY)}, or a path of bitlens"
        )
    return address


def _context(path: ModelPath, tokens_NP: torch.Tensor) -> Callable[[int, int], str]:
    def text(prompt: int, position: int) -> str:
        ids = tokens_NP[prompt, : position + 1].tolist()
        if path.tokenizer is None:
            return str(ids[-8:])
        decoded = path.tokenizer.decode(ids, skip_special=False)[-_CONTEXT:]
        return decoded.replace("\n", "⏎").replace("\t", "⇥")

    return text
