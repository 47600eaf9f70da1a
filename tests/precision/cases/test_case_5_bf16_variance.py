"""Case 5, sglang#27540: RMSNorm sums the variance in bf16.

On gemma-4-31B the cosine to Hugging Face fell to 0.5 in the last layers. Here every norm of
SmolLM2 does it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest
import torch
from bitlens import HookedTransformer
from bitlens.precision.divergence import first_divergence
from bitlens.precision.oracle import check
from support.conventional import assert_close
from support.replaced_kernels import replaced

PROMPT = "The capital of France is Paris, and the capital of Japan is"


def norm_with_bf16_variance(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    low = x.bfloat16()
    variance = (low * low).mean(-1, keepdim=True)
    return (x.float() * torch.rsqrt(variance.float() + eps) * weight.float()).bfloat16()


@pytest.fixture(scope="module")
def norms(models: tuple[HookedTransformer, HookedTransformer]) -> list[str]:
    return [at for at in models[0].op_addresses if at.split(".")[-1] in ("ln1", "ln2", "ln_final")]


@pytest.fixture
def faulty(
    models: tuple[HookedTransformer, HookedTransformer], norms: list[str]
) -> Iterator[HookedTransformer]:
    with replaced(models[1], norms, norm_with_bf16_variance):
        yield models[1]


def activations(model: HookedTransformer, norms: list[str]) -> dict[str, tuple[Any, torch.Tensor]]:
    """Inputs and output of every norm in one run."""
    seen = {}

    def record(address: str, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        site = model.site(address)
        seen[address] = (site.bind(*args, **kwargs), site.view(result))
        return result

    with ExitStack() as stack:
        for address in norms:
            stack.enter_context(model.override(address, partial(record, address)))
        model(PROMPT)
    return seen


def test_the_conventional_test_passes_at_every_norm(
    models: tuple[HookedTransformer, HookedTransformer], norms: list[str]
) -> None:
    for inputs, expected in activations(models[0], norms).values():
        assert_close(norm_with_bf16_variance(**inputs), expected)


def test_ours_fails_at_every_norm(
    models: tuple[HookedTransformer, HookedTransformer], norms: list[str]
) -> None:
    model = models[0]
    for address, (inputs, honest) in activations(model, norms).items():
        contract = model.site(address).contract
        assert check(honest, inputs, contract).ok
        verdict = check(norm_with_bf16_variance(**inputs), inputs, contract)
        assert not verdict.ok
        assert "rms_norm[" in verdict.reason


def test_lockstep_names_exactly_the_norms(
    models: tuple[HookedTransformer, HookedTransformer],
    faulty: HookedTransformer,
    norms: list[str],
) -> None:
    tokens = models[0].to_tokens(PROMPT)[0]
    found = first_divergence(models[0], faulty, tokens, mode="lockstep")
    assert found.first == "blocks.0.ln1"
    assert list(found.created) == norms
