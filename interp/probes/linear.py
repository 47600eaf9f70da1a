"""Probes that are one direction: logistic regression, difference of means, mass mean.

Directions are fitted on the mean of a conversation's rows. Every aggregate but the mean is then
calibrated: a scale above 0 and an offset are folded into the weights, which moves no ranking, since
these aggregates of a * z + b are a times that of z, plus b.

Shapes: B conversations, D width.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch

from .aggregate import Aggregate
from .extra import scikit_learn
from .probe import Probe, Rows, finite_weights, two_classes
from .rows import TokenRows, token_rows
from .selection import best_of

Array = npt.NDArray[np.float64]

SHRINKAGE = 1e-3
"""What mass means add to the covariance's diagonal, in shares of its mean."""


class Direction(NamedTuple):
    """A linear score of rows: w [D] and b. `calibrated`: a log-odds already."""

    w: Array
    b: float
    calibrated: bool


class LinearProbe(Probe):
    """A probe of one direction; subclasses say which."""

    def __init__(
        self, hook_name: str | Sequence[str], *, aggregate: str | Aggregate = "mean",
        skip_first: int = 0,
    ) -> None:  # fmt: skip
        """As `Probe`. Raises ValueError for the aggregate "softmax", which needs attention."""
        super().__init__(hook_name, aggregate=aggregate, skip_first=skip_first)
        if self.aggregate.kind == "softmax":
            raise ValueError('aggregate "softmax" weighs tokens by attention: use AttentionProbe')

    def set_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Takes what `tensors` returned. Raises ValueError for more than one direction."""
        super().set_tensors(tensors)
        if len(self.coef_) != 1:
            raise ValueError(f"coef {list(self.coef_.shape)}: expected one direction")

    @abstractmethod
    def direction(self, means: Any, y: Array, groups: Sequence[Any] | None) -> Direction:
        """Returns the direction for mean rows, fp64 [B, D] or CSR, and labels."""

    def fit(
        self,
        X: Rows,
        y: Sequence[int] | torch.Tensor,
        *,
        mask: torch.Tensor | None = None,
        groups: Sequence[Any] | None = None,
    ) -> Self:
        """Fits it; `Probe.fit` says on what."""
        tokens = token_rows(X, mask).without_first(self.skip_first)
        target = two_classes(y, tokens.n_conversations)
        self.fit_means(tokens.means(), target, tokens=tokens, groups=groups)
        return self

    def fit_means(
        self,
        means: torch.Tensor | Any,
        y: torch.Tensor,
        *,
        tokens: TokenRows | None = None,
        groups: Sequence[Any] | None = None,
    ) -> None:
        """Fits on the mean rows of conversations, fp64 [B, D] or CSR, as `TokenRows.means` makes
        them; `tokens`, needed for other aggregates than the mean, are the rows they are of."""
        rows = means.numpy() if isinstance(means, torch.Tensor) else means
        target = y.double().numpy()
        found = self.direction(rows, target, groups)
        self._set(found.w, found.b)
        if found.calibrated and self.aggregate.kind == "mean":
            return
        if self.aggregate.kind == "mean":
            scores = rows @ found.w + found.b
        else:
            if tokens is None:
                raise ValueError(f"aggregate {self.aggregate}: its fit needs the tokens' rows")
            scores = self._folded(tokens).double()[tokens.starts[1:] - 1].numpy()
        scale, offset = log_odds(scores, target)
        self._set(scale * found.w, scale * found.b + offset)

    def _set(self, w: Array, b: float) -> None:
        coef = torch.from_numpy(np.asarray(w, dtype=np.float32)).reshape(1, -1)
        intercept = torch.tensor([b], dtype=torch.float32, device="cpu")
        finite_weights(coef, intercept)
        self.coef_, self.intercept_ = coef, intercept


class LogisticProbe(LinearProbe):
    """Logistic regression by LBFGS, on columns divided by their standard deviation.

    Attributes:
        C: The inverse strength of the L2 penalty; of several, cross-validation takes that of the
            best AUROC, without splitting `groups`.
    """

    kind = "logistic"

    def __init__(
        self,
        hook_name: str | Sequence[str],
        *,
        aggregate: str | Aggregate = "mean",
        skip_first: int = 0,
        C: float | Sequence[float] = 1e-2,
    ) -> None:
        """Raises ValueError for a C that is not above 0, and as `Probe` does."""
        super().__init__(hook_name, aggregate=aggregate, skip_first=skip_first)
        self.C = (float(C),) if isinstance(C, int | float) else tuple(map(float, C))
        if not self.C or not all(0 < c < float("inf") for c in self.C):
            raise ValueError(f"C = {C}: expected positive numbers")

    def options(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().options(), "C": list(self.C)}

    def direction(self, means: Any, y: Array, groups: Sequence[Any] | None) -> Direction:
        """Returns the log-odds' direction."""
        c = self.C[0]
        if len(self.C) > 1:
            c = best_of(self.C, lambda c: _logistic_scores(means, y, c), y, groups)
        return _logistic(means, y, c)


