"""The findings of a comparison of features."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import torch

WORST = 100
"""Features and tokens that `to_dict` lists, those with the most flips first."""


@dataclass(frozen=True)
class FeatureFlip:
    """One feature of one token that is active in one run alone.

    Attributes:
        kind: "lost" is active in run a, "gained" in run b.
        sequence, position: Where the token stands in the text.
        context: The text up to the token, and with it.
        value: The activation in the run that has it.
        margin: How far run a's score alone would have to move.
        bound: How far it can have moved, from the distance of both runs.
    """

    kind: Literal["gained", "lost"]
    feature: int
    sequence: int
    position: int
    context: str
    value: float
    margin: float
    bound: float


@dataclass(frozen=True, eq=False)
class ByFeature:
    """Counts of each feature, int64 [F], and its smallest margin, fp64 [F].

    Attributes:
        active: Tokens where it is active in run a.
        gained, lost: Tokens where only run b has it, and only run a.
        margin: The smallest of its pairs; inf where it was in none.
    """

    active: torch.Tensor
    gained: torch.Tensor
    lost: torch.Tensor
    margin: torch.Tensor


@dataclass(frozen=True, eq=False)
class ByToken:
    """Counts of each token, int64 [T], and its smallest margin, fp64 [T].

    Attributes:
        sequence, position: Where it stands in the text.
        token: Its id.
        active: Features that are active in run a.
        gained, lost: Features that only run b has, and only run a.
        margin: The smallest of its pairs.
        certified: Pairs that cannot have flipped.
    """

    sequence: torch.Tensor
    position: torch.Tensor
    token: torch.Tensor
    active: torch.Tensor
    gained: torch.Tensor
    lost: torch.Tensor
    margin: torch.Tensor
    certified: torch.Tensor


@dataclass(frozen=True, eq=False)
class StabilityResult:
    """The features that are active in one run of a text and not in the other.

    A pair is a token with one of the features that are active in run a, or with one of the next k
    (as many as are active, where the architecture has no k). A certified pair cannot have flipped,
    by run a's scores, the distance of both runs' rows, and what the kernels' contracts permit.

    Attributes:
        active: Pairs that are active in run a.
        gained, lost: Features that are active in run b alone, and in run a alone, over all tokens.
        unpaired: Flips of features that were in no pair: further from being active than the next k.
        pairs: Pairs in all.
        certified: Certified pairs.
        wrong: Certified pairs that flipped: not 0 is a defect of this library.
        by_feature, by_token: The same by feature and by token.
        examples: Flips, widest margin first.
    """

    active: int
    gained: int
    lost: int
    unpaired: int
    pairs: int
    certified: int
    wrong: int
    by_feature: ByFeature
    by_token: ByToken
    examples: tuple[FeatureFlip, ...]

    @property
    def n_tokens(self) -> int:
        return len(self.by_token.token)

    @property
    def certified_share(self) -> float:
        """The part of the pairs that is certified."""
        return self.certified / self.pairs if self.pairs else 0.0

    @property
    def changed_share(self) -> float:
        """The part of the pairs (token, feature) active in either run that are active in one."""
        either = self.active + self.gained
        return (self.gained + self.lost) / either if either else 0.0

    @property
    def n_changed_tokens(self) -> int:
        """Tokens with a feature that differs."""
        return int((self.by_token.gained + self.by_token.lost > 0).sum())

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON-ready data: the figures, the worst features and tokens, and examples."""
        names = ("n_tokens", "active", "gained", "lost", "unpaired", "changed_share", "pairs")
        more = ("certified", "certified_share", "wrong", "n_changed_tokens")
        found = {name: getattr(self, name) for name in (*names, *more)}
        return {
            **found,
            "by_feature": _worst(self.by_feature, "feature"),
            "by_token": _worst(self.by_token, None),
            "examples": [dataclasses.asdict(flip) for flip in self.examples],
        }


def _worst(table: ByFeature | ByToken, index: str | None) -> list[dict[str, Any]]:
    """The rows with the most flips, as dicts."""
    flips = table.gained + table.lost
    order = torch.sort(flips, descending=True, stable=True).indices[:WORST]
    columns = {f.name: getattr(table, f.name) for f in dataclasses.fields(table)}
    rows = []
    for i in order.tolist():
        if not flips[i]:
            break
        row = {} if index is None else {index: i}
        rows.append(row | {name: column[i].item() for name, column in columns.items()})
    return rows
