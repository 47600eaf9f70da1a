"""Tests against what a sampler is likeliest to get wrong, stronger there than of all frequencies.

Each takes probabilities p_BV (fp64, rows that sum to 1, 0 where nothing is kept) and gives a
p-value, or None where nothing could show. B rows, V vocabulary, N
draws a row.
"""

from __future__ import annotations

import math

import torch

Tensor = torch.Tensor

ENOUGH = 100
"""With fewer terms a sum is not held against the normal distribution."""


def temperature_p_value(x_BV: Tensor, p_BV: Tensor, ids_BN: Tensor) -> float | None:
    """Returns that of the score test of the temperature: the mean logit of the drawn tokens against
    its expectation, over all rows. The most powerful one against a temperature slightly off."""
    if ids_BN.numel() < ENOUGH:
        return None
    mean_B, variance_B = logit_moments(x_BV, p_BV)
    drawn = x_BV.double().gather(1, ids_BN) - mean_B[:, None]
    return _two_sided(float(drawn.sum()), ids_BN.shape[1] * float(variance_B.sum()))


def boundary_p_value(p_BV: Tensor, boundary_B: Tensor, ids_BN: Tensor) -> float | None:
    """Bounds how likely the last token that each row keeps is drawn so rarely: at most
    exp(-expected) where it never is. None if no row keeps another one."""
    share_B = boundary_share(p_BV, boundary_B)
    counted = (ids_BN == boundary_B[:, None]) & (share_B > 0)[:, None]
    expected = ids_BN.shape[1] * float(share_B.sum())
    count = int(counted.sum())
    return None if expected == 0 else 1.0 if count >= expected else _chernoff(count, expected)


def shared_noise_p_value(p_BV: Tensor, ids_BN: Tensor) -> float | None:
    """Tests whether rows were drawn with the same noise: uniforms that are looked up in cumulative
    sums, by id or by rank, or as noise of each id. Pairs of neighbouring rows; the smallest of
    three p-values, times three."""
    found = [_agreement(p_BV, ids_BN)]
    for order_BV in (None, torch.argsort(p_BV, dim=1, descending=True, stable=True)):
        found.append(_correlation(p_BV, ids_BN, order_BV))
    known = [p for p in found if p is not None]
    return min(1.0, 3 * min(known)) if known else None


def logit_moments(x_BV: Tensor, p_BV: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance [B] of a drawn token's logit."""
    x = x_BV.double().masked_fill(p_BV == 0, 0.0)
    mean_B = (p_BV * x).sum(1)
    return mean_B, (p_BV * (x - mean_B[:, None]).square()).sum(1)


def boundary_share(p_BV: Tensor, boundary_B: Tensor) -> Tensor:
    """The probability [B] of the last token kept, 0 where it is the only one."""
    share_B = p_BV.gather(1, boundary_B[:, None])[:, 0]
    return share_B.masked_fill((p_BV > 0).sum(1) < 2, 0.0)


def middles(p_BV: Tensor, order_BV: Tensor | None = None) -> Tensor:
    """Returns where each token lies in its row's cumulative sum, less a half, so that the mean is 0
    under the row."""
    p = p_BV if order_BV is None else p_BV.gather(1, order_BV)
    middle = p.cumsum(1) - p / 2 - 0.5
    return middle if order_BV is None else torch.zeros_like(middle).scatter(1, order_BV, middle)


def _agreement(p_BV: Tensor, ids_BN: Tensor) -> float | None:
    """Tests disjoint pairs of rows, whose tokens agree more often than by chance."""
    pairs = len(p_BV) // 2
    first, second = slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2)
    expected = ids_BN.shape[1] * float((p_BV[first] * p_BV[second]).sum())
    count = int((ids_BN[first] == ids_BN[second]).sum())
    if expected == 0 or count <= expected:
        return 1.0 if pairs else None
    return _chernoff(count, expected)


def _chernoff(count: int, expected: float) -> float:
    """Chernoff's bound on a count of independent events so far from what is expected of it, which
    holds for every number of them."""
    surprise = 0.0 if count == 0 else count * math.log(count / expected)
    return math.exp(-(expected - count + surprise))


def _correlation(p_BV: Tensor, ids_BN: Tensor, order_BV: Tensor | None) -> float | None:
    """Tests where the tokens of disjoint pairs of rows lie."""
    middle_BV = middles(p_BV, order_BV)
    variance_B = (p_BV * middle_BV.square()).sum(1)
    pairs = len(p_BV) // 2
    drawn = middle_BV.gather(1, ids_BN)
    product = (drawn[0 : 2 * pairs : 2] * drawn[1 : 2 * pairs : 2]).sum()
    variance = float((variance_B[0 : 2 * pairs : 2] * variance_B[1 : 2 * pairs : 2]).sum())
    if ids_BN.shape[1] * pairs < ENOUGH:
        return None
    return _two_sided(float(product), ids_BN.shape[1] * variance)


def _two_sided(deviation: float, variance: float) -> float | None:
    return None if variance <= 0 else math.erfc(abs(deviation) / math.sqrt(2 * variance))
