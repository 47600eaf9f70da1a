"""Componentwise condition numbers: how far an operation magnifies relative errors of its data.

kappa_i = sum_j |x_j dy_i/dx_j| / |y_i| (Higham 2002, section 1.6; Gohberg and Koltracht 1993): if
every x_j is off by a relative e, y_i can be off by kappa_i e, to first order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from .operations import OPERATIONS
from .reals.definitions import arguments_of, evaluate
from .reals.fp64 import Fp64

Tensor = torch.Tensor


def condition_number(op: str, inputs: Mapping[str, Any]) -> Tensor:
    """kappa of every output of `op`, as fp64 shaped like the output; inf where a sum cancels to 0.

    With respect to: a (or b: it is the same |a||b| / |y|) for matmul, x for the norms, softmax,
    logsumexp, RoPE, SiLU and GELU, gate for SwiGLU. Attention's counts v and, through the
    softmax, q (or k), by a triangle inequality: at most twice the true number. LayerNorm's is such
    a bound too. Raises as `reference` does.
    """
    arguments = arguments_of(op, inputs)
    y = evaluate(Fp64(), op, arguments)
    spread = OPERATIONS[op].spread(y, **arguments)
    kappa: Tensor = spread / y.abs()
    return kappa.masked_fill(spread == 0, 0.0)
