"""A model unobserved: what an observed pass must equal before anything is concluded from it."""

from __future__ import annotations

from typing import Any

import torch

from ..addresses import Addressable, UnobservedError
from .difference import same_bits


@torch.no_grad()
def plain_logits(model: Addressable, tokens: torch.Tensor, name: str) -> torch.Tensor:
    """Returns the logits of a plain pass, made twice.

    Raises UnobservedError if the two differ in a bit: what a nondeterministic model does in an
    observed pass says nothing of what it does in another.
    """
    first, second = _run(model, tokens), _run(model, tokens)
    if not same_bits(first, second):
        raise UnobservedError(
            f"{name} is not deterministic: two plain passes over the same tokens differ, so "
            "nothing can be concluded; look for dropout, random numbers or state kept from passes"
        )
    return first


def require_unmoved(plain: torch.Tensor, observed: Any, name: str) -> None:
    """Raises UnobservedError unless an observed pass gave the plain one's bits."""
    if not same_bits(plain, observed.detach()):
        raise UnobservedError(
            f"{name}: watching its operations changes its logits, so other code runs when nobody "
            "watches, and nothing can be concluded; look for compiled code and for hooks that "
            "count or look for others"
        )


def _run(model: Addressable, tokens: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = model(tokens).detach()
    return logits
