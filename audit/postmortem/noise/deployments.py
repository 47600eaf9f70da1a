"""Deployments: a model and a sampler that answer requests, sound or with one fault."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from ....model.serving import long_context
from ....model.transformer import HookedTransformer
from ....precision import inject_fault
from ..experiment import FAULTS as SAMPLERS
from ..experiment import Filter

STRETCH = 4
"""The factor by which the wrong pools' contexts are longer."""

Serve = Callable[[HookedTransformer], AbstractContextManager[HookedTransformer]]


@dataclass(frozen=True)
class Deployment:
    """One way of answering.

    Attributes:
        name: For reports.
        serve: Gives the model that answers, for the length of a `with` block.
        sampler: Gives the candidates of the logits' shards.
    """

    name: str
    serve: Serve
    sampler: Filter


@contextmanager
def _as_it_is(model: HookedTransformer) -> Iterator[HookedTransformer]:
    yield model


@contextmanager
def _yarn(model: HookedTransformer) -> Iterator[HookedTransformer]:
    yield long_context(model, STRETCH * model.config.n_ctx, "yarn")


@contextmanager
def _other_base(model: HookedTransformer) -> Iterator[HookedTransformer]:
    yield long_context(model, STRETCH * model.config.n_ctx, "ntk")


@contextmanager
def _narrow_norm(model: HookedTransformer) -> Iterator[HookedTransformer]:
    layer = model.config.n_layers // 2
    with inject_fault(model, "low_precision_accumulator", at=f"blocks.{layer}.ln2"):
        yield model


_EXACT = SAMPLERS["fp32, no fault"]

SOUND = Deployment("as it is", _as_it_is, _EXACT)

FAULTS = (
    Deployment(
        "nucleus in two precisions",
        _as_it_is,
        SAMPLERS["excess precision, nucleus test"],
    ),
    Deployment(
        "top-k that loses tokens",
        _as_it_is,
        SAMPLERS["approximate top-k, tail lost"],
    ),
    Deployment("wrong RoPE base", _other_base, _EXACT),
    Deployment("another pool's RoPE", _yarn, _EXACT),
    Deployment("one norm sums narrowly", _narrow_norm, _EXACT),
)
"""The faults; the first two are the sampler's, the others the model's."""
