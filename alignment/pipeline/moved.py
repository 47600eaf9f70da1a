"""The insides of a model before and after a stage of a run, as a row of insides.jsonl."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ...interp.dictionaries import Dictionary
from ...interp.probes.data import Dataset, Example
from ...model.transformer import HookedTransformer
from ..insides import (
    ablate,
    changed_features,
    cosine,
    movement,
    refusal_direction,
    staleness,
    swap_blocks,
)
from ..preferences.pairs import AnswerPair
from ..prompt_rows import PromptRow
from ..row_file import Row
from ..standin import KINDS, StandIn, prompts

PROBED = 3
"""How many times as many prompts a probe is fitted to, and others judged on, as are read."""


def moved(
    stage: str,
    before: HookedTransformer,
    after: HookedTransformer,
    held_out: Sequence[PromptRow],
    pairs: Sequence[AnswerPair],
    *,
    n: int,
    seed: int,
    on_standin: bool,
    dictionary: Dictionary | None,
) -> Row:
    """Returns what a stage moved: layers and, on the stand-in, the refusal direction with its
    ablation, each block put back, and a probe that was fitted before.

    Args:
        held_out: Prompts that nothing was trained on, on which layers are compared.
        pairs: Of known truth, whose features are compared where there is a dictionary.
        n: Prompts of each kind of the stand-in.
        on_standin: Whether the run is about the stand-in, which alone has known answers.
    """
    texts = [row["text"] for row in held_out]
    found: Row = {
        "stage": stage,
        "layers": [asdict(layer) for layer in movement(before, after, texts)],
        "direction": None,
        "swaps": None,
        "probe": None,
        "features": None,
    }
    if on_standin:
        requests = prompts("standin", n, seed=seed, split="test", templates="plain")
        misses = prompts("near_miss", n, seed=seed, split="test", templates="plain")
        found["direction"] = _direction(before, after, requests, misses)
        found["swaps"] = asdict(swap_blocks(before, after, requests))
        found["probe"] = _probe(before, after, PROBED * n, seed)
    if dictionary is not None:
        found["features"] = asdict(changed_features(after, dictionary, pairs))
    return found


def _direction(
    before: HookedTransformer,
    after: HookedTransformer,
    requests: Sequence[StandIn],
    misses: Sequence[StandIn],
) -> dict[str, Any]:
    layer = before.config.n_layers // 2
    one, other = (refusal_direction(model, requests, misses, layer) for model in (before, after))
    return {
        "layer": layer,
        "cosine": cosine(one, other),
        "before": asdict(ablate(before, one, requests)),
        "after": asdict(ablate(after, other, requests)),
    }


def _probe(
    before: HookedTransformer, after: HookedTransformer, n: int, seed: int
) -> dict[str, Any]:
    """A probe that tells requests from all else."""
    sets = []
    for split in ("train", "test"):
        rows = [row for kind in KINDS for row in prompts(kind, n, seed=seed, split=split)]
        examples = (Example(r.id, r.text, int(r.kind == "standin"), r.id) for r in rows)
        sets.append(Dataset(f"stand-in, {split}", tuple(examples)))
    found = staleness(before, after, *sets)
    return {**asdict(found), "is_stale": found.is_stale}
