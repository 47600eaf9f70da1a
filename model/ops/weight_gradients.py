"""The sums of a trained model's weight gradients."""

from __future__ import annotations

import torch

from .packed import PackedWeight


class GradientSum:
    """One sum over a batch, fp32, that begins with zeros when something is first added.

    Attributes:
        shape: Of the weight.
        value: None before anything was added.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.value: torch.Tensor | None = None

    def begun(self) -> torch.Tensor:
        """Returns the sum, to be added to in place."""
        if self.value is None:
            self.value = torch.zeros(self.shape, dtype=torch.float32, device="cpu")
        return self.value

    def clear(self) -> None:
        """Forgets what was added."""
        self.value = None


class WeightGradients:
    """The sums of a model's weights, found by the memory that kernels read each weight from.

    A table's gradient as rows of an embedding and as a linear's matrix are sums of their own.
    """

    def __init__(self) -> None:
        self._linears: dict[int, GradientSum] = {}
        self._tables: dict[int, GradientSum] = {}
        self._vectors: dict[int, GradientSum] = {}

    def add_linear(self, weight: PackedWeight) -> GradientSum:
        """Returns the new sum of a linear's matrix."""
        return self._linears.setdefault(weight.ptr, GradientSum((weight.n, weight.k)))

    def add_table(self, weight: PackedWeight) -> GradientSum:
        """Returns the new sum of an embedding's rows."""
        return self._tables.setdefault(weight.ptr, GradientSum((weight.n, weight.k)))

    def add_vector(self, vector: torch.Tensor) -> GradientSum:
        """Returns the new sum of a bias or a norm's weight."""
        return self._vectors.setdefault(vector.data_ptr(), GradientSum(tuple(vector.shape)))

    def linear(self, weight: PackedWeight) -> GradientSum | None:
        """Returns a matrix's sum; None for one that is not trained."""
        return self._linears.get(weight.ptr)

    def table(self, weight: PackedWeight) -> GradientSum | None:
        """Returns an embedding's sum; None for one that is not trained."""
        return self._tables.get(weight.ptr)

    def vector(self, vector: torch.Tensor | None) -> GradientSum | None:
        """Returns a vector's sum; None for one that is not trained, or not there."""
        return None if vector is None else self._vectors.get(vector.data_ptr())
