"""Sampling under FlashInfer's names, on logits [B, V] or probabilities, over one whole vocabulary.

Parameters are scalars or one a row. Unlike FlashInfer, ties are broken by id, so exactly top_k
tokens stay, and `seed` and `positions` make a row's token a function of that row alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..ops.kernels import softmax as _softmax
from .params import FilterOrder, SamplingParams
from .sample import Counters, SampleOutput, sample

PerRow = float | Sequence[float] | torch.Tensor | np.ndarray[Any, Any] | np.generic
Seeds = int | Sequence[int] | torch.Tensor

_PROBABILITY_BITS = 44


@dataclass(frozen=True, kw_only=True)
class Noise:
    """The source of a batch's noise.

    Attributes:
        seed: One for all rows, or one a row.
        positions: [B]; default: 0 .. B - 1, so that rows of one seed differ.
        draws: [B]; default 0.
    """

    seed: Seeds
    positions: Counters | None = None
    draws: Counters | None = None


def sampling_from_logits(
    logits: torch.Tensor, noise: Noise, *, return_certificate: bool = False
) -> SampleOutput:
    """A token of the softmax of each row."""
    return _sample(logits, noise, return_certificate)


def top_k_sampling_from_logits(
    logits: torch.Tensor, top_k: PerRow, noise: Noise, *, return_certificate: bool = False
) -> SampleOutput:
    """A token among the top_k best of each row."""
    return _sample(logits, noise, return_certificate, top_k=top_k)


def top_p_sampling_from_logits(
    logits: torch.Tensor, top_p: PerRow, noise: Noise, *, return_certificate: bool = False
) -> SampleOutput:
    """A token of each row's nucleus of mass top_p."""
    return _sample(logits, noise, return_certificate, top_p=top_p)


def min_p_sampling_from_logits(
    logits: torch.Tensor, min_p: PerRow, noise: Noise, *, return_certificate: bool = False
) -> SampleOutput:
    """A token among those at least min_p times as likely as the best."""
    return _sample(logits, noise, return_certificate, min_p=min_p)


def top_k_top_p_sampling_from_logits(
    logits: torch.Tensor,
    top_k: PerRow,
    top_p: PerRow,
    noise: Noise,
    *,
    filter_apply_order: FilterOrder = "top_k_first",
    return_certificate: bool = False,
) -> SampleOutput:
    """A token that both filters keep; "joint" takes top_p as a share of the whole row."""
    return _sample(logits, noise, return_certificate, filter_apply_order, top_k=top_k, top_p=top_p)


def top_k_mask_logits(logits: torch.Tensor, top_k: PerRow) -> torch.Tensor:
    """Logits with -inf outside the top_k best of each row; of equals, smaller ids stay."""
    _check_vocabulary(logits, "logits")
    masked = torch.full_like(logits, -torch.inf)
    for row, out, k in zip(logits, masked, per_row(top_k, len(logits)), strict=True):
        kept = torch.sort(row, descending=True, stable=True).indices[: int(k) or len(row)]
        out[kept] = row[kept]
    return masked


def top_k_renorm_probs(probs: torch.Tensor, top_k: PerRow) -> torch.Tensor:
    """Probabilities of the top_k best of each row divided by their sum, zero elsewhere; of equals,
    smaller ids stay."""
    _check_vocabulary(probs, "probs")
    renormed = torch.zeros_like(probs)
    for row, out, k in zip(probs, renormed, per_row(top_k, len(probs)), strict=True):
        kept = torch.sort(row, descending=True, stable=True).indices[: int(k) or len(row)]
        out[kept] = row[kept] / row[kept].sum()
    return renormed


def top_p_renorm_probs(probs: torch.Tensor, top_p: PerRow) -> torch.Tensor:
    """Probabilities of each row's nucleus divided by their sum, zero elsewhere.

    The nucleus is decided in integers: probabilities are rounded to multiples of 2^-44.
    """
    _check_vocabulary(probs, "probs")
    renormed = torch.zeros_like(probs)
    shares = torch.tensor(per_row(top_p, len(probs)), dtype=torch.float32, device="cpu")
    for row, out, share in zip(probs, renormed, shares.tolist(), strict=True):
        order = torch.sort(row, descending=True, stable=True).indices
        weights = torch.round(row[order].double() * 2.0**_PROBABILITY_BITS).to(torch.int64)
        before = torch.cumsum(weights, 0) - weights
        numerator, denominator = share.as_integer_ratio()
        limit = -(-numerator * int(weights.sum()) // denominator)
        kept = order[before < max(limit, 1)]
        out[kept] = row[kept] / row[kept].sum()
    return renormed


def softmax(logits: torch.Tensor, temperature: PerRow = 1.0) -> torch.Tensor:
    """Softmax of logits / temperature, fp32, by the numerics of docs/numerics.md.

    At temperature 0, below fp32's smallest number, all of it is the best token's; of equals, that
    of the smallest id.
    """
    _check_vocabulary(logits, "logits")
    scale = torch.tensor(per_row(temperature, len(logits)), dtype=torch.float32, device="cpu")
    best = torch.nn.functional.one_hot(logits.argmax(1), logits.shape[1]).float()
    warm = _softmax(logits.float() / scale.where(scale > 0, 1.0)[:, None])
    return torch.where(scale[:, None] > 0, warm, best)


def _sample(
    logits: torch.Tensor,
    noise: Noise,
    return_certificate: bool,
    filter_apply_order: FilterOrder = "top_k_first",
    top_k: PerRow = 0,
    top_p: PerRow = 1.0,
    min_p: PerRow = 0.0,
) -> SampleOutput:
    _check_vocabulary(logits, "logits")
    size = len(logits)
    columns = zip(
        per_row(top_k, size), per_row(top_p, size), per_row(min_p, size),
        per_row(noise.seed, size), strict=True,
    )  # fmt: skip
    params = [
        SamplingParams(
            top_k=int(k) if p else 1,  # the best token alone holds a share of 0
            top_p=p or 1.0,
            min_p=m,
            seed=int(s),
            filter_apply_order=filter_apply_order,
        )
        for k, p, m, s in columns
    ]
    positions = range(size) if noise.positions is None else noise.positions
    return sample(
        logits,
        params,
        positions=positions,
        draws=noise.draws,
        return_certificate=return_certificate,
    )


def _check_vocabulary(x: torch.Tensor, name: str) -> None:
    if x.ndim != 2 or x.shape[1] == 0:
        raise ValueError(f"{name}: expected [batch, vocabulary] with a token, got {list(x.shape)}")


def per_row(value: PerRow, size: int) -> list[float]:
    """A parameter's values by row: of a number, numpy's and tensors of no axis included, the same
    for all. Raises ValueError for another number of them."""
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, int | float):
        return [value] * size
    values: list[float] = list(value)
    if len(values) != size:
        raise ValueError(f"expected a number or {size} of them, one a row; got {len(values)}")
    return values
