"""The answers of operations about ranks where there is only one, on the CPU."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch

from ..parallel.group import Group
from ..sampling.sample import RowSampler


class WholeMatrices(ABC):
    """Operations whose matrices are whole here: a rank's slice of a linear is all of it."""

    group: Group | None = None
    sampler: RowSampler | None = None

    @property
    def arithmetic(self) -> str:
        return type(self).__name__

    def own_columns(self, weight: Any) -> slice:
        return slice(0, None)

    def linear_slice(
        self,
        x: torch.Tensor,
        weight: Any,
        bias: torch.Tensor | None = None,
        *,
        out_dtype: torch.dtype | None = None,
    ) -> torch.Tensor:
        return self.linear(x, weight, bias, out_dtype=out_dtype)

    @abstractmethod
    def linear(
        self,
        x: torch.Tensor,
        weight: Any,
        bias: torch.Tensor | None = None,
        *,
        out_dtype: torch.dtype | None = None,
    ) -> torch.Tensor:
        """Whole, as in `Ops`."""
