"""The unembedding of two runs, and how far rounding can take their logits.

Tensor names: T positions, d d_model, V vocabulary; a and b the runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from .arithmetic.growth import product_growth
from .bounds.rounding_model import model_of
from .contract import PrecisionContract

_SLACK = 1 + 2.0**-20  # over what the fp64 evaluation of a bound itself may err


@dataclass(frozen=True, eq=False)
class Heads:
    """The unembeddings of run a and of run b.

    Attributes:
        W_U_a: [d, V], as run a multiplies by it.
        W_U_b: [d, V]; None: the same matrix.
        contract_a, contract_b: Of op matmul.

    A bias b_U is one more row of W_U, with a one at the end of each hidden state.
    Raises ValueError for shapes that differ, weights that are not finite, and for contracts of
    another operation or with casts inside it.
    """

    W_U_a: torch.Tensor
    contract_a: PrecisionContract
    contract_b: PrecisionContract
    W_U_b: torch.Tensor | None = None

    def __post_init__(self) -> None:
        for contract in (self.contract_a, self.contract_b):
            if contract.op != "matmul" or set(contract.casts) - {"output"}:
                raise ValueError(
                    f"unembedding contract of {contract.op} with casts {contract.casts}: "
                    "expected a matmul that casts its output at most"
                )
        other = self._other
        if self.W_U_a.ndim != 2 or other.shape != self.W_U_a.shape or self.W_U_a.shape[1] < 2:
            raise ValueError(
                f"W_U: {tuple(self.W_U_a.shape)} and {tuple(other.shape)}: expected one shape "
                "[d_model, vocabulary]; models with other tokenizers cannot be compared"
            )
        if not bool(self.W_U_a.isfinite().all() and other.isfinite().all()):
            raise ValueError("W_U: not finite")

    @property
    def d_model(self) -> int:
        return self.W_U_a.shape[0]

    @property
    def d_vocab(self) -> int:
        return self.W_U_a.shape[1]

    @cached_property
    def arithmetic(self) -> torch.dtype:
        """The arithmetic in which products with the vocabulary are evaluated.

        fp32, whose rounding the bounds allow for, except for fp64 weights and where torch has been
        told to multiply fp32 in less (torch.set_float32_matmul_precision).
        """
        wide = torch.float64 in (self.W_U_a.dtype, self._other.dtype)
        exact = torch.get_float32_matmul_precision() == "highest"
        return torch.float32 if exact and not wide else torch.float64

    @cached_property
    def a_dV(self) -> torch.Tensor:
        return self.W_U_a.detach().to(self.arithmetic)

    @cached_property
    def b_dV(self) -> torch.Tensor:
        return self.a_dV if self.W_U_b is None else self._other.detach().to(self.arithmetic)

    @cached_property
    def change_dV(self) -> torch.Tensor | None:
        """W_U_b - W_U_a; None where both are the same."""
        if self.W_U_b is None or torch.equal(self.a_dV, self.b_dV):
            return None
        return self.b_dV - self.a_dV

    @cached_property
    def b_magnitude_dV(self) -> torch.Tensor:
        return self.b_dV.abs()

    @cached_property
    def norms_3V(self) -> torch.Tensor:
        """2-norms of the columns of W_U_a, W_U_b and the change between them, fp64."""
        a_V, b_V = _column_norms(self.a_dV), _column_norms(self.b_dV)
        change_V = (
            torch.zeros_like(a_V) if self.change_dV is None else _column_norms(self.change_dV)
        )
        return torch.stack([a_V, b_V, change_V])

    @property
    def _other(self) -> torch.Tensor:
        return self.W_U_a if self.W_U_b is None else self.W_U_b


@dataclass(frozen=True)
class Growth:
    """Bounds the error of evaluating h . w by `relative` ||h|| ||w|| + `absolute`, before casts.

    |h|.|w| <= ||h|| ||w|| (Cauchy-Schwarz) stands in for the sizes of the terms, which spares a
    product of the hidden states with the vocabulary.
    """

    relative: float
    absolute: float


def evaluation_growth(heads: Heads) -> Growth:
    """The growth of our own products with the vocabulary, their operands rounded first."""
    info = torch.finfo(heads.arithmetic)
    relative = product_growth(heads.d_model + 3, info.eps / 2)
    return Growth(relative * _SLACK, 4 * heads.d_model * info.tiny)


def contract_growth(contract: PrecisionContract, d_model: int) -> Growth:
    """The growth of any product that keeps `contract`, subnormals flushed or not."""
    model = model_of(contract)
    relative = model.reduction(d_model)
    tiny = max(model.compute.smallest_normal, model.accumulate.smallest_normal)
    return Growth(relative * _SLACK, 4 * d_model * tiny * (1 + relative))


def cast_error(
    contract: PrecisionContract, size_TV: torch.Tensor, error_TV: torch.Tensor
) -> torch.Tensor:
    """`error_TV` and what the cast of the output adds, for true logits up to `size_TV`."""
    return model_of(contract).cast("output", size_TV, error_TV)


def _column_norms(W_dV: torch.Tensor) -> torch.Tensor:
    """Rounded upwards, if anything."""
    norms_V: torch.Tensor = torch.linalg.vector_norm(W_dV, dim=0, dtype=torch.float64)
    return norms_V * _SLACK
