"""The findings of a comparison of two checkpoints, as data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Relation = Literal["rounded", "differs", "only in A", "only in B"]


@dataclass(frozen=True)
class TensorDifference:
    """One tensor that is not the same in both.

    Attributes:
        relation: "rounded" where rounding one side to `format` gives the other, bit for bit.
        format: Of "rounded": the narrower format, "bf16" or "fp16".
        shape_a, shape_b: None where that side lacks the tensor.
        values: How many values differ.
        error: |b - a| / |a| (2-norms); None where shapes differ or a side lacks it.
        factor: The number that A's tensor was multiplied by, where that explains B's to 8 bits.
    """

    name: str
    relation: Relation
    shape_a: tuple[int, ...] | None = None
    shape_b: tuple[int, ...] | None = None
    format: str = ""
    values: int = 0
    error: float | None = None
    factor: float | None = None

    def __str__(self) -> str:
        """Such as "blocks.3.mlp.down.weight: A's times 1.05"."""
        return f"{self.name}: {self.words}"

    @property
    def words(self) -> str:
        """Its difference without its name."""
        if self.relation == "rounded":
            return f"rounded to {self.format}"
        if self.relation != "differs":
            return self.relation
        if self.shape_a != self.shape_b:
            return f"shape {self.shape_b} against {self.shape_a}"
        if self.factor is not None:
            return f"A's times {self.factor:.4g}"
        return f"{self.values:,} values differ, relative error {self.error:.2g}"


@dataclass(frozen=True)
class CheckpointComparison:
    """Two models, tensor by tensor, and what goes with them.

    Attributes:
        tensors: How many there are, in either.
        equal: How many hold the same values, or A's as B's own policy stores them.
        differences: The others, in the order of a pass.
        config: Fields that differ, in words; what nothing is computed from does not count.
        tokenizer: How the tokenizers differ, in words.
        template: How the chat templates differ, in words.
        not_compared: What a side does not have, such as a tokenizer.
    """

    tensors: int
    equal: int
    differences: tuple[TensorDifference, ...] = ()
    config: tuple[str, ...] = ()
    tokenizer: tuple[str, ...] = ()
    template: tuple[str, ...] = ()
    not_compared: tuple[str, ...] = ()

    @property
    def differing(self) -> tuple[TensorDifference, ...]:
        """Tensors of other values or shapes, and those that one side lacks."""
        return tuple(d for d in self.differences if d.relation != "rounded")

    @property
    def rounded(self) -> tuple[TensorDifference, ...]:
        """Tensors that rounding one side explains."""
        return tuple(d for d in self.differences if d.relation == "rounded")

    @property
    def missing(self) -> tuple[TensorDifference, ...]:
        """Tensors that one side lacks."""
        return tuple(d for d in self.differing if d.relation != "differs")

    @property
    def same(self) -> bool:
        """Whether nothing differs but by rounding."""
        return not (self.differing or self.config or self.tokenizer or self.template)

    @property
    def headline(self) -> str:
        """The differences in a few words, such as "1 of 21 tensors differs"; "" for none.

        Rounded tensors are named where nothing else is there to be said.
        """
        said = list(self._parts())
        if not said and self.rounded:
            n, formats = len(self.rounded), sorted({d.format for d in self.rounded})
            said.append(f"{_tensors(n, self.tensors)} rounded to {' or '.join(formats)}")
        return "; ".join(said)

    @property
    def settings(self) -> dict[str, tuple[str, ...]]:
        """Differences beside the tensors, by what they are of; only what differs."""
        found = {
            "config": self.config,
            "tokenizer": self.tokenizer,
            "chat template": self.template,
        }
        return {name: differences for name, differences in found.items() if differences}

    def _parts(self) -> Iterator[str]:
        if n := len(self.differing):
            yield f"{_tensors(n, self.tensors)} differ{'s' * (n == 1)}"
        if found := list(self.settings):
            yield f"the {' and the '.join(found)} differ{'s' * (len(found) == 1)}"


def _tensors(n: int, total: int) -> str:
    return f"{n:,} of {total:,} tensor{'s' * (total != 1)}"
