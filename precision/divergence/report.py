"""The findings of `first_divergence`, row by row."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from .. import notebook
from ..meaning import MeaningDifference
from .difference import Difference

Mode = Literal["free", "lockstep", "swap"]
JudgeName = Literal["bits", "relative", "contract"]


_SHOWN = 40
"""Operations that a notebook shows."""


@dataclass(frozen=True)
class Swap:
    """The effect on model b's token of exchanging one operation.

    `margin` is the logit of model a's token minus the highest other one in model b so changed:
    positive where the token is restored.
    """

    token: int
    margin: float
    restored: bool


@dataclass(frozen=True)
class Row:
    """One address both models have.

    Attributes:
        address, op: Where, and the contract's operation.
        judge: How this row was judged.
        tolerance: The relative error allowed; None unless the judge is "relative".
        free: b on its own against a.
        created: b's operation on a's inputs against a's.
        at: Where the created difference is largest, in a row that exceeds its judge.
        entering: The largest relative error of its inputs in the free run; None where unseen.
        violation: Whose contract is broken and how; only the judge "contract" says.
        swap: The token with this operation exchanged.
        unit: Whose operations model b has fused into this one, and who fused them.
    """

    address: str
    op: str
    judge: JudgeName
    tolerance: float | None = None
    free: Difference | None = None
    created: Difference | None = None
    at: tuple[int, ...] | None = None
    entering: float | None = None
    violation: str | None = None
    swap: Swap | None = None
    unit: str | None = None

    @property
    def name(self) -> str:
        """The address, or of a unit its name: "blocks.3.attn, one unit: sdpa"."""
        return self.unit or self.address

    @property
    def amplification(self) -> float | None:
        """By how much the operation multiplied the error that entered it; None if none did.

        The difference it created itself counts for nothing where lockstep measured it, as if it
        were independent of the error passed on; free mode cannot tell them apart.
        """
        if self.free is None or not self.entering or not math.isfinite(self.entering):
            return None
        own = self.created.error if self.created is not None else 0.0
        passed_on = math.sqrt(max(self.free.error**2 - own**2, 0.0))
        return passed_on / self.entering

    def exceeds(self, found: Difference | None) -> bool:
        """Whether a difference is one, by this row's judge."""
        if found is None:
            return False
        if self.judge == "contract":
            return self.violation is not None and not found.identical
        if self.judge == "relative":
            return not found.error <= (self.tolerance or 0.0)
        return not found.identical


