"""Bounds on the movement of the margin between two tokens.

Tensor names: T positions, d d_model, V vocabulary, N some of it; a and b the runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .formats import FORMATS, FP32, FP64
from .head import Heads, cast_error, contract_growth, evaluation_growth

_UPWARDS = 1 + 2.0**-20  # more than the fp64 and fp32 arithmetic on bounds rounds away


@dataclass(frozen=True)
class Box:
    """Run b's hidden state is within `radius` of `middle` (None: at it), all fp64."""

    heads: Heads
    hidden_a_Td: torch.Tensor
    middle_Td: torch.Tensor
    radius_Td: torch.Tensor | None
    premises: tuple[str, ...]

    def rows(self, rows: slice) -> Box:
        radius_Td = None if self.radius_Td is None else self.radius_Td[rows]
        hidden_a_Td, middle_Td = self.hidden_a_Td[rows], self.middle_Td[rows]
        return Box(self.heads, hidden_a_Td, middle_Td, radius_Td, self.premises)


@dataclass(frozen=True)
class LogitMovement:
    """Bounds on the movement of each logit from run a to run b, fp64 [T, V].

    Attributes:
        shift_TV: By how much it moves at the middle of the box.
        error_TV: Rounding in both products, and in the evaluation of all this.
        spread_TV: How far the box can take it from there; None without a box.
    """

    box: Box
    logits_TV: torch.Tensor
    shift_TV: torch.Tensor
    error_TV: torch.Tensor
    spread_TV: torch.Tensor | None

    def certified(self, token_T1: torch.Tensor) -> torch.Tensor:
        """Returns where z_1 - z_j > |s_1 - s_j| + r_1 + r_j for all other j, as two comparisons."""
        own_TV = self.error_TV if self.spread_TV is None else self.error_TV + self.spread_TV
        least_T1 = self.logits_TV.gather(1, token_T1) - own_TV.gather(1, token_T1)
        most_TV = self.logits_TV + own_TV
        most_TV.scatter_(1, token_T1, -torch.inf)
        shift_T1 = self.shift_TV.gather(1, token_T1)
        holds_T = (most_TV + self.shift_TV).amax(1, keepdim=True) < least_T1 + shift_T1
        holds_T &= most_TV.sub_(self.shift_TV).amax(1, keepdim=True) < least_T1 - shift_T1
        if self.spread_TV is not None:
            for t in (~holds_T).nonzero()[:, 0].tolist():
                holds_T[t] = self._holds_over_the_box(t, int(token_T1[t]))
        return holds_T[:, 0]

    def bound(self, token_T1: torch.Tensor, other_T1: torch.Tensor) -> torch.Tensor:
        """|s_1 - s_j| + r_1 + r_j for one other token of each position, over the box."""
        pairs_T2 = torch.cat([token_T1, other_T1], dim=1)
        shift_T2, error_T2 = self.shift_TV.gather(1, pairs_T2), self.error_TV.gather(1, pairs_T2)
        bound_T = (shift_T2[:, 0] - shift_T2[:, 1]).abs() + error_T2.sum(1)
        if self.box.radius_Td is None:
            return bound_T
        columns_T2d = self.box.heads.b_dV.mT[pairs_T2].double()
        between_Td = (columns_T2d[:, 0] - columns_T2d[:, 1]).abs()
        return bound_T + (between_Td * self.box.radius_Td).sum(1) * _UPWARDS

    def require_product(self, tokens_T2: torch.Tensor, start: int) -> None:
        """Checks that the logits which matter most are hidden_a @ W_U_a."""
        columns_T2d = self.box.heads.a_dV.mT[tokens_T2].double()
        product_T2 = (columns_T2d @ self.box.hidden_a_Td[:, :, None])[..., 0]
        away_T2 = (product_T2 - self.logits_TV.gather(1, tokens_T2)).abs()
        wrong_T = (away_T2 > self.error_TV.gather(1, tokens_T2)).any(1)
        if bool(wrong_T.any()):
            position = int(wrong_T.nonzero()[0, 0])
            raise ValueError(
                f"position {start + position}: a logit is {float(away_T2[position].max()):.3g} "
                "from hidden @ W_U, more than run a's contract allows. Is it the hidden state "
                "after the final norm, and the matrix that run a used?"
            )

    def _holds_over_the_box(self, t: int, token: int) -> bool:
        """With |w_1 - w_j| over the box, which is less than |w_1| + |w_j|, where that decides."""
        assert self.box.radius_Td is not None
        margin_V = self.logits_TV[t, token] - self.logits_TV[t]
        bound_V = (self.shift_TV[t, token] - self.shift_TV[t]).abs()
        bound_V += self.error_TV[t, token] + self.error_TV[t]
        beaten_V = ~(margin_V > bound_V)
        beaten_V[token] = False
        if bool(beaten_V.any()):  # even without a box
            return False
        assert self.spread_TV is not None
        close_V = ~(margin_V > bound_V + self.spread_TV[t, token] + self.spread_TV[t])
        close_V[token] = False
        close_N = close_V.nonzero()[:, 0]
        W_dV = self.box.heads.b_dV
        between_dN = (W_dV[:, close_N].double() - W_dV[:, token, None].double()).abs()
        box_N = (self.box.radius_Td[t] @ between_dN) * _UPWARDS
        return bool((margin_V[close_N] > bound_V[close_N] + box_N).all())


