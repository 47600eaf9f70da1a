"""Input that a model on a GPU cannot take, and memory that gives out under it: an error that says
so, after which it goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from bitlens.model.cache.kv_cache import KVCache
from bitlens.model.load import load
from bitlens.model.ops.cuda import CudaError
from bitlens.model.ops.cuda.kernels import CudaKernels
from bitlens.model.ops.cuda.library import Library
from bitlens.model.transformer import HookedTransformer
from support.cuda_host import assert_same_bits, host_model, on_stream
from support.random_models import CONFIGS, random_checkpoint

CHECKPOINT = random_checkpoint("llama", n_layers=2, layers=CONFIGS["llama"].layers[:2])
ELSEWHERE = torch.device("meta")
TOKENS = torch.tensor([[5, 17, 200]])


def step(model: HookedTransformer, cache: KVCache, at: int) -> torch.Tensor:
    return model(torch.tensor([[at]]), kv_cache=cache).cpu()


@pytest.mark.parametrize("on_gpu", [True, False])
def test_a_cache_on_another_device(on_gpu: bool) -> None:
    model = host_model(CHECKPOINT, "fp32") if on_gpu else load(CHECKPOINT)
    cache = KVCache(model.config, 1, torch.float32, ELSEWHERE)
    message = "rope_kv_write: a tensor on meta, the kernels run on" if on_gpu else "on meta"
    with pytest.raises((ValueError, TypeError), match=message):
        model(TOKENS, kv_cache=cache)
    assert_same_bits(model(TOKENS), load(CHECKPOINT)(TOKENS))


def test_a_hook_that_returns_a_tensor_of_another_device() -> None:
    model = host_model(CHECKPOINT, "fp32")
    moved = [("blocks.1.attn.hook_z", lambda x, hook: x.to(ELSEWHERE))]
    with pytest.raises(ValueError, match=r"the hook on blocks\.1\.attn\.hook_z returned .*on meta"):
        model.run_with_hooks(TOKENS, fwd_hooks=moved)
    assert_same_bits(model(TOKENS), load(CHECKPOINT)(TOKENS))


@pytest.mark.parametrize(
    ("here", "there", "way_out"),
    [("meta", "cpu", 'load it with device="cpu"'), ("cpu", "meta", 'load it with backend="torch"')],
)
def test_a_model_stays_where_it_was_loaded(here: str, there: str, way_out: str) -> None:
    """A device that is not the CPU stands in for a GPU."""
    model = host_model(CHECKPOINT, "fp32")
    model.ops.device = torch.device(here)
    assert model.to(here) is model
    with pytest.raises(ValueError, match=f"native weights stay on {here}, {there} is .*{way_out}"):
        model._apply(lambda x: torch.empty_like(x, device=there))


def test_another_stream_has_graphs_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pass asks torch for its current stream."""
    ours, theirs = host_model(CHECKPOINT, "fp32"), load(CHECKPOINT)
    kernels = type(ours.ops.kernels)
    captured, count = kernels.captured, []

    def counted(self: CudaKernels, body: Callable[[], Any]) -> Any:
        count.append(self.library.stream)
        return captured(self, body)

    monkeypatch.setattr(kernels, "captured", counted)
    caches = [m.new_cache(1) for m in (ours, theirs)]
    for at, current in enumerate((0, 0, 7, 7, 0, 7, 1 << 40)):
        with on_stream(current):
            found = step(ours, caches[0], at)
        assert_same_bits(found, step(theirs, caches[1], at))
    assert count == [0, 7]


def test_every_kernel_is_on_the_callers_stream() -> None:
    options = {"max_new_tokens": 4, "temperature": 1.0, "logprobs": 2, "logit_bias": {3: 1.0}}
    model = host_model(CHECKPOINT, "fp32")
    wanted = model.generate(TOKENS, seed=1, **options).tokens
    with on_stream(7):
        assert torch.equal(model.generate(TOKENS, seed=1, **options).tokens, wanted)
        model.run_with_cache(TOKENS)


def test_a_kernel_on_another_stream_is_seen() -> None:
    kernels, x = host_model(CHECKPOINT, "fp32").ops.kernels, torch.ones(3)
    with on_stream(7), pytest.MonkeyPatch.context() as patch:
        patch.setattr(Library, "stream", property(lambda self: 0))
        with pytest.raises(CudaError, match="add: launched on a stream that is not current"):
            kernels.add(x, x)
    assert kernels.add(x, x).tolist() == [2.0] * 3


@pytest.mark.parametrize("allocations", [1, 3, 12])
def test_capturing_without_memory_leaves_the_model_usable(
    monkeypatch: pytest.MonkeyPatch, allocations: int
) -> None:
    ours, theirs = host_model(CHECKPOINT, "fp32"), load(CHECKPOINT)
    caches = [m.new_cache(1) for m in (ours, theirs)]
    step(ours, caches[0], 0)
    left, allocate = iter(range(allocations)), CudaKernels.empty

    def empty(self: CudaKernels, *arguments: Any, **options: Any) -> torch.Tensor:
        if next(left, None) is None:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return allocate(self, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(CudaKernels, "empty", empty)
        with pytest.raises(torch.OutOfMemoryError):
            step(ours, caches[0], 1)
    found = [step(ours, caches[0], at) for at in range(1, 5)]
    wanted = [step(theirs, caches[1], at) for at in range(5)][1:]
    assert_same_bits(torch.cat(found), torch.cat(wanted))
