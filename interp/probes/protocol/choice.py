"""Chooses hook, penalty and aggregate by cross-validation inside a training split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ....model.transformer import HookedTransformer
from ...dictionaries import load_dictionary
from ..aggregate import Aggregate
from ..attention import AttentionProbe
from ..figures import auroc
from ..fold import ScoreFold
from ..linear import (
    LinearProbe,
    LogisticProbe,
    MassMeanProbe,
    MeanDifferenceProbe,
    log_odds,
)
from ..probe import Probe
from ..reading import MAX_TOKENS, side_by_side
from ..rows import TokenRows
from ..selection import N_FOLDS, best_of, grouped_folds

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Hooks = tuple[str, ...]

LINEAR: dict[str, type[LinearProbe]] = {
    probe.kind: probe for probe in (LogisticProbe, MeanDifferenceProbe, MassMeanProbe)
}
KINDS = (*LINEAR, AttentionProbe.kind, "multi_max")


AGGREGATES = ("mean", "max", "rolling:16", "ema:0.1")
STRENGTHS = (1e-4, 1e-3, 1e-2)


@dataclass(frozen=True)
class ProbeConfig:
    """The options of a training, fixed before it looks at anything.

    Attributes:
        hook_names: Candidates; each is one hook, or several whose rows stand side by side.
        kind: "logistic", "mean_difference", "mass_mean", "attention" or "multi_max".
        aggregates: Candidates, for linear probes.
        strengths: Candidates for C, the inverse penalty, for "logistic".
        max_tokens: Tokens that are read of a conversation.
        skip_first: Tokens at its start that get no score.
        n_folds: Outer folds; inner ones are 5.
        seed: Of the folds.
        dictionary: Features of this dictionary are read in place of activations.
    """

    hook_names: tuple[Hooks, ...]
    kind: str = "logistic"
    aggregates: tuple[str, ...] = AGGREGATES
    strengths: tuple[float, ...] = STRENGTHS
    max_tokens: int = MAX_TOKENS
    skip_first: int = 1
    n_folds: int = N_FOLDS
    seed: int = 0
    dictionary: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind {self.kind!r}: expected one of {', '.join(KINDS)}")
        if not self.hook_names or not self.aggregates or not self.strengths:
            raise ValueError("hook_names, aggregates and strengths need a candidate each")
        if self.n_folds < 2:
            raise ValueError(f"n_folds = {self.n_folds}: expected at least 2")

    @property
    def hooks_read(self) -> tuple[str, ...]:
        """Every hook that a candidate reads, once."""
        return tuple(dict.fromkeys(name for hooks in self.hook_names for name in hooks))


@dataclass(frozen=True)
class Choice:
    """The choice of cross-validation."""

    hook_names: Hooks
    C: float
    aggregate: str

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as JSON holds them."""
        return {**asdict(self), "hook_names": list(self.hook_names)}


def default_hooks(model: HookedTransformer, dictionary: str | None = None) -> tuple[Hooks, ...]:
    """Returns the candidates where none are given: the residual stream after five blocks from 0.3
    to 0.7 of the depth, each alone and all side by side; or the hook of a dictionary."""
    if dictionary is not None:
        return ((load_dictionary(dictionary).cfg.hook_name,),)
    n = model.config.n_layers
    layers = dict.fromkeys(min(n - 1, round(share * n)) for share in (0.3, 0.4, 0.5, 0.6, 0.7))
    names = tuple(f"blocks.{layer}.hook_resid_post" for layer in layers)
    return (*((name,) for name in names), *((names,) if len(names) > 1 else ()))


class Material:
    """The rows of a data set at every hook that is read, and what is made of them once.

    Attributes:
        y: Labels, fp64 [B].
        groups: What folds do not split.
    """

    def __init__(
        self, config: ProbeConfig, rows: Mapping[str, TokenRows], y: Array, groups: Sequence[Any]
    ) -> None:
        self.y, self.groups = y, list(groups)
        self._rows = rows
        self._means = {
            name: each.without_first(config.skip_first).means() for name, each in rows.items()
        }

    def rows(self, hooks: Hooks) -> TokenRows:
        """Returns the tokens' rows of some hooks, side by side."""
        return side_by_side([self._rows[name] for name in hooks])

    def means(self, hooks: Hooks) -> Any:
        """Returns the mean rows of conversations, fp64 [B, D] or CSR."""
        found = [self._means[name] for name in hooks]
        if len(found) == 1:
            return found[0].numpy() if isinstance(found[0], torch.Tensor) else found[0]
        return torch.cat(found, 1).numpy()