def logit_movement(logits_TV: torch.Tensor, box: Box) -> LogitMovement:
    """Compares run a's logits, fp64, with all that run b's can be."""
    heads, d = box.heads, box.heads.d_model
    moved_Td = box.middle_Td - box.hidden_a_Td
    shift_TV = (moved_Td.to(heads.arithmetic) @ heads.a_dV).double()
    if heads.change_dV is not None:
        shift_TV += box.middle_Td.to(heads.arithmetic) @ heads.change_dV
    spread_TV, radius_T = None, torch.zeros(len(logits_TV)).double()
    if box.radius_Td is not None:
        radius_T = box.radius_Td.norm(dim=1)
        spread_TV = (box.radius_Td.to(heads.arithmetic) @ heads.b_magnitude_dV).double()
    norm_a_T, norm_b_T = box.hidden_a_Td.norm(dim=1), box.middle_Td.norm(dim=1)
    own = evaluation_growth(heads)
    a, b = (contract_growth(contract, d) for contract in (heads.contract_a, heads.contract_b))
    factors_T3 = torch.stack(
        [
            a.relative * norm_a_T + own.relative * moved_Td.norm(dim=1),
            b.relative * (norm_b_T + radius_T) + own.relative * radius_T,
            own.relative * norm_b_T,
        ],
        dim=1,
    )
    largest_T = (norm_a_T + norm_b_T + radius_T) * heads.norms_3V.amax() * _UPWARDS
    absolute_T = a.absolute + b.absolute + own.absolute * (1 + largest_T)
    absolute_T += 16 * FP64.unit_roundoff * (largest_T + logits_TV.abs().amax(1))
    absolute_T[largest_T > _ceiling(heads) / 4] = torch.inf  # sums may overflow
    error_TV = torch.addmm(absolute_T[:, None], factors_T3, heads.norms_3V).mul_(_UPWARDS)
    error_TV = _with_casts(heads, logits_TV, shift_TV, error_TV, spread_TV)
    return LogitMovement(box, logits_TV, shift_TV, error_TV, spread_TV)


def _ceiling(heads: Heads) -> float:
    """What every sum formed on the way must stay below."""
    contracts = (heads.contract_a, heads.contract_b)
    names = [name for each in contracts for name in (each.compute, each.accumulate)]
    return min(FP32.largest, *(FORMATS[name].largest for name in names))


def _with_casts(
    heads: Heads,
    logits_TV: torch.Tensor,
    shift_TV: torch.Tensor,
    error_TV: torch.Tensor,
    spread_TV: torch.Tensor | None,
) -> torch.Tensor:
    """The error with what rounding the logits themselves adds, in either run."""
    narrow = [
        (contract, fmt)
        for contract in (heads.contract_a, heads.contract_b)
        if (fmt := contract.output_format).precision < FORMATS[contract.compute].precision
    ]
    if not narrow:
        return error_TV
    size_TV = logits_TV.abs() + shift_TV.abs() + error_TV
    if spread_TV is not None:
        size_TV += spread_TV
    for contract, fmt in narrow:
        # Run a's logits are rounded already: before, they may have been this much larger.
        size_TV = size_TV / (1 - fmt.unit_roundoff)
        error_TV = cast_error(contract, size_TV, error_TV)
    return error_TV
