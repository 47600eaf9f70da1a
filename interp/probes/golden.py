"""Golden scores: what a probe gave to fixed token sequences, run again where numerics changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch

from ... import _core
from ...model.transformer import HookedTransformer
from ..dictionaries import load_dictionary
from .origin import complain
from .reading import TokenIds, read, side_by_side
from .rows import TokenRows

LENGTHS = (3, 17, 40)
"""Scored tokens of the golden sequences."""


class Scored(Protocol):
    """The part of a probe that is needed."""

    hook_names: tuple[str, ...]
    skip_first: int
    metadata_: dict[str, Any]

    def decision_function(self, X: TokenRows) -> torch.Tensor:
        """Returns the score of each conversation, fp32 [B]."""


def golden_sequences(d_vocab: int, n_ctx: int, skip_first: int = 0) -> list[list[int]]:
    """Returns token ids spread over a vocabulary by a fixed rule: no text, so nothing that must
    not stand in a file."""
    lengths = [min(n_ctx, skip_first + n) for n in LENGTHS]
    return [[(7919 * (i + 1) * (s + 1)) % d_vocab for i in range(n)] for s, n in enumerate(lengths)]


def golden_scores(
    probe: Scored, model: HookedTransformer, sequences: Sequence[Sequence[int]]
) -> list[float]:
    """Returns the probe's score of each sequence; every float is an fp32 value."""
    name = probe.metadata_.get("dictionary")
    tokens = TokenIds(tuple(map(tuple, sequences)), max(map(len, sequences)))
    rows = read(
        model, tokens, probe.hook_names, dictionary=None if name is None else load_dictionary(name)
    )
    found: list[float] = probe.decision_function(
        side_by_side([rows[hook] for hook in probe.hook_names])
    ).tolist()
    return found


def with_golden_scores(probe: Scored, model: HookedTransformer) -> dict[str, Any]:
    """Returns the probe's metadata with its scores under the model's policy recorded, beside those
    of other policies that were recorded under the same numerics version."""
    config, golden = model.config, probe.metadata_.get("golden", {})
    if golden.get("numerics_version") != _core.numerics_version:
        golden = {
            "numerics_version": _core.numerics_version,
            "token_ids": golden_sequences(config.d_vocab, config.n_ctx, probe.skip_first),
            "scores": {},
        }
    scores = golden_scores(probe, model, golden["token_ids"])
    of_policies = {**golden["scores"], model.ops.policy.name: scores}
    return {**probe.metadata_, "golden": {**golden, "scores": of_policies}}


def check_numerics(probe: Scored, model: HookedTransformer, *, strict: bool = True) -> None:
    """Raises ProbeFileError where numerics changed since the probe was made and its scores moved,
    or cannot be compared; without `strict`, warns."""
    recorded = probe.metadata_.get("numerics_version", _core.numerics_version)
    if recorded == _core.numerics_version:
        return
    changed = f"the probe's scores are of numerics version {recorded}, not {_core.numerics_version}"
    policy, golden = model.ops.policy.name, probe.metadata_.get("golden")
    if golden is None or policy not in golden["scores"]:
        complain(
            f"{changed}, and the file has no golden scores under {policy} to compare: train it "
            "again",
            strict=strict,
        )
    elif moved := moved_scores(golden, probe, model):
        complain(
            f"{changed}, and {len(moved)} of {len(golden['token_ids'])} golden scores moved, by "
            f"{max(moved):.3g} at most: train it again",
            strict=strict,
        )


def moved_scores(golden: Mapping[str, Any], probe: Scored, model: HookedTransformer) -> list[float]:
    """Returns by how much each golden score that is another one now has moved."""
    if any(not 0 <= i < model.config.d_vocab for ids in golden["token_ids"] for i in ids):
        return [float("inf")]
    now = golden_scores(probe, model, golden["token_ids"])
    then = golden["scores"][model.ops.policy.name]
    return [abs(a - b) for a, b in zip(now, then, strict=True) if a != b]
