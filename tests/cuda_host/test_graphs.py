"""Spans of blocks as CUDA graphs: decoding has the CPU's bits, whatever is captured and when."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from bitlens.model.cache.kv_cache import KVCache
from bitlens.model.load import load
from bitlens.model.ops.cuda.kernels import CudaKernels
from bitlens.model.ops.cuda.sequences import Sequences
from bitlens.model.runners import cuda_graphs
from bitlens.model.transformer import HookedTransformer
from support.cuda_host import assert_same_bits, host_library, host_model
from support.random_models import CONFIGS, random_checkpoint

PROMPTS = torch.tensor([[5, 17, 200, 3], [9, 250, 1, 2]])
CHECKPOINT = random_checkpoint("qwen3", n_ctx=512)


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each graph that is captured."""
    seen: list[int] = []
    kind = type(host_model(CHECKPOINT, "fp32").ops.kernels)
    captured = kind.captured

    def counted(self: CudaKernels, body: Callable[[], torch.Tensor]) -> Any:
        seen.append(1)
        return captured(self, body)

    monkeypatch.setattr(kind, "captured", counted)
    return seen


def decoded(model: HookedTransformer, cache: KVCache, steps: int, first: int = 0) -> torch.Tensor:
    """Logits of `steps` passes of one token a sequence, given ones."""
    found = []
    for step in range(first, first + steps):
        tokens = (torch.arange(cache.batch_size)[:, None] * 31 + step * 7) % 251
        found.append(model(tokens, kv_cache=cache).cpu())
    return torch.cat(found, 1)


def begun(model: HookedTransformer, prompts: torch.Tensor = PROMPTS) -> KVCache:
    cache = model.new_cache(len(prompts))
    model(prompts, kv_cache=cache)
    return cache


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_decoding(captures: list[int], dtype: str) -> None:
    """Once as it is, once captured, then replayed: one graph for the whole model."""
    ours, theirs = host_model(CHECKPOINT, dtype), load(CHECKPOINT, dtype=dtype)
    assert_same_bits(decoded(ours, begun(ours), 6), decoded(theirs, begun(theirs), 6))
    assert len(captures) == 1


def test_hooks_run_between_the_graphs(captures: list[int]) -> None:
    ours, theirs = host_model(CHECKPOINT, "fp32"), load(CHECKPOINT)
    found = []
    for model in (ours, theirs):
        seen: list[torch.Tensor] = []

        def edit(x: torch.Tensor, hook: Any, seen: list[torch.Tensor] = seen) -> torch.Tensor:
            seen.append(x.cpu().clone())
            return x * 0.5

        with model.hooks([("blocks.1.attn.hook_z", edit)]):
            logits = decoded(model, begun(model), 5)
        found.append((logits, seen))
    assert_same_bits(found[0][0], found[1][0])
    assert len(found[0][1]) == len(found[1][1]) == 6
    for x, y in zip(found[0][1], found[1][1], strict=True):
        assert_same_bits(x, y)
    assert len(captures) == 2  # the block before it, and the one behind it


def test_another_batch_is_another_graph(captures: list[int]) -> None:
    ours, theirs = host_model(CHECKPOINT, "fp32"), load(CHECKPOINT)
    caches = [begun(m) for m in (ours, theirs)]
    found, wanted = (decoded(m, c, 3) for m, c in zip((ours, theirs), caches, strict=True))
    assert_same_bits(found, wanted)
    assert len(captures) == 1
    for cache in caches:
        cache.keep([1])
    found, wanted = (decoded(m, c, 3, 3) for m, c in zip((ours, theirs), caches, strict=True))
    assert_same_bits(found, wanted)
    assert len(captures) == 2


def test_keys_beyond_a_multiple_of_256_are_another_graph(captures: list[int]) -> None:
    layers = CONFIGS["llama"].layers[:1]
    checkpoint = random_checkpoint("llama", n_layers=1, layers=layers, n_ctx=512)
    long = (torch.arange(252)[None] * 5) % 251
    ours, theirs = host_model(checkpoint, "fp32"), load(checkpoint)
    found, wanted = (decoded(m, begun(m, long), 8) for m in (ours, theirs))
    assert_same_bits(found, wanted)
    assert len(captures) == 2


def test_a_thread_and_a_copy_have_graphs_of_their_own(captures: list[int]) -> None:
    model = host_model(CHECKPOINT, "fp32")
    wanted = decoded(model, begun(model), 3)
    found: list[torch.Tensor] = []
    thread = threading.Thread(target=lambda: found.append(decoded(model, begun(model), 3)))
    thread.start()
    thread.join()
    copied = copy.deepcopy(model)
    found.append(decoded(copied, begun(copied), 3))
    for logits in found:
        assert_same_bits(logits, wanted)
    assert len(captures) == 3


def test_few_graphs_are_kept() -> None:
    """The oldest goes; what comes again is captured again."""
    graphs = cuda_graphs.SpanGraphs(host_model(CHECKPOINT, "fp32").ops.kernels)
    x = torch.ones(1, 4, device=host_library().device)
    where = Sequences(*torch.zeros(3, 1, 1, dtype=torch.int64, device=x.device), 1, 5)
    for span in range(2 * cuda_graphs.KEPT):
        graphs.run(span, lambda x, where: (x, {}), x, where)
    assert len(graphs._seen()) == cuda_graphs.KEPT


def test_what_is_not_copied_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: a graph that is not told of a new position."""
    model = host_model(CHECKPOINT, "fp32")
    wanted = decoded(model, begun(model), 5)
    monkeypatch.setattr(Sequences, "copy_", lambda self, other: None)
    model = host_model(CHECKPOINT, "fp32")
    found = decoded(model, begun(model), 5)
    assert torch.equal(found[:, :2], wanted[:, :2])
    assert not torch.equal(found[:, 3:], wanted[:, 3:])


def test_a_capture_is_on_the_kernels_own_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a stream of that device, whichever is current, and one at a time."""
    done: list[object] = []
    on_gpu = copy.copy(host_library())
    on_gpu.device = torch.device("cuda", 1)

    @contextmanager
    def entered(*what: object, **options: object) -> Iterator[None]:
        done.append((*what, options))
        yield
        done.append("left")

    monkeypatch.setattr(torch.cuda, "device", lambda device: entered("device", device))
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: ("stream of", device))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: SimpleNamespace(replay=list))
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, **options: entered("graph", **options))
    replay, result = CudaKernels(on_gpu).captured(lambda: torch.ones(1))
    assert replay is list
    assert result.item() == 1
    options = {"stream": ("stream of", on_gpu.device), "capture_error_mode": "thread_local"}
    assert done == [("device", on_gpu.device, {}), ("graph", options), "left", "left"]
