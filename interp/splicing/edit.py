"""One edit of one feature at some positions.

Tensor names: N rows, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch

Op = Literal["set", "scale", "add", "ablate"]
Positions = int | slice | Sequence[int] | None


@dataclass(frozen=True, eq=False)
class Edit:
    """An edit of a feature's activation. Raises ValueError when made, for one that cannot be.

    Attributes:
        feature: Its index in the dictionary.
        op: "set" to a value, "scale" by it, "add" it, or "ablate": set to 0.
        value: A number, or a tensor [n] with a value for each position, which with "set" patches
            activations from another run. Value i belongs to the i-th of the positions.
        positions: Where a token stands in its own sequence, whatever padding, chunks or KV cache:
            an int, a list of ints, a slice, or None for all of them.
        hook_name: A hook of the dictionary it is meant for, where several are spliced.
    """

    feature: int
    op: Op
    value: float | torch.Tensor | None = None
    positions: Positions = None
    hook_name: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.feature, bool) or not isinstance(self.feature, int) or self.feature < 0:
            raise ValueError(f"feature = {self.feature!r}: expected an index")
        if self.op not in get_args(Op):
            raise ValueError(f"op = {self.op!r}: expected one of {', '.join(get_args(Op))}")
        if (self.value is None) != (self.op == "ablate"):
            needs = "takes no value" if self.op == "ablate" else "needs a value"
            raise ValueError(f"Edit: {self.op!r} {needs}")
        self._check_positions()
        self._check_value()

    def __str__(self) -> str:
        return f"the edit of feature {self.feature} at positions {self.positions}"

    def listed(self) -> list[int] | None:
        """Returns the positions; None where they have no end."""
        if isinstance(self.positions, int):
            return [self.positions]
        span = self._span()
        if span is None:
            assert isinstance(self.positions, Sequence)
            return list(self.positions)
        return None if span.stop is None else list(range(span.start, span.stop, span.step))

    def check_context(self, n_ctx: int) -> None:
        """Raises ValueError for a position that no sequence of a model can have."""
        listed, span = self.listed(), self._span()
        last = max(listed) if span is None and listed else span.start if span is not None else 0
        if last >= n_ctx:
            raise ValueError(f"{self}: position {last} is beyond the context of {n_ctx}")

    def places(self, positions_N: torch.Tensor) -> torch.Tensor:
        """Returns which of the edit's positions each row stands at, int64 [N]; -1 at none.

        Raises ValueError for a row that the edit has no value for.
        """
        span = self._span()
        if span is None:
            wanted = torch.tensor(self.listed(), device=positions_N.device)
            matches = positions_N[:, None] == wanted
            place_N = torch.where(matches.any(1), matches.to(torch.uint8).argmax(1), -1)
        else:
            place_N = torch.div(positions_N - span.start, span.step, rounding_mode="floor")
            inside = (positions_N >= span.start) & ((positions_N - span.start) % span.step == 0)
            if span.stop is not None:
                inside &= positions_N < span.stop
            place_N = place_N.where(inside, -1)
        if (n := self._n_values()) is not None and len(place_N) and int(place_N.max()) >= n:
            raise ValueError(
                f"{self} has {n} values, and the run goes on beyond them; say where it ends: "
                "positions=slice(start, end)"
            )
        return place_N

    def missing(self, seen: set[int]) -> list[int]:
        """Returns positions that must occur in some run, or the edit would be ignored in part.

        All that are listed, and all that have values of their own; of a slice, any. `seen` are the
        places that occurred.
        """
        span, n_values = self._span(), self._n_values()
        if span is not None:
            if n_values is None:
                return [] if seen else [span.start]
            return [span.start + i * span.step for i in range(n_values) if i not in seen]
        return [p for i, p in enumerate(self.listed() or ()) if i not in seen]

    def applied(self, acts_N: torch.Tensor, place_N: torch.Tensor) -> torch.Tensor:
        """Returns the feature's activations fp32 [N], edited where `place_N` is not -1."""
        value: float | torch.Tensor
        if isinstance(self.value, torch.Tensor):
            value = self.value.to(acts_N.device, torch.float32)
            value = value[place_N.clamp(min=0)] if value.ndim else value
        else:
            value = 0.0 if self.value is None else self.value
        if self.op == "scale":
            edited_N = acts_N * value
        elif self.op == "add":
            edited_N = acts_N + value
        else:
            edited_N = torch.zeros_like(acts_N) + value
        edited_N = torch.where(place_N >= 0, edited_N, acts_N)
        if not bool(torch.isfinite(edited_N).all()):
            raise ValueError(f"{self} makes an activation that is no finite number")
        return edited_N

    def _span(self) -> slice | None:
        """The positions as a slice with start and step; None where they are listed."""
        positions = slice(None) if self.positions is None else self.positions
        if not isinstance(positions, slice):
            return None
        return slice(positions.start or 0, positions.stop, positions.step or 1)

    def _n_values(self) -> int | None:
        if isinstance(self.value, torch.Tensor) and self.value.ndim:
            return len(self.value)
        return None

    def _check_positions(self) -> None:
        positions = self.positions
        if isinstance(positions, str) or not isinstance(positions, int | slice | Sequence | None):
            raise ValueError(f"positions = {positions!r}: expected an int, a list, a slice or None")
        if isinstance(positions, slice):
            numbers = [positions.start, positions.stop, positions.step]
            numbers = [n for n in numbers if n is not None]
            if positions.step == 0:
                raise ValueError(f"positions = {positions}: a step of 0")
        else:
            numbers = [positions] if isinstance(positions, int) else list(positions or ())
        if any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in numbers):
            raise ValueError(
                f"positions = {positions!r}: expected integers from 0 on; they count from a "
                "sequence's beginning, since a run cannot know its end"
            )
        listed = self.listed()
        if listed is not None and (not listed or len(set(listed)) < len(listed)):
            raise ValueError(f"positions = {positions!r}: none at all, or one of them twice")

    def _check_value(self) -> None:
        value = self.value
        if isinstance(value, bool) or not isinstance(value, int | float | torch.Tensor | None):
            raise ValueError(f"value = {value!r}: expected a number or a tensor")
        if value is None:
            return
        x = torch.as_tensor(value)
        if x.ndim > 1 or x.numel() == 0 or not bool(torch.isfinite(x.detach().float()).all()):
            raise ValueError(
                f"value of {self}: expected finite numbers, one or one a position; got a tensor "
                f"{list(x.shape)}"
            )
        listed = self.listed()
        if x.ndim and listed is not None and len(listed) != len(x):
            raise ValueError(f"value of {self}: {len(x)} values for {len(listed)} positions")


def edited_acts(
    edits: Sequence[Edit], acts_NF: torch.Tensor, places: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Returns the activations with every edit applied, in order; itself without any."""
    columns: dict[int, torch.Tensor] = {}
    for edit, place_N in zip(edits, places, strict=True):
        before_N = columns.get(edit.feature, acts_NF[:, edit.feature])
        columns[edit.feature] = edit.applied(before_N, place_N)
    if not columns:
        return acts_NF
    features = torch.tensor(list(columns), device=acts_NF.device)
    return acts_NF.index_copy(1, features, torch.stack(list(columns.values()), dim=1))
