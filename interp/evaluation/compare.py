"""`compare`: several dictionaries on one text, and which features they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Any

from ...model.transformer import HookedTransformer
from ..activations import Packing, TextSource, open_text
from ..activations.documents import Split, Text
from ..dictionaries import Dictionary, check_fits
from .evaluate import N_DEAD_TOKENS, N_TOKENS, evaluate
from .neighbours import Neighbours, nearest_features
from .result import EvalResult

Progress = Callable[[str, str, int, int], None]
"""Called with the dictionary, the stage of its evaluation, tokens done, and tokens in all."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Several dictionaries side by side.

    Attributes:
        results: Their evaluations by name; empty where no model was given.
        neighbours: For each ordered pair of names that write the same hook, which features of the
            first the second has.
    """

    results: dict[str, EvalResult]
    neighbours: dict[tuple[str, str], Neighbours]

    def to_dict(self) -> dict[str, Any]:
        """Returns both as JSON can hold them; pairs are a list."""
        return {
            "results": {name: result.to_dict() for name, result in self.results.items()},
            "neighbours": [
                {"of": a, "among": b, **found.to_dict()}
                for (a, b), found in self.neighbours.items()
            ],
        }


def compare(
    dictionaries: Mapping[str, Dictionary],
    *,
    model: HookedTransformer | None = None,
    text: Text | TextSource = None,
    n_tokens: int = N_TOKENS,
    n_dead_tokens: int = N_DEAD_TOKENS,
    split: Split = "held_out",
    packing: Packing | None = None,
    strict: bool = True,
    progress: Progress | None = None,
) -> Comparison:
    """Returns evaluations of dictionaries on one text, and their features' nearest neighbours.

    Args:
        dictionaries: By the names that the result gives them.
        model: The model to evaluate on; None compares decoders alone, which takes seconds.
        packing: How documents become sequences, the same for all; None takes contexts of 256.

    The others, and what is raised, are those of `evaluate`. ValueError, too, for fewer than two.
    """
    if len(dictionaries) < 2:
        raise ValueError(f"compare: expected at least 2 dictionaries, got {len(dictionaries)}")
    results: dict[str, EvalResult] = {}
    if model is not None:
        for dictionary in dictionaries.values():  # all, before minutes are spent on the first
            check_fits(dictionary, model, strict=strict)
        source = text if isinstance(text, TextSource) else open_text(text)
        for name, dictionary in dictionaries.items():
            results[name] = evaluate(
                model,
                dictionary,
                text=source,
                n_tokens=n_tokens,
                n_dead_tokens=n_dead_tokens,
                split=split,
                packing=packing or Packing(),
                strict=strict,
                progress=_named(progress, name),
            )
    neighbours = {
        (a, b): nearest_features(dictionaries[a], dictionaries[b])
        for a, b in permutations(dictionaries, 2)
        if dictionaries[a].cfg.hook_name_out == dictionaries[b].cfg.hook_name_out
    }
    return Comparison(results, neighbours)


def _named(progress: Progress | None, name: str) -> Callable[[str, int, int], None] | None:
    if progress is None:
        return None
    report = progress
    return lambda stage, done, total: report(name, stage, done, total)
