"""Prices of cached tokens, as data."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Prices:
    """The charges of a provider. Raises ValueError for a number that cannot be a price.

    Attributes:
        input, output: Dollars for a million tokens of a prompt and of an answer.
        read, write: Of a token that comes from the cache or is put there, in multiples of `input`.
        minimum: Tokens below which nothing is kept.
        ttl: Seconds for which a prompt is kept after it was last used.
    """

    input: float
    output: float
    read: float
    write: float
    minimum: int
    ttl: float

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"{field.name} = {value!r}: expected a number")
            if not 0 <= value < math.inf:
                raise ValueError(f"{field.name} = {value}: expected a finite number from 0 on")


def read_prices(name: str) -> Prices:
    """Returns the shipped prices of this name, or the one table of a TOML file.

    Raises FileNotFoundError for neither, and ValueError naming what is wrong with a file.
    """
    shipped = tomllib.loads(files(__package__).joinpath("prices.toml").read_text("utf-8"))
    if name in shipped:
        return Prices(**shipped[name])
    path = Path(name)
    if not path.is_file():
        raise FileNotFoundError(f"prices: {name} is no file, and shipped are {', '.join(shipped)}")
    try:
        found = tomllib.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    expected = {field.name for field in fields(Prices)}
    if found.keys() != expected:
        raise ValueError(f"{path}: expected {', '.join(sorted(expected))}; got {sorted(found)}")
    return Prices(**found)


def share_saved(uses: int, prices: Prices) -> float:
    """Returns the share of the price of a prefix that is saved by keeping it for so many uses.

    The first use writes it and the others read it: 1 - (write + read (n - 1)) / n. Below 0 where it
    is used once. Raises ValueError for no use.
    """
    if uses < 1:
        raise ValueError(f"uses = {uses}: expected at least one")
    return 1 - (prices.write + prices.read * (uses - 1)) / uses
