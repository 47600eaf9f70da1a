"""The sampler by brute force, in Python integers and rationals: docs/numerics.md word by word.

Nothing is shared with the kernels but the fp32 exp, which has tests of its own.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import torch
from bitlens import _core
from bitlens.model.sampling import SamplingParams
from bitlens.model.sampling.typical import TypicalSet

Floats = npt.NDArray[np.float32]

SMALL = 512
"""Up to so many kept tokens every score is exact; beyond, those near the best by fp64."""


@dataclass(frozen=True)
class Expected:
    """As `Certificate`, with the token and its log-probability; token -1 is not valid."""

    token: int
    logprob: float = math.nan
    x_max: float = 0.0
    total: int = 0
    kept: int = 0
    mass: int = 0
    threshold_logit: float = 0.0
    threshold_id: int = -1
    rank: int = 0
    mass_before: int = 0
    typical: TypicalSet | None = None


def expected(
    logits: torch.Tensor,
    p: SamplingParams,
    position: int,
    *,
    draw: int = 0,
    prompt: Sequence[int] = (),
    output: Sequence[int] = (),
    vocab_size: int | None = None,
) -> Expected:
    """What `sample` must give for one row [V]."""
    raw = logits.to(torch.float32).numpy()[:vocab_size]
    if np.isnan(raw).any() or (raw == np.inf).any():
        return Expected(-1)
    greedy = p.temperature < 1e-5
    with np.errstate(over="ignore"):
        temperature = np.float32(1 if greedy else p.temperature)
        x = edited(raw, p, prompt, output) / temperature + np.float32(0)
    if np.isnan(x).any() or (x == np.inf).any() or not (x > -np.inf).any():
        return Expected(-1)
    order = np.lexsort((np.arange(len(x)), -x))
    weights = weights_of(x)
    total = sum(weights)
    ordered = [int(i) for i in order if weights[i] > 0]
    if p.min_p and not greedy:
        least = Fraction(float(np.float32(p.min_p)))
        ordered = [i for i in ordered if Fraction(weights[i], 2**44) >= least]
    kept = [ordered[0]] if greedy else filtered(ordered, weights, p, len(x))
    seed = 0 if greedy else p.seed
    assert seed is not None
    with np.errstate(over="ignore"):
        d = x - x.max()
    threshold, typical = kept[-1], None
    if not greedy and p.typical_p is not None and np.float32(p.typical_p) < 1:
        kept, typical = typical_of(kept, d, weights, p.typical_p)
    winner = best(kept, d, seed, position, draw)
    rank = kept.index(winner)
    logprob = np.float32(float(d[winner]) - log(float(total) * 2.0**-44))
    return Expected(
        winner, float(logprob), float(x.max()), total, len(kept), sum(weights[i] for i in kept),
        float(x[threshold]), threshold, rank, sum(weights[i] for i in kept[:rank]), typical,
    )  # fmt: skip


def filtered(ordered: list[int], weights: list[int], p: SamplingParams, vocab: int) -> list[int]:
    """top_k and top_p of tokens in order."""
    k = p.top_k if p.top_k and 0 < p.top_k < vocab else len(ordered)
    within = ordered if p.filter_apply_order == "joint" else ordered[:k]
    top_p = Fraction(float(np.float32(1 if p.top_p is None else p.top_p)))
    limit = top_p * sum(weights[i] for i in within)
    kept, before = [], 0
    for i in ordered[:k]:
        if before >= limit:
            break
        kept.append(i)
        before += weights[i]
    return kept


def typical_of(
    kept: list[int], d: Floats, weights: list[int], typical_p: float
) -> tuple[list[int], TypicalSet]:
    """What typical_p keeps of kept tokens, in its order."""
    gaps = {i: round(Fraction(-float(d[i])) * 2**27) for i in kept}
    mass = sum(weights[i] for i in kept)
    mean = Fraction(sum(weights[i] * gaps[i] for i in kept), mass)
    centre = math.floor(mean + Fraction(1, 2))
    distance = {i: abs(gap - centre) for i, gap in gaps.items()}
    found, before = [], 0
    for i in sorted(kept, key=lambda i: (distance[i], i)):
        if before >= Fraction(float(np.float32(typical_p))) * mass:
            break
        found.append(i)
        before += weights[i]
    return found, TypicalSet(centre, distance[found[-1]], found[-1])


def edited(raw: Floats, p: SamplingParams, prompt: Sequence[int], output: Sequence[int]) -> Floats:
    """Mask, bias, stop ids, penalties; every operation one fp32 rounding."""
    x = raw.copy()
    f = np.float32
    if p.allowed_token_ids is not None:
        x[[i for i in range(len(x)) if i not in set(p.allowed_token_ids)]] = -np.inf
    for i, bias in p.logit_bias.items():
        if i < len(x):
            x[i] = x[i] + f(bias)
    if len(output) < p.min_tokens:
        x[[i for i in p.stop_token_ids if i < len(x)]] = -np.inf
    counts = Counter(output)
    for i in {*prompt, *output}:
        if i >= len(x):
            continue
        if p.repetition_penalty != 1:
            r = f(p.repetition_penalty)
            x[i] = x[i] / r if x[i] > 0 else x[i] * r
        if counts[i]:
            product = f(p.frequency_penalty) * f(counts[i])
            x[i] = (x[i] - product) - f(p.presence_penalty)
    return x


def weights_of(x: Floats) -> list[int]:
    """round(exp(x - x_max) * 2^44), ties to even."""
    with np.errstate(over="ignore", invalid="ignore"):
        d = torch.from_numpy(np.ascontiguousarray(x - x.max()))
    e = torch.empty_like(d)
    _core.exp(d, d.numel(), e)
    return [round(Fraction(v) * 2**44) for v in e.tolist()]


def best(kept: list[int], d: Floats, seed: int, position: int, draw: int) -> int:
    """The kept token of largest score, of equals the smallest id."""
    if len(kept) > SMALL:
        kept = _near_best(kept, d, seed, position, draw)
    scores = {i: score(float(d[i]), noise(seed, i, position, draw)) for i in kept}
    return min(kept, key=lambda i: (-scores[i], i))


def _near_best(kept: list[int], d: Floats, seed: int, position: int, draw: int) -> list[int]:
    ids = np.array(kept, dtype=np.uint64)
    v = (_noises(seed, ids, position, draw).astype(np.longdouble) + 0.5) / np.longdouble(2**64)
    gumbel = d[kept].astype(np.float64) - np.log(-np.log1p(-v)).astype(np.float64)
    return [kept[i] for i in np.flatnonzero(gumbel > gumbel.max() - 1e-6)]


def _noises(
    seed: int, ids: npt.NDArray[np.uint64], position: int, draw: int
) -> npt.NDArray[np.uint64]:
    """`noise` of many ids at once."""
    low, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    c = [ids >> np.uint64(1), *(np.full_like(ids, x) for x in (position, draw, 0))]
    key = [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        p0, p1 = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        k0, k1 = np.uint64(key[0]), np.uint64(key[1])
        c = [(p1 >> shift) ^ c[1] ^ k0, p1 & low, (p0 >> shift) ^ c[3] ^ k1, p0 & low]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    odd = (ids & np.uint64(1)).astype(bool)
    return np.where(odd, c[2] | (c[3] << shift), c[0] | (c[1] << shift))


def noise(seed: int, token: int, position: int, draw: int) -> int:
    """The 64 bits of a token."""
    words = philox([token >> 1, position, draw, 0], [seed & 0xFFFFFFFF, seed >> 32])
    return words[2 * (token & 1)] | words[2 * (token & 1) + 1] << 32


def philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x32-10."""
    c, (k0, k1) = list(counter), key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k0, p1 & 0xFFFFFFFF, (p0 >> 32) ^ c[3] ^ k1, p0 & 0xFFFFFFFF]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c


