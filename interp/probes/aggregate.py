"""Aggregates: the scores of tokens become the score of a conversation."""

from __future__ import annotations

from dataclasses import dataclass

KINDS = ("mean", "last", "max", "rolling", "ema", "softmax")
"""In the order of their codes in csrc/spec/fold.h."""

_DEFAULTS = {"rolling": "16", "ema": "0.1"}


@dataclass(frozen=True)
class Aggregate:
    """A fold of token scores in token order.

    Attributes:
        kind: "mean"; "last" token; "max"; "rolling": the largest mean of `window` tokens in a row;
            "ema": the largest exponential moving average; "softmax": the heads' attention, of
            attention probes only.
        window: Tokens of a rolling mean.
        weight: What a new token weighs in a moving average.
    """

    kind: str
    window: int = 1
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"aggregate {self.kind!r}: expected one of {', '.join(KINDS)}")
        if not 1 <= self.window <= 1 << 20:
            raise ValueError(f"aggregate {self.kind}: window = {self.window}: expected 1 to 2^20")
        if not 0 < self.weight <= 1:
            raise ValueError(f"aggregate {self.kind}: weight = {self.weight}: expected (0, 1]")

    @classmethod
    def parse(cls, text: str) -> Aggregate:
        """Reads "mean", "rolling:16", "ema:0.1" and the like; without a number it is these.

        Raises ValueError for what is none of them.
        """
        kind, colon, number = text.partition(":")
        if colon and kind not in _DEFAULTS:
            raise ValueError(f"aggregate {text!r}: {kind} takes no number")
        try:
            if kind == "rolling":
                return cls(kind, window=int(number or _DEFAULTS[kind]))
            if kind == "ema":
                return cls(kind, weight=float(number or _DEFAULTS[kind]))
        except ValueError as error:
            raise ValueError(f"aggregate {text!r}: {error}") from error
        return cls(kind)

    def __str__(self) -> str:
        number = {"rolling": f":{self.window}", "ema": f":{self.weight}"}
        return self.kind + number.get(self.kind, "")

    @property
    def code(self) -> int:
        """The kernel's code for it."""
        return KINDS.index(self.kind)
