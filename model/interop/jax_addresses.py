"""A Llama in JAX under the addresses of bitlens.

A plain pass is one compiled program. An observed one runs the same operations as programs of their
own, so that each can be seen, given other inputs and replaced. Where XLA fuses, that is another
program: only where its logits have the plain one's bits is anything concluded from it.

Tensor names: P positions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch

from ...precision.addresses import Site
from ...precision.divergence.difference import same_bits
from ..hooks.overrides import Override, OverrideRegistry, op_addresses
from ..weights.checkpoint import Checkpoint
from .jax_llama import forward
from .jax_programs import Programs
from .jax_sites import JaxSites


class JaxAddresses:
    """The model as an `Addressable` (precision/addresses.py)."""

    def __init__(self, checkpoint: Checkpoint, dtype: torch.dtype, programs: Programs) -> None:
        """Takes the model that `programs` computes to be this checkpoint's, in a dtype."""
        self.config = checkpoint.config
        self._programs, self._sites = programs, JaxSites(checkpoint, dtype)
        self._registry = OverrideRegistry(op_addresses(self.config))

    @property
    def op_addresses(self) -> list[str]:
        """Every operation of a pass, in order."""
        return list(self._registry.addresses)

    @contextmanager
    def override(self, address: str, fn: Override, /) -> Iterator[None]:
        """See `Addressable.override`."""
        with self._registry.added(address, fn):
            yield

    def site(self, address: str) -> Site:
        """See `Addressable.site`."""
        self._registry.check(address)
        return self._sites.site(address)

    def __call__(self, tokens: torch.Tensor, /) -> torch.Tensor:
        """Returns logits [1, P, V] of tokens [P] or [1, P]. Raises ValueError for more sequences
        at once."""
        tokens_P = _one_sequence(tokens)
        installed = self._registry.installed
        if not installed:
            return self._programs.logits(tokens_P)[None]

        def op(address: str, *inputs: torch.Tensor) -> torch.Tensor:
            original = partial(self._programs.operation, address)
            override = installed.get(address)
            return original(*inputs) if override is None else override(original, *inputs)

        logits_PV: torch.Tensor = forward(self.config.n_layers, op, tokens_P)
        return logits_PV[None]

    def fusion(self, tokens_P: torch.Tensor) -> str | None:
        """Returns how the whole program differs from its operations one by one, over some tokens;
        None where all of them have its bits."""
        whole = self._programs.watched(tokens_P)
        if not same_bits(whole["unembed"], self._programs.logits(tokens_P)):
            return "returning its operations' results changes the logits of the whole program"
        found: list[str] = []

        def op(address: str, *inputs: torch.Tensor) -> torch.Tensor:
            alone = self._programs.operation(address, *inputs)
            if not same_bits(alone, whole[address]):
                found.append(address)
            return alone

        forward(self.config.n_layers, op, tokens_P)
        return f"{found[0]} has other bits in the whole program than alone" if found else None


def _one_sequence(tokens: torch.Tensor) -> torch.Tensor:
    tokens_BP = tokens[None] if tokens.ndim == 1 else tokens
    if len(tokens_BP) != 1:
        raise ValueError(f"{len(tokens_BP)} sequences: this model takes one at a time")
    return tokens_BP[0]
