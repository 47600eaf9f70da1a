"""A linear probe's score, taken apart into what features of a dictionary add.

Shapes: S tokens of a sequence, D width, F features.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch

from ..dictionaries import Dictionary
from ..probes.linear import LinearProbe
from ..probes.rows import token_rows
from .alarm import Explanation

Array = npt.NDArray[np.float64]

UNIT_ROUNDOFF = 2.0**-24


def explain(probe: LinearProbe, dictionary: Dictionary, x_SD: torch.Tensor) -> Explanation:
    """Returns the score after the last of these tokens as a sum of terms.

    A linear aggregate is a weighted sum of the tokens' scores w.x + b, with weights that add up to
    1 (`token_weights`). With x = sum of a_f d_f + b_dec + error, each token's w.x is what its
    features, the dictionary's bias and the error add. Terms are computed independently in fp64.

    Args:
        x_SD: The activations of every token so far, fp32 [S, D].

    Raises ValueError for a probe that scores features, or tokens that the probe skips.
    """
    if "dictionary" in probe.metadata_:
        raise ValueError("a probe of features needs no dictionary to be explained")
    own = probe.own_scores(token_rows(x_SD[None]).without_first(probe.skip_first))
    score = float(probe.decision_function(x_SD[None]))
    weights = token_weights(probe, own)
    x_all = x_SD[probe.skip_first :]
    counted = np.flatnonzero(weights)
    x, along = x_all[counted], torch.from_numpy(weights[counted])
    w = probe.coef_[0].double()
    features = dictionary.encode_sparse(x)
    reconstructed = dictionary.decode(features).double()
    added = _feature_terms(dictionary, features, w, weights[counted])
    order = sorted(added, key=lambda f: -abs(added[f]))
    error = float(along @ ((x.double() - reconstructed) @ w))
    constant = float(along @ (reconstructed @ w)) - math.fsum(added.values())
    bias = float(probe.intercept_.double()) * math.fsum(weights) + constant
    shares = weights[counted] * own.double().numpy()[counted]
    by_size = np.argsort(-np.abs(shares), kind="stable")
    terms = [*(added[f] for f in order), error, bias]
    return Explanation(
        features=tuple(order),
        contributions=tuple(added[f] for f in order),
        error=error,
        bias=bias,
        rounding=math.fsum([score, *(-term for term in terms)]),
        rounding_bound=_rounding_bound(probe, x_all.double(), w, weights),
        tokens=tuple((counted[by_size] + probe.skip_first).tolist()),
        token_shares=tuple(shares[by_size].tolist()),
    )


def token_weights(probe: LinearProbe, own_S: torch.Tensor) -> Array:
    """Returns how much each token's score counts in the conversation's, fp64 [S]; they add up to 1.

    The token, window or moment that a maximum picks is found in fp32, as the fold finds it.
    """
    z = own_S.numpy().astype(np.float32)
    n, kind = len(z), probe.aggregate.kind
    weights = np.zeros(n)
    if kind == "mean":
        weights[:] = 1 / n
    elif kind == "last":
        weights[-1] = 1
    elif kind == "max":
        weights[int(z.argmax())] = 1
    elif kind == "rolling":
        first, last = _best_window(z, probe.aggregate.window)
        weights[first : last + 1] = 1 / (last + 1 - first)
    else:
        step, keep = probe.aggregate.weight, 1 - probe.aggregate.weight
        last = _best_moment(z, np.float32(step))
        weights[: last + 1] = step * keep ** np.arange(last, -1, -1.0)
        weights[0] = keep**last
    return weights


def _best_window(z: npt.NDArray[np.float32], window: int) -> tuple[int, int]:
    if len(z) < window:
        return 0, len(z) - 1
    best, at = np.float32(-np.inf), window - 1
    for last in range(window - 1, len(z)):
        total = z[last - window + 1]
        for value in z[last - window + 2 : last + 1]:
            total = np.float32(total + value)
        mean = np.float32(total / np.float32(window))
        if last == window - 1 or best < mean:
            best, at = mean, last
    return at - window + 1, at


def _best_moment(z: npt.NDArray[np.float32], weight: np.float32) -> int:
    average = best = z[0]
    at = 0
    for t in range(1, len(z)):
        average = np.float32(average + np.float32(weight * np.float32(z[t] - average)))
        if best < average:
            best, at = average, t
    return at


def _feature_terms(
    dictionary: Dictionary, features: object, w: torch.Tensor, weights: Array
) -> dict[int, float]:
    """What each active feature adds."""
    indptr, indices, values = (getattr(features, name) for name in ("indptr", "indices", "values"))
    owner = torch.repeat_interleave(torch.arange(len(indptr) - 1, device="cpu"), indptr.diff())
    weighted = values.double() * torch.from_numpy(weights)[owner]
    active, which = indices.long().unique(return_inverse=True)
    total = torch.zeros(len(active), dtype=torch.float64, device="cpu").index_add_(
        0, which, weighted
    )
    added = total * (dictionary.W_dec[active].double() @ w)
    return dict(zip(active.tolist(), added.tolist(), strict=True))


def _rounding_bound(probe: LinearProbe, x: torch.Tensor, w: torch.Tensor, weights: Array) -> float:
    """Returns a bound on what fp32 adds.

    A token's score is a sum of D + 1 terms in some tree, and the fold makes at most 6 S + 2
    roundings of sums of them, whose magnitudes do not exceed those of the tokens' terms: gamma of
    D + 6 S + 4 times the sum of magnitudes (Higham 2002, Lemma 3.1). Maxima round nothing; the one
    that fp32 picks is the one that is explained.
    """
    n = x.shape[1] + 6 * len(weights) + 4
    gamma = n * UNIT_ROUNDOFF / (1 - n * UNIT_ROUNDOFF)
    size = x.abs() @ w.abs() + abs(float(probe.intercept_))
    # An exponential average reaches token i's share through a chain of at most S products.
    return gamma * float(torch.from_numpy(weights) @ size) + gamma * float(
        size.max() if probe.aggregate.kind == "ema" else 0.0
    )
