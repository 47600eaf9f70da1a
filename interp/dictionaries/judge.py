"""Whether features are those of a dictionary, up to what rounding permits.

Shapes: N rows, F features, d width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ...precision.arithmetic.growth import product_growth
from ...precision.contracts import bitlens_contract
from ...precision.head import contract_growth
from .dictionary import Dictionary
from .features import Features

_U = 2.0**-24
_TINY = 2.0**-126
_EXACT = 2.0**24


@dataclass(frozen=True)
class FeatureVerdict:
    """The outcome of judging features.

    Attributes:
        wrong: Pairs of row and feature that no correct encoder can have so.
        undecided: Pairs that may be active or not, for all that rounding permits.
        reason: The first wrong pair, in words; "" where there is none.
    """

    wrong: int
    undecided: int
    reason: str

    @property
    def ok(self) -> bool:
        return self.wrong == 0


def judge_features(dictionary: Dictionary, x: torch.Tensor, features: Features) -> FeatureVerdict:
    """Judges the features that somebody's encoder gave for rows x [N, d], in fp64.

    A feature must be active where its exact pre-activation exceeds 0, its threshold or the k-th
    largest by more than fp32 products may err, must not be where it falls as far below, and its
    value must be as near to the exact one. Where every sum is a sum of integers below 2^24, nothing
    may err: what meets a threshold exactly is not active, and ties go to the smaller index.

    Raises ValueError for gated dictionaries, for those that normalise rows or rank magnitudes or
    rescaled activations, and for features of another shape.
    """
    cfg = dictionary.cfg
    if cfg.architecture == "gated" or cfg.is_signed or cfg.normalize_activations != "none":
        raise ValueError(f"judge_features: {cfg.architecture} is not judged here")
    if cfg.rescale_acts_by_decoder_norm:
        raise ValueError("judge_features: rescaled activations are not judged here")
    rows = x.detach().reshape(-1, cfg.d_in).float()
    acts = features.dense().reshape(-1, cfg.d_sae).double()
    if len(acts) != len(rows):
        raise ValueError(f"judge_features: {len(acts)} rows of features for {len(rows)} rows")
    exact, bound = _exact(dictionary, rows)
    must, may = _active(dictionary, exact, bound)
    active = acts != 0
    near = (acts - exact).abs() <= bound
    wrong = torch.where(active, ~may | ~near, must)
    reason = ""
    if bool(wrong.any()):
        row, feature = wrong.nonzero()[0].tolist()
        was = "active" if active[row, feature] else "not active"
        reason = (
            f"row {row}, feature {feature}: {was} with {acts[row, feature]:.9g}; its exact "
            f"pre-activation is {exact[row, feature]:.9g}, give or take {bound[row, feature]:.3g}"
        )
    return FeatureVerdict(int(wrong.sum()), int((may & ~must).sum()), reason)


def _exact(dictionary: Dictionary, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Pre-activations in fp64, and what fp32's, and these themselves, may be off, [N, F]."""
    cfg = dictionary.cfg
    w = dictionary.W_enc.detach().double()
    bias = dictionary.b_enc.detach().double()
    centre = dictionary.b_dec.detach().double() if cfg.apply_b_dec_to_input else None
    x = rows.double() if centre is None else rows.double() - centre
    pre, size = x @ w + bias, x.abs() @ w.abs() + bias.abs()
    whole = all(bool((t == t.round()).all()) for t in (x, w, bias))
    if whole and bool((size < _EXACT).all()):
        return pre, torch.zeros_like(pre)
    growth = contract_growth(bitlens_contract("matmul", "fp32"), cfg.d_in + 1)
    own = product_growth(cfg.d_in + 4, 2.0**-53)
    # Centring rounds each element of a row once.
    relative = (1 + growth.relative) * (1 + _U) * (1 + own) - 1
    return pre, relative * size * (1 + 2.0**-20) + growth.absolute + 4 * _TINY


def _active(
    dictionary: Dictionary, pre: torch.Tensor, bound: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where a feature must be active, and where it may be."""
    cfg = dictionary.cfg
    low, high = pre - bound, pre + bound
    if not cfg.selects_top_k:
        limit = dictionary.encoder.thresholds().double()
        return low > limit, high > limit
    assert cfg.k is not None
    if not bool((bound > 0).any()):
        order = torch.sort(pre, dim=1, descending=True, stable=True).indices[:, : cfg.k]
        first = torch.zeros_like(pre, dtype=torch.bool).scatter_(1, order, True)
        return first & (pre > 0), first & (pre > 0)
    padded = torch.nn.functional.pad(high, (0, 1), value=-torch.inf)
    next_high = padded.topk(cfg.k + 1).values[:, -1:]
    last_low = low.topk(cfg.k).values[:, -1:]
    return (low > next_high) & (low > 0), (high >= last_low) & (high > 0)
