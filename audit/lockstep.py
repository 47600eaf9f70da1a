"""Every operation of B on A's inputs: the error it carries and creates, and its contract's verdict.

Three passes stand side by side (precision/divergence): A on its own, B on its own, and B with every
result replaced by A's, so that each of its operations starts from A's values in B's format.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ..precision.addresses import Site
from ..precision.divergence.plain_run import require_unmoved
from ..precision.divergence.side_by_side import common_sites, following
from ..precision.divergence.stream import Stream
from .judging import Tally, UlpErrors, Worst
from .paths import ModelPath
from .result import OpFinding, UlpHistogram
from .row_sample import sample_rows

Progress = Callable[[int, int], None]


@dataclass
class _Gap:
    """Squared 2-norms of differences and of what they are relative to, over all prompts."""

    free: float = 0.0
    created: float = 0.0
    size: float = 0.0

    def add(self, a: torch.Tensor, free: torch.Tensor, fed: torch.Tensor) -> None:
        reference = a.float()
        self.size += _square(reference)
        self.free += _square(free.float() - reference)
        self.created += _square(fed.float() - reference)

    @property
    def errors(self) -> tuple[float, float]:
        return _ratio(self.free, self.size), _ratio(self.created, self.size)


def _square(x: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(x)) ** 2


def _ratio(gap: float, size: float) -> float:
    if gap == 0:
        return 0.0
    return math.sqrt(gap / size) if size > 0 else math.inf


class Lockstep:
    """Collects prompt by prompt; `rows` of each operation's output a prompt meet its contract."""

    def __init__(self, a: ModelPath, b: ModelPath, *, rows: int, seed: int) -> None:
        self._a, self._b = a.model, b.model
        self._names = a.name, b.name
        self._rows = rows
        self._generator = torch.Generator().manual_seed(seed)
        self._sites_a, self._sites_b = common_sites(a.model, b.model)
        self._gaps = {address: _Gap() for address in self._sites_b}
        self._tallies: dict[str, Tally] = {}
        self._products: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}

    @torch.no_grad()
    def add(self, tokens_P: torch.Tensor, *, last: bool, progress: Progress | None = None) -> None:
        """Runs one prompt. `last` judges the products held back until now: enclosing one costs
        what its weights cost, whatever the number of rows."""
        done = 0
        plain_a, plain_b = self._a(tokens_P), self._b(tokens_P)

        def compare(site: Site, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
            nonlocal done
            mine = pass_a.take(site.address).value
            free, fed = own.take(site.address).value, site.view(result).detach()
            self._gaps[site.address].add(mine, free, fed)
            self._judge(site, site.bind(*args, **kwargs), fed, last)
            done += 1
            if progress is not None:
                progress(done, len(self._sites_b))
            return site.restore(mine, result)

        with (
            Stream(self._a, tokens_P, self._sites_a) as pass_a,
            Stream(self._b, tokens_P, self._sites_b) as own,
            following(self._b, self._sites_b, compare),
        ):
            self._b(tokens_P)
            require_unmoved(plain_a, pass_a.finish(), self._names[0])
            require_unmoved(plain_b, own.finish(), self._names[1])

    def _judge(self, site: Site, inputs: dict[str, Any], fed: torch.Tensor, last: bool) -> None:
        contract = site.contract
        tally = self._tallies.setdefault(site.address, Tally(site.address, contract))
        inputs, y = sample_rows(contract.op, inputs, fed, self._rows, self._generator)
        if contract.op == "matmul" and inputs["a"].ndim == 2:
            held = self._products.setdefault(site.address, [])
            held.append((inputs["a"], y))
            if not last:
                return
            inputs["a"] = torch.cat([a for a, _ in held])
            y = torch.cat([y for _, y in held])
            held.clear()
        tally.add(inputs, y)

    def findings(self) -> tuple[OpFinding, ...]:
        """One an address, in B's order."""
        return tuple(self._finding(address) for address in self._sites_b)

    def worst(self) -> Worst | None:
        """The violation that lies farthest outside, else the largest utilisation."""
        found = [tally.worst for tally in self._tallies.values() if tally.worst is not None]
        return max(found, key=lambda worst: (worst.violates, worst.utilisation), default=None)

    def histograms(self) -> tuple[UlpHistogram, ...]:
        """One for each kind of operation."""
        merged: dict[str, tuple[UlpErrors, str]] = {}
        for address, tally in self._tallies.items():
            name = tally.contract.output_format.name
            errors, _ = merged.setdefault(_kind(address), (UlpErrors(), name))
            errors.merge(tally.errors)
        return tuple(
            errors.histogram(kind, name) for kind, (errors, name) in merged.items() if errors.n
        )

    def _finding(self, address: str) -> OpFinding:
        free, created = self._gaps[address].errors
        tally = self._tallies[address]
        return OpFinding(
            address=address,
            layer=_layer(address),
            kind=_kind(address),
            contract=tally.contract,
            values=tally.values,
            outside=tally.outside,
            unclaimed=tally.unclaimed,
            utilisation=tally.utilisation,
            free_error=free,
            created_error=created,
            bias_ulp=tally.errors.bias,
            bias_z=tally.errors.z,
            worst_ulp=tally.max_ulp,
            where=tally.where,
            reason=tally.reason,
            unit=self._sites_b[address].unit,
        )


def _layer(address: str) -> int | None:
    parts = address.split(".")
    return int(parts[1]) if parts[0] == "blocks" else None


def _kind(address: str) -> str:
    return address.split(".", 2)[2] if address.startswith("blocks.") else address
