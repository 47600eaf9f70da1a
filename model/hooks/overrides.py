"""Operations by address, and what callers put in their place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

from ..config import ModelConfig
from .here import here, put_here
from .registry import unknown_name

Override = Callable[..., Any]
"""Called as fn(original, *args, **kwargs) in place of original(*args, **kwargs)."""

_BLOCK = (
    "ln1",
    "attn.q",
    "attn.k",
    "attn.v",
    "attn.q_norm",
    "attn.k_norm",
    "attn.rope_q",
    "attn.rope_k",
    "attn.attention",
    "attn.o",
    "ln1_post",
    "resid_mid",
    "ln2",
    "mlp.gate",
    "mlp.up",
    "mlp.act",
    "mlp.down",
    "ln2_post",
    "resid_post",
)


def op_addresses(config: ModelConfig) -> list[str]:
    """Every operation of a pass, in order."""
    absent = set() if config.qk_norm else {"attn.q_norm", "attn.k_norm"}
    absent |= set() if config.sandwich_norms else {"ln1_post", "ln2_post"}
    block = [name for name in _BLOCK if name not in absent]
    inner = [f"blocks.{i}.{name}" for i in range(config.n_layers) for name in block]
    last = [] if config.final_logit_softcap is None else ["soft_cap"]
    return ["embed", *inner, "ln_final", "unembed", *last]


@dataclass(frozen=True, eq=False)
class _Stacks:
    """The overrides of `with` blocks by address: each one, outermost first, and all as one."""

    each: Mapping[str, tuple[Override, ...]]
    as_one: Mapping[str, Override]

    def with_(self, address: str, fns: tuple[Override, ...]) -> _Stacks | None:
        """Returns these with others at an address; None where none is left at all."""
        each, as_one = {**self.each, address: fns}, dict(self.as_one)
        if fns:
            as_one[address] = reduce(_stacked, fns)
        else:
            del each[address]
            as_one.pop(address, None)
        return _Stacks(each, as_one) if each else None


_NONE = _Stacks({}, {})


class OverrideRegistry:
    """A model's operations, and what stands in their place where the caller runs."""

    def __init__(self, addresses: list[str]) -> None:
        self.addresses = addresses
        self._known = frozenset(addresses)

    @property
    def installed(self) -> Mapping[str, Override]:
        """Returns the functions that this context's `with` blocks installed, one an address."""
        return here(self, _NONE).as_one

    def check(self, address: str) -> None:
        """Raises KeyError with near matches for an address that is none."""
        if address not in self._known:
            raise unknown_name("operation", address, self.addresses)

    @contextmanager
    def added(self, address: str, fn: Override) -> Iterator[None]:
        """Installs fn for the passes that begin inside a `with` block, around what is there.

        Raises KeyError with near matches for an address that is none.
        """
        self.check(address)
        stacks = here(self, _NONE)
        put_here(self, stacks.with_(address, (*stacks.each.get(address, ()), fn)))
        try:
            yield
        finally:
            stacks = here(self, _NONE)
            fns = list(stacks.each.get(address, ()))
            # From the end: blocks may end in any order, and hold one function twice.
            for i in reversed(range(len(fns))):
                if fns[i] is fn:
                    del fns[i]
                    break
            put_here(self, stacks.with_(address, tuple(fns)))


def _stacked(first: Override, then: Override) -> Override:
    def both(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return then(partial(first, original), *args, **kwargs)

    return both
