"""Two models run side by side over the addresses both have: free and lockstep."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from ..addresses import Addressable, Site
from .difference import difference, same_bits, worst
from .judge import JudgeChoice, contract_judge, judge_name, relative_tolerance
from .plain_run import plain_logits, require_unmoved
from .report import Row
from .stream import Step, Stream

Sites = Mapping[str, Site]


def common_addresses(a: Addressable, b: Addressable) -> list[str]:
    """Returns the addresses that both have, in b's order; raises ValueError if there are none."""
    of_a = set(a.op_addresses)
    common = [address for address in b.op_addresses if address in of_a]
    if not common:
        raise ValueError("the two models have no operation address in common")
    return common


def common_sites(a: Addressable, b: Addressable) -> tuple[Sites, Sites]:
    """Each model's sites at their common addresses, in b's order."""
    addresses = common_addresses(a, b)
    return {x: a.site(x) for x in addresses}, {x: b.site(x) for x in addresses}


def run_free(
    a: Addressable, b: Addressable, tokens: torch.Tensor, choice: JudgeChoice
) -> list[Row]:
    """Each model on its own: the error each aligned activation carries."""
    sites_a, sites_b = common_sites(a, b)
    judge = contract_judge(choice)
    comparison = _Comparison(sites_a, sites_b, choice)
    plain_a, plain_b = plain_logits(a, tokens, "model_a"), plain_logits(b, tokens, "model_b")
    with Stream(a, tokens, sites_a, judge) as pass_a, Stream(b, tokens, sites_b, judge) as pass_b:
        rows = [comparison.row(x, pass_a.take(x), pass_b.take(x)) for x in sites_b]
        require_unmoved(plain_a, pass_a.finish(), "model_a")
        require_unmoved(plain_b, pass_b.finish(), "model_b")
    return rows


def run_lockstep(
    a: Addressable, b: Addressable, tokens: torch.Tensor, choice: JudgeChoice
) -> list[Row]:
    """b twice: on its own, and with every result replaced by a's, so that each operation starts
    from a's values (in b's format) and shows only the difference it creates itself."""
    rows: dict[str, Row] = {}
    sites_a, sites_b = common_sites(a, b)
    judge = contract_judge(choice)
    comparison = _Comparison(sites_a, sites_b, choice)
    plain_a, plain_b = plain_logits(a, tokens, "model_a"), plain_logits(b, tokens, "model_b")

    def compare(site: Site, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
        step_a, free_b = pass_a.take(site.address), pass_b.take(site.address)
        value = site.view(result).detach()
        fed_b = Step(None, value, judge(site, args, kwargs, value))
        row = comparison.row(site.address, step_a, free_b, fed_b)
        rows[site.address] = row
        if same_bits(step_a.value, value):
            return result
        return site.restore(step_a.value, result)

    with (
        Stream(a, tokens, sites_a, judge) as pass_a,
        Stream(b, tokens, sites_b) as pass_b,
        following(b, sites_b, compare),
    ):
        b(tokens)
        require_unmoved(plain_a, pass_a.finish(), "model_a")
        require_unmoved(plain_b, pass_b.finish(), "model_b")
    return [rows[address] for address in sites_b]


Compare = Callable[[Site, tuple[Any, ...], dict[str, Any], Any], Any]


@contextmanager
def following(model: Addressable, sites: Sites, compare: Compare) -> Iterator[None]:
    """Calls compare(site, args, kwargs, result) after each operation of this thread's pass, and
    goes on with what it returns."""
    thread = threading.current_thread()

    def visit(site: Site, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        # A stream of the same model runs in another thread.
        if threading.current_thread() is not thread:
            return result
        return compare(site, args, kwargs, result)

    with ExitStack() as stack:
        for address, site in sites.items():
            stack.enter_context(model.override(address, partial(visit, site)))
        stack.enter_context(torch.no_grad())
        yield


class _Comparison:
    """Makes the rows. Most operands are results of operations shortly before, in both models: the
    last few comparisons are remembered by where their tensors lie."""

    def __init__(self, sites_a: Sites, sites_b: Sites, choice: JudgeChoice) -> None:
        self._sites_a, self._sites_b, self._choice = sites_a, sites_b, choice
        self._recent: deque[tuple[torch.Tensor, torch.Tensor, float]] = deque(maxlen=16)

    def row(self, address: str, step_a: Step, free_b: Step, fed_b: Step | None = None) -> Row:
        """`fed_b`: what b's operation makes of a's inputs, where that was asked."""
        a, b = self._sites_a[address], self._sites_b[address]
        name = judge_name(self._choice, a, b)
        entering = self._entering(step_a, free_b)
        try:
            free = difference(step_a.value, free_b.value)
        except ValueError as error:
            raise ValueError(
                f"the two models' results at {address} cannot be compared: {error}"
            ) from error
        self._recent.appendleft((step_a.value, free_b.value, free.error))
        created = None
        if fed_b is not None:
            unmoved = same_bits(fed_b.value, free_b.value)
            created = free if unmoved else difference(step_a.value, fed_b.value)
        broken = (step_a.violation, (fed_b or free_b).violation)
        row = Row(
            address,
            b.contract.op,
            name,
            tolerance=relative_tolerance(a.contract, b.contract) if name == "relative" else None,
            free=free,
            created=created,
            entering=entering,
            violation="; ".join(text for text in broken if text) or None,
            unit=b.unit,
        )
        if fed_b is None or not row.exceeds(created):
            return row
        return replace(row, at=worst(step_a.value, fed_b.value))

    def _entering(self, step_a: Step, step_b: Step) -> float | None:
        if step_a.operands is None or step_b.operands is None:
            return None
        pairs = zip(step_a.operands, step_b.operands, strict=True)
        return max((self._error(x, y) for x, y in pairs), default=None)

    def _error(self, x: torch.Tensor, y: torch.Tensor) -> float:
        """The relative error; the same for any arrangement of the same elements."""
        for known_x, known_y, error in self._recent:
            if _is_same(x, known_x) and _is_same(y, known_y):
                return error
        error = difference(x, y).error
        self._recent.appendleft((x, y, error))
        return error


def _is_same(x: torch.Tensor, y: torch.Tensor) -> bool:
    return x.data_ptr() == y.data_ptr() and x.numel() == y.numel() and x.dtype == y.dtype
