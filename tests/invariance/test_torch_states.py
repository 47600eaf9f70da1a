"""Torch's global and thread-local settings move no bit: what they change for a user's own tensors
does not reach those that kernels are handed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import torch
from bitlens.model import load
from bitlens.model.hooks.registry import HookPoint, same_bits
from bitlens.model.transformer import HookedTransformer
from support.random_models import random_checkpoint, random_model
from support.shared_model import Result, equal
from torch.overrides import TorchFunctionMode

TOKENS = torch.tensor([[1, 2, 3, 4, 5, 6, 7], [9, 8, 7, 6, 5, 4, 3]])
MASK = torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1]])
NAMES = ["llama", "gemma3"]
RESID = "blocks.1.hook_resid_pre"


class Passing(TorchFunctionMode):
    """Sees every call, as profilers and tracers do, and changes none."""

    calls = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        Passing.calls += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


STATES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "default dtype bf16": lambda: default_dtype(torch.bfloat16),
    "default dtype fp16": lambda: default_dtype(torch.float16),
    "default dtype fp64": lambda: default_dtype(torch.float64),
    "default device meta": lambda: torch.device("meta"),
    "inference_mode": torch.inference_mode,
    "no_grad": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "torch function mode": Passing,
}
IN_EFFECT: dict[str, Callable[[], bool]] = {
    "default dtype bf16": lambda: torch.empty(1).dtype is torch.bfloat16,
    "default dtype fp16": lambda: torch.empty(1).dtype is torch.float16,
    "default dtype fp64": lambda: torch.empty(1).dtype is torch.float64,
    "default device meta": lambda: torch.empty(1).device.type == "meta",
    "inference_mode": torch.is_inference_mode_enabled,
    "no_grad": lambda: not torch.is_grad_enabled(),
    "autocast": lambda: torch.is_autocast_enabled("cpu"),
    "torch function mode": lambda: torch.zeros(1).ndim == 1 and Passing.calls > 0,
}


def halve(tensor: torch.Tensor, *, hook: HookPoint) -> torch.Tensor:
    return tensor * 0.5


def everything(model: HookedTransformer, gradients: bool = True) -> Result:
    """Logits, loss, every activation, an edit, a cache, generation and gradients of a model."""
    logits, activations = model.run_with_cache(TOKENS, lambda name: True, attention_mask=MASK)
    found: dict[str, torch.Tensor] = {"logits": logits, **activations}
    found["loss"] = model(TOKENS, return_type="loss")
    found["edited"] = model.run_with_hooks(TOKENS, [("blocks.1.attn.hook_pattern", halve)])
    cache = model.new_cache(2)
    model(TOKENS[:, :3], kv_cache=cache)
    found["continued"] = model(TOKENS[:, 3:], kv_cache=cache)
    options: dict[str, Any] = {"max_new_tokens": 5, "capture": [RESID]}
    for name, more in {
        "greedy": {},
        "sampled": {"temperature": 0.9, "seed": 1, "top_p": 0.9, "top_k": 20},
    }.items():
        output = model.generate(TOKENS, attention_mask=MASK, **options, **more)
        found |= {f"{name} tokens": output.tokens, f"{name} {RESID}": output.captured[RESID]}
    if gradients:
        _, kept = model.run_with_cache(TOKENS, return_type="loss", incl_bwd=True)
        found |= {f"{name} with gradients": x for name, x in kept.items()}
    return {name: x.detach().clone() for name, x in found.items()}


def without_gradients(found: Result) -> Result:
    return {name: x for name, x in found.items() if not name.endswith("with gradients")}


def check(state: str, name: str, dtype: str, backend: str = "native") -> None:
    """A model loaded before a state, or in it, has in it the bits that it has outside."""
    checkpoint = random_checkpoint(name)
    gradients = dtype != "hf_bf16" or backend == "torch"
    outside = load(checkpoint, dtype=dtype, backend=backend)
    expected = everything(outside, gradients)
    with STATES[state]():
        assert IN_EFFECT[state]()
        gradients_here = gradients and torch.is_grad_enabled()
        inside = load(checkpoint, dtype=dtype, backend=backend)
        for model in (outside, inside):
            found = everything(model, gradients_here)
            assert equal(found, expected if gradients_here else without_gradients(expected))
    assert equal(everything(inside, gradients), expected)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("backend", ["native", "torch"])
def test_a_state_of_torch_moves_no_bit(state: str, backend: str) -> None:
    torch.set_num_threads(1)
    check(state, "llama", "fp32", backend)


@pytest.mark.nightly
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "hf_bf16"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("backend", ["native", "torch"])
def test_no_state_moves_a_bit_of_any_model(state: str, name: str, dtype: str, backend: str) -> None:
    check(state, name, dtype, backend)


@pytest.mark.nightly
def test_a_compiled_model_has_the_same_bits() -> None:
    """Dynamo breaks its graph at every call of the core, and leaves no arithmetic to a compiler."""
    model = random_model("llama")
    expected = model(TOKENS)
    compiled = torch.compile(model, backend="eager")
    assert same_bits(compiled(TOKENS), expected)
    torch._dynamo.reset()  # or the frames compiled above are taken, breaks and all
    with pytest.raises(torch._dynamo.exc.Unsupported):
        torch.compile(model, backend="eager", fullgraph=True)(TOKENS)


def test_control_the_comparison_sees_one_bit() -> None:
    found = dict(everything(random_model("llama")))
    moved = found | {RESID: found[RESID].clone()}
    moved[RESID].view(torch.int32)[0, 0, 0] ^= 1
    assert equal(found, found)
    assert not equal(moved, found)