class MeanDifferenceProbe(LinearProbe):
    """The difference of the classes' means; the score is 0 half-way between them, times a scale
    that makes it a log-odds."""

    kind = "mean_difference"

    def direction(self, means: Any, y: Array, groups: Sequence[Any] | None) -> Direction:
        """Returns the difference of means."""
        return _midway(_class_means(means, y), None)


class MassMeanProbe(LinearProbe):
    """The difference of means times the inverse of the covariance within classes (Marks and
    Tegmark, 2023), which is Fisher's discriminant; the covariance is shrunk by 0.1% of its mean
    variance. Dense activations only."""

    kind = "mass_mean"

    def direction(self, means: Any, y: Array, groups: Sequence[Any] | None) -> Direction:
        """Returns the whitened difference of means. Raises ValueError for sparse features."""
        if not isinstance(means, np.ndarray):
            raise ValueError(
                "mass_mean whitens with a dense covariance: use LogisticProbe on features"
            )
        return _midway(_class_means(means, y), _covariance(means, y))


def log_odds(scores: Array, y: Array) -> tuple[float, float]:
    """Returns scale and offset of the log-odds that scores stand for (Platt, 1999), the scale at
    least a millionth: a calibration turns no ranking round."""
    spread = float(scores.std())
    if spread == 0:
        return 1e-6, float(np.log(y.mean() / (1 - y.mean())))
    linear = scikit_learn("linear_model")
    z = (scores - scores.mean()) / spread
    fit = linear.LogisticRegression(C=1e3).fit(z[:, None], y)
    scale = max(float(fit.coef_[0, 0]), 1e-6)
    return scale / spread, float(fit.intercept_[0]) - scale * float(scores.mean()) / spread


def _logistic(means: Any, y: Array, c: float) -> Direction:
    linear, preprocessing = scikit_learn("linear_model"), scikit_learn("preprocessing")
    dense = isinstance(means, np.ndarray)
    scaler = preprocessing.StandardScaler(with_mean=dense).fit(means)
    fit = linear.LogisticRegression(C=c, max_iter=2000, tol=1e-6).fit(scaler.transform(means), y)
    w = fit.coef_[0] / scaler.scale_
    b = float(fit.intercept_[0])
    return Direction(w, b - float(w @ scaler.mean_) if dense else b, True)


def _logistic_scores(means: Any, y: Array, c: float) -> Any:
    def scores(train: Any, test: Any) -> Array:
        found = _logistic(means[train], y[train], c)
        return np.asarray(means[test] @ found.w + found.b)

    return scores


def _class_means(means: Any, y: Array) -> tuple[Array, Array]:
    of_0, of_1 = (np.asarray(means[y == k].mean(axis=0)).ravel() for k in (0, 1))
    return of_0, of_1


def _covariance(means: Array, y: Array) -> Array:
    of_0, of_1 = _class_means(means, y)
    centred = means - np.where(y[:, None] == 1, of_1, of_0)
    found: Array = centred.T @ centred / max(1, len(y) - 2)
    return found + np.eye(len(found)) * SHRINKAGE * max(float(np.trace(found)) / len(found), 1e-12)


def _midway(of_classes: tuple[Array, Array], covariance: Array | None) -> Direction:
    of_0, of_1 = of_classes
    w = of_1 - of_0
    if covariance is not None:
        w = np.asarray(np.linalg.solve(covariance, w), dtype=np.float64)
    return Direction(w, -float(w @ (of_0 + of_1)) / 2, False)
