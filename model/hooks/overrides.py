"""Operations by address, and what callers put in their place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from ..config import ModelConfig
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


class OverrideRegistry:
    """The overrides installed on a model, one an address."""

    def __init__(self, addresses: list[str]) -> None:
        self.addresses = addresses
        self._known = frozenset(addresses)
        self.installed: dict[str, Override] = {}

    def check(self, address: str) -> None:
        """Raises KeyError with near matches for an address that is none."""
        if address not in self._known:
            raise unknown_name("operation", address, self.addresses)

    @contextmanager
    def added(self, address: str, fn: Override) -> Iterator[None]:
        """Installs fn for the length of a `with` block, around what is there already.

        Raises KeyError with near matches for an address that is none.
        """
        self.check(address)
        outer = self.installed.get(address)
        self.installed[address] = fn if outer is None else _stacked(outer, fn)
        try:
            yield
        finally:
            del self.installed[address]
            if outer is not None:
                self.installed[address] = outer


def _stacked(first: Override, then: Override) -> Override:
    def both(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return then(partial(first, original), *args, **kwargs)

    return both
