"""What an audit's lockstep names when one operation of a model computes a public bug."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch

from ....model.transformer import HookedTransformer
from ....precision.addresses import Site
from ....precision.divergence import first_divergence
from ..implementations import tests_module
from .bug import Implementation, PublicBug

ADDRESSES = {
    "rotary": "blocks.0.attn.rope_q",
    "attention": "blocks.0.attn.attention",
    "norm": "blocks.0.ln1",
    "matmul": "blocks.0.mlp.down",
}
_TOKENS = 16


def audited(bug: PublicBug) -> bool | None:
    """Whether lockstep names the operation for the bug, and nothing for its twin.

    None where the models have no such operation. By contract, on one random model of Gemma 2's
    kind (windows, soft caps, grouped queries).
    """
    if bug.address is None:
        return None
    address = ADDRESSES[bug.address]
    return _named(bug.wrong, bug, address) == (address,) and not _named(bug.right, bug, address)


def _named(fn: Implementation, bug: PublicBug, address: str) -> tuple[str, ...]:
    reference, suspect = _models(bug.contract.storage)
    tokens = torch.arange(_TOKENS) * 7 % 250
    with suspect.override(address, partial(_computed, fn, suspect.site(address))):
        found = first_divergence(reference, suspect, tokens, "lockstep", judge="contract")
    return found.created


def _computed(
    fn: Implementation, site: Site, original: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    inputs = site.bind(*args, **kwargs)
    if inspect.signature(fn).parameters.keys().isdisjoint({"inputs"}):
        taken = inspect.signature(fn).parameters
        inputs = {name: value for name, value in inputs.items() if name in taken}
    inputs = {n: x.detach() if isinstance(x, torch.Tensor) else x for n, x in inputs.items()}
    return site.restore(fn(**inputs), original(*args, **kwargs))


@cache
def _models(policy: str) -> tuple[HookedTransformer, HookedTransformer]:
    make = tests_module("random_models").random_model
    shape = {"n_heads": 4, "n_key_value_heads": 2}
    return tuple(make("gemma2", changes=shape, dtype=policy) for _ in range(2))  # type: ignore[return-value]
