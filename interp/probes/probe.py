"""The interface of probes: scores of tokens, their fold into a conversation's, a file.

Shapes: B conversations, S positions, N tokens of all conversations, D width, H heads.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch

from ...model.transformer import HookedTransformer
from ..dictionaries import Features, kernels
from .aggregate import Aggregate
from .fold import ScoreFold
from .golden import check_numerics, with_golden_scores
from .origin import check_origin, origin_of
from .probe_file import ProbeFileError, ProbeRecord, load_record, save_record
from .rows import TokenRows, token_rows
from .shipped import find_probe
from .stream import ScoreStream

Rows = torch.Tensor | Features | TokenRows
"""Activations [B, S, D] with a mask, or [B, D]; features of such a shape; or `TokenRows`."""


class NotFittedError(ValueError):
    """A probe was asked for scores before `fit` or `load`."""


class Probe(ABC):
    """A detector that reads one hook, or several side by side.

    Scores are fp32 with fixed bits: w.x + b is `linear` (sparse features: `weighted_sums`), and
    tokens are folded in their order, so that a score does not depend on the batch, on threads, or
    on whether its tokens came at once. docs/numerics.md, Probes.

    Attributes:
        hook_names: What it reads; rows of several hooks stand side by side in this order.
        aggregate: How tokens' scores become a conversation's.
        skip_first: Tokens at a conversation's start that get no score. The first one holds massive
            activations in most models (docs/dictionaries.md).
        classes_: (0, 1); the score grows with the evidence for 1.
        coef_: fp32 [H, D]; a linear probe has one head.
        intercept_: fp32 [1].
        threshold_: A conversation whose score exceeds it is flagged.
        report_: What `train` found out about it; an empty dict before.
        metadata_: Which model, data and versions it comes from, as JSON holds it.
    """

    kind: ClassVar[str]

    def __init_subclass__(cls) -> None:
        if "kind" in vars(cls):
            _KINDS[cls.kind] = cls

    def __init__(
        self, hook_name: str | Sequence[str], *, aggregate: str | Aggregate = "mean",
        skip_first: int = 0,
    ) -> None:  # fmt: skip
        """Raises ValueError for an aggregate that there is none of, and for no hook."""
        self.hook_names = (hook_name,) if isinstance(hook_name, str) else tuple(hook_name)
        if not self.hook_names or not all(self.hook_names):
            raise ValueError("a probe reads at least one hook")
        self.aggregate = Aggregate.parse(aggregate) if isinstance(aggregate, str) else aggregate
        if not isinstance(self.aggregate, Aggregate):
            raise ValueError(f"aggregate {aggregate!r}: expected a name such as 'mean'")
        if not isinstance(skip_first, int) or skip_first < 0:
            raise ValueError(f"skip_first = {skip_first!r}: expected a whole number, 0 or more")
        self.skip_first = skip_first
        self.classes_ = (0, 1)
        self.threshold_ = 0.0
        self.report_: dict[str, Any] = {}
        self.metadata_: dict[str, Any] = {}

    coef_: torch.Tensor
    intercept_: torch.Tensor

    @property
    def hook_name(self) -> str:
        """The hook of a probe that reads one. Raises ValueError for one that reads several."""
        if len(self.hook_names) > 1:
            raise ValueError(f"this probe reads {len(self.hook_names)} hooks: see hook_names")
        return self.hook_names[0]

    @abstractmethod
    def fit(
        self,
        X: Rows,
        y: Sequence[int] | torch.Tensor,
        *,
        mask: torch.Tensor | None = None,
        groups: Sequence[Any] | None = None,
    ) -> Self:
        """Fits it and returns it.

        Args:
            X: Activations [B, S, D], or [B, D]; features of such a shape, which stay sparse; or
                `TokenRows`.
            y: 0 or 1 for each conversation.
            mask: [B, S], real tokens.
            groups: What must not be split where something is chosen by cross-validation.

        Raises ValueError for NaN, conversations without tokens, labels that are not 0 or 1, or
        only one of them.
        """

    def decision_function(self, X: Rows, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Returns the score of each conversation, fp32 [B].

        Raises ValueError for NaN, another width, or a conversation without tokens to score.
        """
        tokens = self._tokens(X, mask)
        tokens.check_none_empty()
        return self._folded(tokens)[tokens.starts[1:] - 1]

    def running_scores(self, X: Rows, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Returns the conversation's score after each token, fp32 [B, S]; NaN where there is none.
        The last is `decision_function`'s."""
        tokens = self._tokens(X, mask)
        return tokens.on_grid(self._folded(tokens))

    def token_scores(self, X: Rows, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Returns w.x + b of each token by itself, fp32 [B, S]; NaN where there is none."""
        tokens = self._tokens(X, mask)
        return tokens.on_grid(self.own_scores(tokens))

    def predict_proba(self, X: Rows, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Returns the probabilities of the classes, fp64 [B, 2]."""
        p = torch.sigmoid(self.decision_function(X, mask).double())
        return torch.stack([1 - p, p], 1)

    def predict(self, X: Rows, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Returns 1 for each conversation whose score exceeds `threshold_`, int64 [B]."""
        return (self.decision_function(X, mask) > self.threshold_).long()

    def score(
        self, X: Rows, y: Sequence[int] | torch.Tensor, mask: torch.Tensor | None = None
    ) -> float:
        """Returns the share of conversations that `predict` gets right."""
        found = self.predict(X, mask)
        return float((found == labels(y, len(found))).double().mean())

    def stream(self, batch: int = 1) -> ScoreStream:
        """Returns an object that scores conversations as their tokens come."""
        self.check_fitted()
        return ScoreStream(self, batch)

    def belongs_to(self, model: HookedTransformer) -> None:
        """Notes in `metadata_` which model, policy and numerics it was fitted on, with golden
        scores: a file then knows its model again, and notices where its scores would move."""
        self.check_fitted()
        self.metadata_ |= origin_of(model)
        self.metadata_ = with_golden_scores(self, model)

    def save(self, path: str | Path, model: HookedTransformer | None = None) -> None:
        """Writes a folder with probe.json and probe.safetensors.

        Args:
            model: Where given, the one it was fitted on: `belongs_to` it from here on.

        Raises OSError where it cannot be written, and ValueError for an infinite threshold.
        """
        self.check_fitted()
        if model is not None:
            self.belongs_to(model)
        save_record(
            ProbeRecord(
                self.kind, self.hook_names, self.options(), self.tensors(), self.threshold_,
                self.metadata_, self.report_,
            ),
            Path(path),
        )  # fmt: skip

    @classmethod
    def load(
        cls, path: str | Path, model: HookedTransformer | None = None, strict: bool = True
    ) -> Self:
        """Returns the probe that a folder holds.

        Args:
            path: The folder, or the name of one that bitlens brings: "smollm2-135m-instruct/harm",
                "smollm2-135m-instruct/refusal".
            model: Where given, hooks, widths and the fingerprint must be this model's. If numerics
                changed since the probe was made, its golden scores are run again.
            strict: With False, another fingerprint and golden scores that moved only warn.

        Raises:
            FileNotFoundError: no such folder, or a file of it is missing.
            ProbeFileError: damaged files, another kind of probe, a probe of another model, or one
                whose scores are not what they were.
        """
        record = load_record(find_probe(path))
        probe = Probe._from_record(record, path)
        if not isinstance(probe, cls):
            raise ProbeFileError(f"{path} holds a {record.kind} probe, not a {cls.kind} one")
        if model is not None:
            width = probe.coef_.shape[1]
            check_origin(probe.hook_names, width, probe.metadata_, model, strict=strict)
            check_numerics(probe, model, strict=strict)
        return probe

    @staticmethod
    def _from_record(record: ProbeRecord, path: str | Path) -> Probe:
        kind = _KINDS.get(record.kind)
        if kind is None:
            known = ", ".join(sorted(_KINDS))
            raise ProbeFileError(f"{path}: kind {record.kind!r}: expected one of {known}")
        try:
            probe = kind(record.hook_names, **record.options)
            probe.set_tensors(record.tensors)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ProbeFileError(f"{path}: the probe is damaged: {str(error)[:500]}") from error
        probe.threshold_ = record.threshold
        probe.metadata_, probe.report_ = record.metadata, record.report
        return probe

    def tensors(self) -> dict[str, torch.Tensor]:
        """Returns what the file keeps, by name."""
        return {"coef": self.coef_, "intercept": self.intercept_}

    def options(self) -> dict[str, Any]:
        """Returns the arguments of the constructor besides the hooks, as JSON holds them."""
        return {"aggregate": str(self.aggregate), "skip_first": self.skip_first}

    def set_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Takes what `tensors` returned. Raises ValueError for shapes that do not fit."""
        coef, intercept = tensors["coef"], tensors["intercept"]
        if coef.ndim != 2 or not coef.numel() or intercept.shape != (1,):
            raise ValueError(f"coef {list(coef.shape)}, intercept {list(intercept.shape)}")
        self.coef_, self.intercept_ = coef.float().contiguous(), intercept.float()

    def check_fitted(self) -> None:
        """Raises NotFittedError for a probe without weights."""
        if not hasattr(self, "coef_"):
            raise NotFittedError(f"{type(self).__name__} is not fitted: call fit, or load one")

    def head_values(self, tokens: TokenRows) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Returns the values that are folded, fp32 [N, H], and attention logits, if it has some."""
        return dot_rows(tokens, self.coef_, self.intercept_), None

    def own_scores(self, tokens: TokenRows) -> torch.Tensor:
        """Returns w.x + b of each token, fp32 [N]."""
        return self.head_values(tokens)[0][:, 0]

    def new_fold(self, batch: int) -> ScoreFold:
        """Returns the fold of `batch` conversations."""
        return ScoreFold(self.aggregate, len(self.coef_), 0.0, batch)

    def _tokens(self, x: Rows, mask: torch.Tensor | None) -> TokenRows:
        self.check_fitted()
        tokens = token_rows(x, mask)
        if tokens.width != self.coef_.shape[1]:
            raise ValueError(
                f"rows of {tokens.width} values; this probe reads {', '.join(self.hook_names)} "
                f"with {self.coef_.shape[1]}"
            )
        return tokens.without_first(self.skip_first)

    def _folded(self, tokens: TokenRows) -> torch.Tensor:
        values, logits = self.head_values(tokens)
        return self.new_fold(tokens.n_conversations).push(values, tokens.starts, logits)


_KINDS: dict[str, type[Probe]] = {}
"""Every probe there is, by the name that its file says."""


def dot_rows(
    tokens: TokenRows, w_HD: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Returns the products of rows with H directions plus bias [1], fp32 [N, H]."""
    bias_H = None if bias is None else bias.expand(len(w_HD)).contiguous()
    if not isinstance(tokens.rows, Features):
        return kernels.dense(tokens.rows, w_HD, bias_H)
    rows = tokens.rows
    return kernels.weighted_sums(rows.values, rows.indices, rows.indptr, w_HD.T, bias_H)


def labels(y: Sequence[int] | torch.Tensor, n: int) -> torch.Tensor:
    """Returns labels as int64 [n]. Raises ValueError for another number of them, or others than 0
    and 1."""
    found = torch.as_tensor(y)
    if found.shape != (n,):
        raise ValueError(f"{list(found.shape)} labels for {n} conversations")
    if not bool(((found == 0) | (found == 1)).all()):
        raise ValueError("labels: expected 0 and 1 only")
    return found.long()


def two_classes(y: Sequence[int] | torch.Tensor, n: int) -> torch.Tensor:
    """Returns labels as `labels` does. Raises ValueError, too, where only one class is there."""
    found = labels(y, n)
    if n == 0 or bool((found == found[0]).all()):
        which = f"all {n} are {int(found[0])}" if n else "there are none"
        raise ValueError(f"labels: a probe needs examples of both classes; {which}")
    return found


def finite_weights(*weights: torch.Tensor) -> None:
    """Raises ValueError for weights that are no finite numbers."""
    if not all(math.isfinite(float(w.abs().sum())) for w in weights):
        raise ValueError("the fit did not end in finite weights: scale the activations down")
