"""A probe that attends: each head weighs the tokens of a conversation by a direction of its own.

With the aggregate "softmax" it is the attention probe, with "max" the MultiMax probe, each head's
largest value (Kramar et al., 2026, arXiv 2601.11516).

Shapes: B conversations, N tokens of all conversations, D width, H heads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch

from ..dictionaries import Features
from .aggregate import Aggregate
from .fold import ScoreFold
from .probe import Probe, Rows, dot_rows, finite_weights, two_classes
from .rows import TokenRows, token_rows

_LARGEST_STEPS = 1000


class AttentionProbe(Probe):
    """Fitted by LBFGS on all conversations at once, on columns divided by their standard deviation.

    Attributes:
        n_heads: H.
        penalty: Of the sum of squared weights, beside the mean loss of a conversation.
        max_iter: Steps of LBFGS.
        seed: Of the small weights that it begins with.
        query_: fp32 [H, D], whose products with a row are the attention logits; not of "max".
    """

    kind = "attention"
    query_: torch.Tensor

    def __init__(
        self,
        hook_name: str | Sequence[str],
        *,
        aggregate: str | Aggregate = "softmax",
        skip_first: int = 0,
        n_heads: int = 4,
        penalty: float = 1e-2,
        max_iter: int = 50,
        seed: int = 0,
    ) -> None:
        """Raises ValueError for another aggregate than "softmax" and "max", and for options out of
        range."""
        super().__init__(hook_name, aggregate=aggregate, skip_first=skip_first)
        if self.aggregate.kind not in ("softmax", "max"):
            raise ValueError(f"AttentionProbe: aggregate {aggregate}: expected softmax or max")
        if not all(isinstance(n, int) for n in (n_heads, max_iter, seed)):
            raise ValueError("AttentionProbe: n_heads, max_iter and seed are whole numbers")
        if n_heads < 1 or not 0 <= penalty < math.inf or not 1 <= max_iter <= _LARGEST_STEPS:
            raise ValueError(
                f"AttentionProbe: n_heads = {n_heads}, penalty = {penalty}, max_iter = {max_iter}"
            )
        self.n_heads, self.penalty, self.max_iter, self.seed = n_heads, penalty, max_iter, seed

    def options(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        own = {name: getattr(self, name) for name in ("n_heads", "penalty", "max_iter", "seed")}
        return {**super().options(), **own}

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
        target = two_classes(y, tokens.n_conversations).float()
        tokens.check_none_empty()
        centre, scale = _spread(tokens)
        coef, query, intercept = self._optimised(tokens, centre, scale, target)
        finite_weights(coef, query, intercept)
        # Attention logits may lose a constant, and a head's result moves as its values do.
        self.coef_ = (coef / scale).contiguous()
        self.query_ = (query / scale).contiguous()
        self.intercept_ = intercept - (self.coef_.double() @ centre.double()).sum().float()
        return self

    def tensors(self) -> dict[str, torch.Tensor]:
        """Returns what the file keeps, by name."""
        return {**super().tensors(), "query": self.query_}

    def set_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Takes what `tensors` returned. Raises ValueError for shapes that do not fit."""
        super().set_tensors(tensors)
        query = tensors["query"]
        if query.shape != self.coef_.shape or len(query) != self.n_heads:
            raise ValueError(f"query {list(query.shape)}, coef {list(self.coef_.shape)}")
        self.query_ = query.float().contiguous()

    def head_values(self, tokens: TokenRows) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Returns the heads' values of rows, and their attention logits, fp32 [N, H]."""
        values = dot_rows(tokens, self.coef_)
        return values, dot_rows(tokens, self.query_) if self._attends else None

    def own_scores(self, tokens: TokenRows) -> torch.Tensor:
        """Returns the score of a conversation that were this token alone, fp32 [N]."""
        values, logits = self.head_values(tokens)
        return self.new_fold(len(values)).push(
            values, torch.arange(len(values) + 1, device="cpu"), logits
        )

    def new_fold(self, batch: int) -> ScoreFold:
        """Returns the fold of `batch` conversations."""
        return ScoreFold(self.aggregate, self.n_heads, float(self.intercept_), batch)

    @property
    def _attends(self) -> bool:
        return self.aggregate.kind == "softmax"

    def _optimised(
        self, tokens: TokenRows, centre: torch.Tensor, scale: torch.Tensor, y: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        product = _standardised(tokens, centre, scale)
        owner = torch.repeat_interleave(
            torch.arange(tokens.n_conversations, device="cpu"), tokens.starts.diff()
        )
        generator = torch.Generator().manual_seed(self.seed)
        shape = (self.n_heads, tokens.width)
        coef, query = (
            (
                1e-2 * torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
            ).requires_grad_()
            for _ in range(2)
        )
        share = float(y.mean())
        intercept = torch.tensor(
            [math.log(share / (1 - share))], dtype=torch.float32, device="cpu", requires_grad=True
        )
        weights = [coef, query, intercept] if self._attends else [coef, intercept]
        optimizer = torch.optim.LBFGS(
            weights, max_iter=self.max_iter, line_search_fn="strong_wolfe", history_size=20
        )

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            values = product(coef)
            heads = (
                _attended(values, product(query), owner, len(y))
                if self._attends
                else _largest(values, owner, len(y))
            )
            scores = heads.sum(1) + intercept
            loss = torch.nn.functional.binary_cross_entropy_with_logits(scores, y)
            loss = loss + self.penalty * (coef.square().sum() + query.square().sum())
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        with torch.enable_grad():
            optimizer.step(closure)  # type: ignore[no-untyped-call]
        return coef.detach(), query.detach(), intercept.detach()


def _spread(tokens: TokenRows) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of the columns, fp32 [D]; the mean is 0 for sparse features,
    which must stay so, and the deviation 1 where a column is constant."""
    rows, n = tokens.rows, len(tokens.columns)
    if isinstance(rows, Features):
        at, squares = rows.indices.long(), rows.values.double().square()
        deviation = (
            torch.zeros(tokens.width, dtype=torch.float64, device="cpu").index_add_(0, at, squares)
            / n
        )
        centre = torch.zeros(tokens.width, dtype=torch.float32, device="cpu")
    else:
        centre = rows.double().mean(0).float()
        deviation = (rows.double() - centre.double()).square().mean(0)
    deviation = deviation.sqrt().float()
    return centre, torch.where(deviation > 0, deviation, 1.0)


def _standardised(tokens: TokenRows, centre: torch.Tensor, scale: torch.Tensor) -> Any:
    """Returns what multiplies standardised rows with directions [H, D], -> [N, H]."""
    rows = tokens.rows
    if not isinstance(rows, Features):
        standard = (rows - centre) / scale
        return lambda w: standard @ w.T
    at = rows.indices.long()
    entries = torch.stack([rows.rows(), at])
    sparse = torch.sparse_coo_tensor(
        entries, rows.values / scale[at], (rows.n_rows, tokens.width), check_invariants=True
    ).coalesce()
    return lambda w: torch.sparse.mm(sparse, w.T)


def _attended(
    values: torch.Tensor, logits: torch.Tensor, owner: torch.Tensor, n: int
) -> torch.Tensor:
    index = owner[:, None].expand_as(logits)
    largest = torch.full(
        (n, logits.shape[1]), -math.inf, dtype=torch.float32, device="cpu"
    ).scatter_reduce(0, index, logits.detach(), "amax")
    p = torch.exp(logits - largest[owner])
    zeros = torch.zeros(n, logits.shape[1], dtype=torch.float32, device="cpu")
    return zeros.index_add(0, owner, p * values) / zeros.index_add(0, owner, p)


def _largest(values: torch.Tensor, owner: torch.Tensor, n: int) -> torch.Tensor:
    index = owner[:, None].expand_as(values)
    start = torch.full((n, values.shape[1]), -math.inf, dtype=torch.float32, device="cpu")
    return start.scatter_reduce(0, index, values, "amax")