def score(d: float, r: int) -> int:
    """round((d - ln E) * 2^40) with E = -ln(1 - (r + 1/2) / 2^64)."""
    return round(Fraction(d - log(exponential(r))) * 2**40)


def exponential(r: int) -> float:
    """E in fp64, by the operations of the spec."""
    v = (float(r) + 0.5) * 2.0**-64
    if v >= 0.25:
        return -log((float(2**64 - 1 - r) + 0.5) * 2.0**-64)
    s = v / (2.0 - v)
    return fma(s * (s * s), _series(s * s), s + s)


def log(x: float) -> float:
    """log_f64 of the spec: x = 2^k m, m in [sqrt(1/2), sqrt(2))."""
    m, k = math.frexp(x)
    if m < float.fromhex("0x1.6a09e667f3bcdp-1"):
        m, k = 2 * m, k - 1
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    q = fma(s * z, _series(z), s + s)
    high, low = float.fromhex("0x1.62e42fefa38p-1"), float.fromhex("0x1.ef35793c7673p-45")
    return fma(float(k), high, fma(float(k), low, q))


def _series(z: float) -> float:
    p = 2.0 / 21.0
    for n in (19, 17, 15, 13, 11, 9, 7, 5, 3):
        p = fma(p, z, 2.0 / n)
    return p


def fma(a: float, b: float, c: float) -> float:
    """a * b + c, rounded once."""
    return float(Fraction(a) * Fraction(b) + Fraction(c))
