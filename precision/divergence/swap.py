"""One operation of model b exchanged at a time: which of them decides the token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch

from ..addresses import Addressable, Site
from .difference import same_bits
from .judge import judge_name
from .plain_run import plain_logits, require_unmoved
from .report import Row, Swap
from .side_by_side import common_addresses, common_sites, following
from .stream import Stream

Replacement = Literal["a", "upcast"]


@torch.no_grad()
def run_swap(
    a: Addressable,
    b: Addressable,
    tokens: torch.Tensor,
    position: int,
    replacement: Replacement,
    only: Sequence[str] | None,
) -> tuple[list[Row], int, int]:
    """A row for each operation exchanged, and the tokens of a and of b.

    With "a", the operation is a's, on b's inputs, rounded to b's format; with "upcast", its real
    value on b's inputs, rounded once. Nothing is exchanged where both already choose one token.
    """
    token_a = _token(plain_logits(a, tokens, "model_a"), position)
    plain_b = plain_logits(b, tokens, "model_b")
    token_b = _token(plain_b, position)
    if token_a == token_b:
        return [], token_a, token_b
    addresses = common_addresses(a, b) if replacement == "a" else list(b.op_addresses)
    wanted = addresses if only is None else [x for x in addresses if x in set(only)]
    found = _exchanged(a, b, tokens, set(wanted), plain_b) if replacement == "a" else None
    rows = []
    for address in wanted:
        site = b.site(address)
        if found is None:
            put: Callable[..., Any] = partial(_upcast, site)
        elif address in found:
            put = partial(_put, found.pop(address))
        else:  # the same bits as b's own
            continue
        with b.override(address, put):
            logits = b(tokens)
        judge = judge_name("auto", a.site(address) if found is not None else site, site)
        swap = _swap(logits, position, token_a)
        rows.append(Row(address, site.contract.op, judge, swap=swap, unit=site.unit))
    return rows, token_a, token_b


def _exchanged(
    a: Addressable,
    b: Addressable,
    tokens: torch.Tensor,
    wanted: set[str],
    plain_b: torch.Tensor,
) -> dict[str, Any]:
    """a's results on b's inputs in b's form, where they differ from b's own.

    a follows b as b follows a in lockstep. Up to the operation exchanged b's pass is the one it
    makes on its own, so all of them come from one pass; they are held at the same time.
    """
    held: dict[str, Any] = {}
    sites_a, sites_b = common_sites(a, b)

    def compare(site: Site, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
        step, mine = pass_b.take(site.address), site.view(result).detach()
        if site.address in wanted:
            site_b = sites_b[site.address]
            exchanged = site_b.restore(mine, step.result)
            if not same_bits(site_b.view(exchanged), step.value):
                held[site.address] = exchanged
        return result if same_bits(mine, step.value) else site.restore(step.value, result)

    with Stream(b, tokens, sites_b) as pass_b, following(a, sites_a, compare):
        a(tokens)
        require_unmoved(plain_b, pass_b.finish(), "model_b")
    return held


def _put(value: Any, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return value


def _upcast(site: Site, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    from ..exact import reference
    from ..operations import UNITS

    if site.contract.op in UNITS:
        raise ValueError(
            f"{site.address} is several operations in one, whose real value is not at hand: use "
            'replacement="a", or leave it out of `addresses`'
        )
    exact = reference(site.contract.op, site.bind(*args, **kwargs)).value
    return site.restore(exact, original(*args, **kwargs))


def _token(logits: torch.Tensor, position: int) -> int:
    return int(_at(logits, position).argmax())


def _swap(logits: torch.Tensor, position: int, token_a: int) -> Swap:
    row = _at(logits, position).double()
    token = int(row.argmax())
    others = row.clone()
    others[token_a] = -torch.inf
    return Swap(token, float(row[token_a] - others.max()), token == token_a)


def _at(logits: torch.Tensor, position: int) -> torch.Tensor:
    return logits.reshape(-1, logits.shape[-1])[position]
