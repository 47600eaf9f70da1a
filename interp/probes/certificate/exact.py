"""A probe's running scores in fp64, and how far those of sound fp32 arithmetic can be from them.

Shapes: N tokens of all conversations, n tokens of one, D width, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from ....precision.arithmetic.growth import gamma, product_growth
from ....precision.contracts import bitlens_contract
from ....precision.head import contract_growth
from ...dictionaries import Features
from ..attention import AttentionProbe
from ..probe import Probe
from ..rows import TokenRows
from .folds import Array, running_fold, running_fold_error

_U, _U_FP64, _TINY = 2.0**-24, 2.0**-53, 2.0**-126
_ANY_ORDER = replace(bitlens_contract("matmul", "fp32"), order="any")
_UPWARDS = 1 + 2.0**-20  # more than the fp64 arithmetic on bounds rounds away


@dataclass(frozen=True)
class Enclosed:
    """The scores of conversations after each of their tokens, one conversation after the other.

    Attributes:
        scores: fp64 [N], of exact arithmetic but for what `bounds` allows.
        bounds: fp64 [N]: scores that keep the probe's numerics (docs/numerics.md, Probes), in any
            order of summation, are no further away.
    """

    scores: Array
    bounds: Array

    def shares(self, found: torch.Tensor) -> Array:
        """Returns what share of its bound each score's distance takes, fp64 [N]; above 1, or where
        it is NaN, the score is not this probe's of these rows."""
        return np.asarray(np.abs(found.double().numpy() - self.scores) / self.bounds)


def enclosed_scores(probe: Probe, rows: TokenRows) -> Enclosed:
    """Returns the running scores of rows without the tokens that the probe skips."""
    tokens = rows.without_first(probe.skip_first)
    attends = isinstance(probe, AttentionProbe)
    values, value_error = _products(tokens, probe.coef_, None if attends else probe.intercept_)
    logits = logit_error = None
    if isinstance(probe, AttentionProbe) and probe.aggregate.kind == "softmax":
        logits, logit_error = _products(tokens, probe.query_, None)
    scores, bounds = np.empty(len(values)), np.empty(len(values))
    intercept = float(probe.intercept_) if attends else 0.0
    for start, stop in zip(tokens.starts[:-1].tolist(), tokens.starts[1:].tolist(), strict=True):
        if start == stop:
            continue
        at = slice(start, stop)
        own = None if logits is None else logits[at]
        own_error = None if logit_error is None else logit_error[at]
        heads = running_fold(probe.aggregate, values[at], own)
        error = running_fold_error(probe.aggregate, values[at], value_error[at], own, own_error)
        sizes = (np.abs(heads) + error).sum(1) + abs(intercept)
        scores[at] = heads.sum(1) + intercept
        adding = (gamma(len(probe.coef_), _U) + gamma(len(probe.coef_) + 4, _U_FP64)) * sizes
        bounds[at] = (error.sum(1) + adding + _TINY) * _UPWARDS
    return Enclosed(scores, bounds)


def _products(
    tokens: TokenRows, w_HD: torch.Tensor, bias: torch.Tensor | None
) -> tuple[Array, Array]:
    """Products of rows with directions, fp64 [N, H], and the bound of fp32 ones from them."""
    w, rows = w_HD.double(), tokens.rows
    if isinstance(rows, Features):
        values, sizes = _sparse(rows, w), _sparse(rows, w, absolute=True)
    else:
        x = rows.double()
        values, sizes = x @ w.T, x.abs() @ w.abs().T
    if bias is not None:
        values, sizes = values + bias.double(), sizes + bias.double().abs()
    growth = contract_growth(_ANY_ORDER, tokens.width + 1)
    own = product_growth(tokens.width + 4, _U_FP64)
    error = (growth.relative + own) * sizes + growth.absolute
    return values.numpy(), (error * _UPWARDS).numpy()


def _sparse(rows: Features, w: torch.Tensor, *, absolute: bool = False) -> torch.Tensor:
    x, at = rows.values.double(), rows.indices.long()
    products = x[:, None] * w.T[at]
    if absolute:
        products = products.abs()
    found = torch.zeros(rows.n_rows, len(w), dtype=torch.float64, device="cpu")
    return found.index_add_(0, rows.rows(), products)
