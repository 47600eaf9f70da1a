"""Counts flips, and what is certain, over the rows of two runs.

Shapes: N rows, F features, P pairs of a row, d width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch

from ..dictionaries import Dictionary, Features
from .certificate import CertifiedPairs, certify
from .limits import limit_of
from .movement import Movement
from .result import ByFeature, ByToken, FeatureFlip, StabilityResult

_ROWS = 256
_EXAMPLES = 20

Context = Callable[[int, int], str]
"""Returns the text up to a position of a sequence, and with it."""


@dataclass(frozen=True, eq=False)
class Places:
    """The origin of rows: int64 [N] each."""

    sequence: torch.Tensor
    position: torch.Tensor
    token: torch.Tensor

    def part(self, rows: slice) -> Places:
        return Places(self.sequence[rows], self.position[rows], self.token[rows])


class Tally:
    """Collects rows of both runs, however many there are."""

    def __init__(self, dictionary: Dictionary, context: Context) -> None:
        self._dictionary = dictionary
        self._context = context
        self._movement = Movement(dictionary)
        self._limit = limit_of(dictionary)
        n = dictionary.cfg.d_sae
        active, gained, lost = torch.zeros(3, n, dtype=torch.int64, device="cpu")
        margin = torch.full((n,), torch.inf, dtype=torch.float64, device="cpu")
        self._by_feature = ByFeature(active, gained, lost, margin)
        self._by_token: list[ByToken] = []
        self._pairs = self._certified = self._wrong = self._unpaired = 0
        self._examples: list[FeatureFlip] = []

    def add(self, x_a: torch.Tensor, x_b: torch.Tensor, places: Places) -> None:
        """Counts rows fp32 [N, d] of both runs at the same places.

        Raises ValueError for rows that are not finite or of another width.
        """
        for name, x in (("a", x_a), ("b", x_b)):
            if x.shape != (len(places.token), self._dictionary.cfg.d_in):
                raise ValueError(f"run {name}: rows {list(x.shape)} do not fit the dictionary")
            if not bool(x.isfinite().all()):
                raise ValueError(f"run {name}: the activations are not finite")
        for start in range(0, len(x_a), _ROWS):
            rows = slice(start, start + _ROWS)
            self._add(x_a[rows].float(), x_b[rows].float(), places.part(rows))

    def result(self) -> StabilityResult:
        """Returns everything counted. Raises ValueError if nothing was."""
        if not self._by_token:
            raise ValueError("no rows were compared")
        columns = [f.name for f in fields(ByToken)]
        tables = {c: torch.cat([getattr(part, c) for part in self._by_token]) for c in columns}
        found = self._by_feature
        return StabilityResult(
            active=int(found.active.sum()),
            gained=int(found.gained.sum()),
            lost=int(found.lost.sum()),
            unpaired=self._unpaired,
            pairs=self._pairs,
            certified=self._certified,
            wrong=self._wrong,
            by_feature=found,
            by_token=ByToken(**tables),
            examples=tuple(self._examples),
        )

    def _add(self, x_a: torch.Tensor, x_b: torch.Tensor, places: Places) -> None:
        encoder, shape = self._dictionary.encoder, (len(x_a), self._dictionary.cfg.d_sae)
        scores = encoder.scores(x_a)
        in_a = encoder.select(scores, shape)
        in_b = encoder.select(encoder.scores(x_b), shape)
        active_a, active_b = _mask(in_a), _mask(in_b)
        gained, lost = active_b & ~active_a, active_a & ~active_b
        bound = self._movement(x_a, x_b)
        pairs = certify(scores, active_a, bound, self._limit)
        flipped = (gained | lost).gather(1, pairs.features) & pairs.kept
        self._pairs += int(pairs.kept.sum())
        self._certified += int(pairs.certified.sum())
        self._wrong += int((pairs.certified & flipped).sum())
        self._unpaired += int((gained | lost).sum()) - int(flipped.sum())
        self._count(active_a, gained, lost, pairs, places)
        for mask, features, kind in ((lost, in_a, "lost"), (gained, in_b, "gained")):
            self._keep_examples(kind, mask, features, pairs.margins, bound, places)

    def _count(
        self,
        active: torch.Tensor,
        gained: torch.Tensor,
        lost: torch.Tensor,
        pairs: CertifiedPairs,
        places: Places,
    ) -> None:
        found = self._by_feature
        for total, mask in ((found.active, active), (found.gained, gained), (found.lost, lost)):
            total += mask.sum(0)
        margin = pairs.margins.gather(1, pairs.features)
        found.margin.scatter_reduce_(0, pairs.features[pairs.kept], margin[pairs.kept], "amin")
        self._by_token.append(
            ByToken(
                places.sequence,
                places.position,
                places.token,
                active.sum(1),
                gained.sum(1),
                lost.sum(1),
                pairs.smallest_margin(),
                pairs.certified.sum(1),
            )
        )

    def _keep_examples(
        self,
        kind: str,
        flipped: torch.Tensor,
        features: Features,
        margins: torch.Tensor,
        bound: torch.Tensor,
        places: Places,
    ) -> None:
        """Keeps those with the widest margins of all so far."""
        where = flipped.nonzero()
        widest = margins[flipped].topk(min(_EXAMPLES, len(where))).indices
        values = features.dense()
        for row, feature in where[widest].tolist():
            margin = float(margins[row, feature])
            if len(self._examples) == _EXAMPLES and margin <= self._examples[-1].margin:
                continue
            sequence, position = int(places.sequence[row]), int(places.position[row])
            self._examples.append(
                FeatureFlip(
                    kind="lost" if kind == "lost" else "gained",
                    feature=feature,
                    sequence=sequence,
                    position=position,
                    context=self._context(sequence, position),
                    value=float(values[row, feature]),
                    margin=margin,
                    bound=float(bound[row, feature]),
                )
            )
            self._examples.sort(key=lambda flip: -flip.margin)
            del self._examples[_EXAMPLES:]


def _mask(features: Features) -> torch.Tensor:
    """Where features are active, bool [N, F]."""
    mask = torch.zeros(features.n_rows, features.shape[-1], dtype=torch.bool, device="cpu")
    mask[features.rows(), features.indices.long()] = True
    return mask
