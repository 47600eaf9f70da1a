"""A contract as the bounds see it: the size of each kind of error it permits."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ..arithmetic.growth import confidence_for, gamma_probabilistic, product_growth
from ..arithmetic.rounding_model import RoundingModel
from ..contract import PrecisionContract, depth
from ..formats import FORMATS


def model_of(
    contract: PrecisionContract, *, events: int = 0, failure_probability: float | None = None
) -> RoundingModel:
    """`contract`'s model; probabilistic for `events` roundings if a probability is given."""
    casts = dict.fromkeys(contract.casts, FORMATS[contract.storage])
    compute, accumulate = FORMATS[contract.compute], FORMATS[contract.accumulate]
    if "inputs" in casts:  # which narrows the factors of products, and nothing else
        casts["inputs"], compute = compute, accumulate
    casts |= {"output": contract.output_format}
    growth: Callable[[int, float], float] = product_growth
    if failure_probability is not None:
        u = accumulate.unit_roundoff
        growth = partial(_probabilistic, confidence_for(failure_probability, events, u))
    return RoundingModel(
        compute=compute,
        accumulate=accumulate,
        casts=casts,
        function_ulp=contract.function_ulp,
        angles=None if contract.angles is None else FORMATS[contract.angles],
        may_flush=contract.may_flush,
        rescalings=_online_softmax if contract.order == "any" else lambda n: 0,
        depth=partial(depth, contract.order),
        growth=growth,
    )


def _online_softmax(n: int) -> int:
    """Once a block of keys (Milakov and Gimelshein 2018); kernels take 16 or more."""
    return -(-n // 16) - 1


def _probabilistic(confidence: float, n: int, u: float) -> float:
    return min(gamma_probabilistic(n, u, confidence), product_growth(n, u))
