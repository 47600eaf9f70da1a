"""Operations by address: all that precision/ knows of a model.

An address names one operation of a forward pass, such as "blocks.7.mlp.down". Whoever offers these
addresses, and for each a `Site`, can have faults injected, be compared op by op with another
implementation of the same addresses, and be checked against its contracts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from .contract import PrecisionContract

Replacement = Callable[..., Any]
"""Called as fn(original, *args, **kwargs) in place of original(*args, **kwargs)."""


class UnobservedError(RuntimeError):
    """A pass whose operations cannot all be seen, or that seeing changes: nothing is concluded."""


@dataclass(frozen=True)
class Site:
    """Puts one operation of a model in terms of its contract.

    Attributes:
        address: Where it stands.
        contract: What it promises.
        implementation: Whose arithmetic it is. Two operations of one implementation and contract
            are expected to agree in every bit.
        bind: Takes the operation's own arguments; returns the contract's inputs by name. Raises
            NotImplementedError where the implementation shows results only.
        operands: Takes the operation's own arguments; returns the activations among them, without
            touching weights. None where the implementation shows results only, or starts from other
            activations than an unfused one does.
        view: Takes what the operation returns; returns it shaped as the contract's output, which is
            the same for every implementation: rows [T, n], or heads [H, T, d_head].
        restore: Takes an output so shaped, and a result of the operation; returns the output in
            that result's form (shape, dtype, whatever else comes with it).
        unit: Where operations that are told apart elsewhere are fused into this one, whose they are
            and who fused them: "blocks.3.attn, one unit: sdpa".
    """

    address: str
    contract: PrecisionContract
    implementation: str
    bind: Callable[..., dict[str, Any]]
    operands: Callable[..., tuple[torch.Tensor, ...]] | None
    view: Callable[[Any], torch.Tensor]
    restore: Callable[[torch.Tensor, Any], Any]
    unit: str | None = None


class Addressable(Protocol):
    """A model, or one operation, whose arithmetic can be replaced address by address."""

    @property
    def op_addresses(self) -> Sequence[str]:
        """Every operation of a pass, in order."""
        ...

    def override(self, address: str, fn: Replacement, /) -> AbstractContextManager[None]:
        """Calls fn(original, *args, **kwargs) in place of one operation in a `with` block.

        A later override of the same address wraps the earlier one. Raises KeyError, with near
        matches, for an address that is none.
        """
        ...

    def site(self, address: str) -> Site:
        """The operation in terms of its contract. Raises KeyError as `override` does."""
        ...

    def __call__(self, tokens: Any, /) -> Any:
        """Runs the pass; for a model, int64 [P] or [B, P] to logits [B, P, vocabulary]."""
        ...
