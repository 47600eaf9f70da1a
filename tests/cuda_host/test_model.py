"""Whole models on the CUDA kernels, under the executor: logits, hooks and tokens are the CPU's."""

from __future__ import annotations

import pytest
import torch
from bitlens.model.config_error import ConfigError
from bitlens.model.load import load
from bitlens.model.ops.cuda.kernels import CudaKernels
from bitlens.model.weights.checkpoint import Checkpoint
from support.cuda_host import assert_same_bits, host_library, host_model, threads_in_order
from support.random_models import CONFIGS, random_checkpoint

POLICIES = ("fp32", "bf16", "bf16_weights", "hf_bf16")
TOKENS = [[5, 17, 200, 3, 99, 14, 7], [250, 1, 2, 0, 0, 0, 0]]
MASK = torch.tensor([[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0, 0]])


def two_layers(architecture: str) -> Checkpoint:
    config = CONFIGS[architecture]
    return random_checkpoint(architecture, n_layers=2, layers=config.layers[-2:])


EVERY = [(dtype, architecture) for dtype in POLICIES for architecture in CONFIGS]
BY_DAY = {
    *(("fp32", architecture) for architecture in CONFIGS),
    *(("bf16", "gemma2"), ("bf16_weights", "llama"), ("hf_bf16", "gemma3"), ("hf_bf16", "gemma2")),
}


@pytest.mark.parametrize(
    ("dtype", "architecture"),
    [x if x in BY_DAY else pytest.param(*x, marks=pytest.mark.nightly) for x in EVERY],
)
def test_logits_and_tokens(dtype: str, architecture: str) -> None:
    """Prefill of padded rows, then decoding over the pages that it wrote, greedily and drawn."""
    checkpoint = two_layers(architecture)
    tokens = torch.tensor(TOKENS)
    if architecture == "gemma2" and dtype == "hf_bf16":
        with pytest.raises(ConfigError, match="soft caps"):
            host_model(checkpoint, dtype)
        return
    ours, theirs = host_model(checkpoint, dtype), load(checkpoint, dtype=dtype)
    before = host_library().launches()
    with threads_in_order("7"):
        assert_same_bits(ours(tokens, MASK), theirs(tokens, MASK))
        for temperature in (0.0, 1.0):
            options = {"max_new_tokens": 4, "temperature": temperature, "seed": 3}
            found, wanted = (m.generate(tokens[:1], **options).tokens.cpu() for m in (ours, theirs))
            assert torch.equal(found, wanted)
    after = host_library().launches()
    launched = {name for name in after if after[name] > before[name]}
    rotating = {"rope", "kv_write"} if dtype == "hf_bf16" else {"rope_kv_write"}
    both = {"linear_few_rows", "linear_tiled"}
    assert both | {"attention_sum", "embedding", "sample", *rotating} <= launched
    assert ("rope" in launched) == (dtype == "hf_bf16")  # the others ran fused


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "hf_bf16"])
def test_hooks_have_the_same_bits(dtype: str) -> None:
    checkpoint = two_layers("qwen3")
    tokens = torch.tensor(TOKENS)
    _, ours = host_model(checkpoint, dtype).run_with_cache(tokens, attention_mask=MASK)
    _, theirs = load(checkpoint, dtype=dtype).run_with_cache(tokens, attention_mask=MASK)
    assert set(ours) == set(theirs)
    for name in theirs:
        if theirs[name].is_floating_point():
            assert_same_bits(ours[name], theirs[name])


def test_edits_reach_the_rest_of_the_model() -> None:
    checkpoint = two_layers("llama")
    tokens = torch.tensor(TOKENS[:1])
    edit = [("blocks.0.attn.hook_pattern", lambda x, hook: x * 0.5)]
    ours, theirs = (
        m.run_with_hooks(tokens, fwd_hooks=edit)
        for m in (host_model(checkpoint, "fp32"), load(checkpoint))
    )
    assert_same_bits(ours, theirs)
    assert not torch.equal(ours, load(checkpoint)(tokens))


def test_gradients_are_refused_where_the_cpu_has_none() -> None:
    model = host_model(two_layers("llama"), "hf_bf16")
    hook = [("blocks.0.hook_resid_pre", lambda x, hook: x.requires_grad_())]
    with pytest.raises(ValueError, match="requires grad"):
        model.run_with_hooks(torch.tensor(TOKENS[:1]), fwd_hooks=hook)


@pytest.mark.parametrize("allocations", [1, 9, 20])
def test_a_prefill_without_memory_leaves_the_model_usable(
    monkeypatch: pytest.MonkeyPatch, allocations: int
) -> None:
    """Digests of the model and of the cache that the pass wrote to."""
    checkpoint, tokens = two_layers("llama"), torch.tensor(TOKENS[:1])
    ours, theirs = host_model(checkpoint, "fp32"), load(checkpoint)
    caches = [m.new_cache(1) for m in (ours, theirs)]
    for model, cache in zip((ours, theirs), caches, strict=True):
        model(tokens[:, :3], kv_cache=cache)
    left = iter(range(allocations))
    allocate = CudaKernels.empty

    def empty(self: CudaKernels, *arguments: object, **options: object) -> torch.Tensor:
        if next(left, None) is None:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return allocate(self, *arguments, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(CudaKernels, "empty", empty)
        with pytest.raises(torch.OutOfMemoryError):
            ours(tokens[:, 3:], kv_cache=caches[0])
    assert_same_bits(ours(tokens), theirs(tokens))
    found, wanted = (
        m(tokens[:, 3:], kv_cache=cache) for m, cache in zip((ours, theirs), caches, strict=True)
    )
    assert_same_bits(found, wanted)