def choose(config: ProbeConfig, material: Material, train: Indices) -> Choice:
    """Returns the hook and C of the best out-of-fold AUROC of mean rows within `train`, then the
    aggregate of the best one there. Candidates that stand alone are not judged."""
    y, groups = material.y[train], [material.groups[int(i)] for i in train]
    strengths = config.strengths if config.kind == "logistic" else config.strengths[:1]
    pairs = [(hooks, c) for hooks in config.hook_names for c in strengths]
    if config.kind not in LINEAR:
        # Fitted once a candidate, attention would take hours: the logistic probe chooses its hook.
        pairs = [(hooks, c) for hooks in config.hook_names for c in config.strengths]
    hooks, c = pairs[0]
    if len(pairs) > 1:
        hooks, c = best_of(
            pairs, lambda pair: _mean_scores(config, material, train, *pair), y, groups
        )
    if config.kind not in LINEAR:
        return Choice(hooks, c, "max" if config.kind == "multi_max" else "softmax")
    aggregate = config.aggregates[0]
    if len(config.aggregates) > 1:
        aggregate = _best_aggregate(config, material, train, hooks, c)
    return Choice(hooks, c, aggregate)


def new_probe(config: ProbeConfig, choice: Choice) -> Probe:
    """Returns the probe that a choice describes, not fitted."""
    shared: dict[str, Any] = {"aggregate": choice.aggregate, "skip_first": config.skip_first}
    if config.kind == "logistic":
        return LogisticProbe(choice.hook_names, C=choice.C, **shared)
    if config.kind in LINEAR:
        return LINEAR[config.kind](choice.hook_names, **shared)
    return AttentionProbe(choice.hook_names, **shared)


def fit(config: ProbeConfig, choice: Choice, material: Material, train: Indices) -> Probe:
    """Returns the chosen probe, fitted on some conversations."""
    probe = new_probe(config, choice)
    rows = material.rows(choice.hook_names).take(torch.from_numpy(train))
    return probe.fit(rows, torch.from_numpy(material.y[train]))


def _mean_scores(
    config: ProbeConfig, material: Material, train: Indices, hooks: Hooks, c: float
) -> Any:
    means, y = material.means(hooks)[train], material.y[train]

    def scores(a: Indices, b: Indices) -> Array:
        probe = _fitted_on_means(config, hooks, c, means[a], y[a])
        w, bias = probe.coef_[0].double().numpy(), float(probe.intercept_)
        return np.asarray(means[b] @ w + bias)

    return scores


def _best_aggregate(
    config: ProbeConfig, material: Material, train: Indices, hooks: Hooks, c: float
) -> str:
    """The aggregates of one direction a fold, each calibrated on what the direction was fitted on,
    as `LinearProbe.fit` does."""
    y, groups = material.y[train], [material.groups[int(i)] for i in train]
    means = material.means(hooks)[train]
    tokens = material.rows(hooks).take(torch.from_numpy(train)).without_first(config.skip_first)
    last = tokens.starts[1:] - 1
    found = {name: np.empty(len(y)) for name in config.aggregates}
    for a, b in grouped_folds(y, groups):
        values, _ = _fitted_on_means(config, hooks, c, means[a], y[a]).head_values(tokens)
        for name, out_of_fold in found.items():
            fold = ScoreFold(Aggregate.parse(name), 1, 0.0, len(y))
            scores = fold.push(values, tokens.starts)[last].double().numpy()
            scale, offset = log_odds(scores[a], y[a])
            out_of_fold[b] = scale * scores[b] + offset
    return max(config.aggregates, key=lambda name: auroc(found[name], y))


def _fitted_on_means(
    config: ProbeConfig, hooks: Hooks, c: float, means: Any, y: Array
) -> LinearProbe:
    kind = config.kind if config.kind in LINEAR else "logistic"
    one = ProbeConfig((hooks,), kind, skip_first=config.skip_first)
    probe = new_probe(one, Choice(hooks, c, "mean"))
    assert isinstance(probe, LinearProbe)
    given = torch.from_numpy(means) if isinstance(means, np.ndarray) else means
    probe.fit_means(given, torch.from_numpy(y))
    return probe