@dataclass(frozen=True, repr=False)
class Divergence:
    """The first operation at which two runs differ.

    Attributes:
        mode: How they were run.
        table: A row for every address both have, in model b's order.
        only_a, only_b: Addresses that the other model lacks: not compared.
        position: Whose token is compared (swap).
        token_a, token_b: The most likely tokens there (swap).
        replacement: What stood in for each operation (swap).
        meaning: Quantities that the models derive otherwise, such as a RoPE base: they compute
            other functions there, whatever the table says.
    """

    mode: Mode
    table: tuple[Row, ...]
    only_a: tuple[str, ...] = ()
    only_b: tuple[str, ...] = ()
    position: int | None = None
    token_a: int | None = None
    token_b: int | None = None
    replacement: str | None = None
    meaning: tuple[MeaningDifference, ...] = ()

    @property
    def first(self) -> str | None:
        """The first operation that differs by its row's judge; in lockstep, the first that creates
        a difference, in swap the first that restores the token."""
        if self.mode == "lockstep":
            return next(iter(self.created), None)
        if self.mode == "swap":
            return next(iter(self.restores), None)
        return next((row.address for row in self.table if row.exceeds(row.free)), None)

    @property
    def created(self) -> tuple[str, ...]:
        """Operations that, fed the same inputs, answer differently (lockstep)."""
        return tuple(row.address for row in self.table if row.exceeds(row.created))

    @property
    def amplified(self) -> tuple[str, ...]:
        """Operations that multiplied the error that reached them, strongest first."""
        growing = [row for row in self.table if (row.amplification or 0.0) > 1.0]
        growing.sort(key=lambda row: -(row.amplification or 0.0))
        return tuple(row.address for row in growing)

    @property
    def restores(self) -> tuple[str, ...]:
        """Operations whose exchange alone gives model a's token, widest margin first (swap)."""
        swaps = [(row.swap, row.address) for row in self.table if row.swap is not None]
        found = [(swap.margin, address) for swap, address in swaps if swap.restored]
        return tuple(address for _, address in sorted(found, key=lambda pair: -pair[0]))

    def row(self, address: str) -> Row:
        """The row of one address. Raises KeyError for one that was not compared."""
        for row in self.table:
            if row.address == address:
                return row
        raise KeyError(f"{address} was not compared")

    def to_json(self) -> dict[str, Any]:
        """Everything above as JSON holds it: rows as dicts, non-finite numbers as strings."""
        found = asdict(self) | {
            "first": self.first,
            "created": self.created,
            "amplified": self.amplified,
            "restores": self.restores,
        }
        rows = zip(found["table"], self.table, strict=True)
        found["table"] = [row | {"amplification": of.amplification} for row, of in rows]
        return _plain(found)  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        """The finding in one line; `print` shows the operations."""
        return f"<Divergence {self._headline()}>"

    def __str__(self) -> str:
        """The finding, and a line for each operation that differs."""
        meaning = [f"meaning: {difference}" for difference in self.meaning]
        return "\n".join([*meaning, self._headline(), *_lines(self)])

    def _repr_html_(self) -> str:
        """The finding in a notebook, with the operations that differ."""
        rows: list[tuple[notebook.Cell, ...]] = []
        for row in self.table:
            differs = row.exceeds(row.free) or row.exceeds(row.created) or row.swap is not None
            if differs and len(rows) < _SHOWN:
                free, created = (None if d is None else d.error for d in (row.free, row.created))
                rows.append((row.name, free, created, row.amplification, row.violation or ""))
        columns = ("operation", "free", "created", "gain", "what is wrong")
        counts = f"{len(rows)} of {len(self.table)} operations shown"
        return notebook.output(
            notebook.line(self._headline(), "title"),
            notebook.line(counts, "soft"),
            notebook.table(columns, rows, words=(4,)),
        )

    def _headline(self) -> str:
        if self.mode == "swap":
            if self.token_a == self.token_b:
                return f"swap: both choose token {self.token_a} at position {self.position}"
            names = (self.row(address).name for address in self.restores)
            found = ", ".join(names) or "no single operation"
            return f"swap: {found} restores token {self.token_a} (b chose {self.token_b})"
        if self.first is None:
            return f"{self.mode}: no operation of {len(self.table)} differs"
        first = self.row(self.first)
        by = first.judge
        if self.mode == "free":
            return f"free: the runs first differ at {first.name} (by {by})"
        count = len(self.created)
        also = f" and by {count - 1} more operations" if count > 1 else ""
        return f"lockstep: the difference is created by {first.name}{also} (by {by})"


def _lines(found: Divergence) -> list[str]:
    lines = [f"{'operation':34}{'free':>10}{'created':>10}{'gain':>8}  token"]
    for row in found.table:
        if not (row.exceeds(row.free) or row.exceeds(row.created) or row.swap):
            continue
        cells = [
            f"{d.error:10.2e}" if d is not None else f"{'':10}" for d in (row.free, row.created)
        ]
        gain = f"{row.amplification:8.2f}" if row.amplification is not None else " " * 8
        token = f"  {row.swap.token}" if row.swap is not None else ""
        broken = f"  {row.violation}" if row.violation else ""
        lines.append(f"{row.name:34}{cells[0]}{cells[1]}{gain}{token}{broken}".rstrip())
    return lines


def _plain(x: Any) -> Any:
    if isinstance(x, dict):
        return {key: _plain(value) for key, value in x.items()}
    if isinstance(x, tuple | list):
        return [_plain(value) for value in x]
    if isinstance(x, float) and not math.isfinite(x):
        return str(x)
    return x
