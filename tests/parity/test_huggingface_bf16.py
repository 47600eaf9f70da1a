"""The policies hf_bf16 and bf16_weights against Hugging Face: every operation in lockstep.

Both sides round at the same points; what is left is the order of fp32 sums, which may put a value
on the other side of a rounding. A bound is twice that of the fp32 arithmetic, and for each rounding
to bf16 on the way 2 u16 of what is rounded. Tensor names: T rows, H heads, G key/value heads,
K keys, h d_head.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import bitlens
import pytest
import torch
import transformers
from bitlens.model.config import ConfigError
from bitlens.model.interop.transformers_addresses import TransformersAddresses
from error_bounds import Rounding, operation_bound
from huggingface_cases import SHAPE, heads, random_weights, rope
from random_models import MemoryReader, random_checkpoint, random_model

U16 = 2.0**-8
FP32 = Rounding()
N_TOKENS = 24

CONFIGS: Mapping[str, transformers.PretrainedConfig] = {
    "llama": transformers.LlamaConfig(**SHAPE, **heads(5, 5, 8), rope_parameters=rope(1e4)),
    "llama, biases, tied, yarn": transformers.LlamaConfig(
        **SHAPE | {"hidden_size": 42},
        **heads(3, 1, 10),
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": 5e5,
            "factor": 4.0,
            "original_max_position_embeddings": 16,
        },
        attention_bias=True,
        mlp_bias=True,
        tie_word_embeddings=True,
    ),
    "mistral, window": transformers.MistralConfig(
        **SHAPE, **heads(6, 3, 10), rope_parameters=rope(1e4), sliding_window=5
    ),
    "qwen3": transformers.Qwen3Config(**SHAPE, **heads(5, 1, 12), rope_parameters=rope(1e6)),
}

Tensor = torch.Tensor
Values = dict[str, Tensor]


@pytest.fixture(scope="module", params=CONFIGS)
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of bf16 weights."""
    directory: Path = tmp_path_factory.mktemp("model")
    random_weights(CONFIGS[request.param]).bfloat16().save_pretrained(directory)
    return directory


def peer_of(path: Path) -> transformers.PreTrainedModel:
    factory: Any = transformers.AutoModelForCausalLM
    model = factory.from_pretrained(path, attn_implementation="eager", dtype=torch.bfloat16)
    return model.eval()


def bound_of(address: str, y: Tensor, args: tuple[Any, ...], kwargs: Any) -> Tensor:
    """How far two implementations with these rounding points may be apart, given equal inputs."""
    name = address.rpartition(".")[2]
    wide = tuple(x.double() if isinstance(x, Tensor) and x.is_floating_point() else x for x in args)
    if name == "attention":
        return _attention(y, *args, **kwargs)
    arithmetic = 2 * operation_bound(FP32, name, wide, kwargs)
    if name.startswith("rope"):
        x, _, *base = wide
        half = x.shape[-1] // 2
        pair = x[..., :half].abs() + x[..., half:].abs()
        # cos and sin, both products, the sum; the peer forms its angles in fp32.
        loose = 2 * operation_bound(Rounding(angles=True), name, wide, kwargs)
        magnitude = 1.2 if len(base) > 1 else 1.0  # yarn's attention factor is 1.14
        return loose + 6.1 * U16 * magnitude * torch.cat([pair, pair], -1)
    roundings = {"embed": 0, "act": 2}.get(name, 2 if name.startswith("ln") else 1)
    roundings = 2 if name.endswith("_norm") else roundings
    return arithmetic + 2.05 * roundings * U16 * (y.double().abs() + arithmetic)


def _attention(
    y_THh: Tensor, q_THh: Tensor, cache: Any, batch: Any, *, scale: float, window: int | None
) -> Tensor:
    k_GKh, v_GKh = (x.double().transpose(0, 1) for x in cache.written)
    q = q_THh.double().transpose(0, 1)
    k, v = (x.repeat_interleave(q.shape[0] // x.shape[0], 0) for x in (k_GKh, v_GKh))
    hidden = ~batch.visible_THK(window).transpose(0, 1)
    scores = (q @ k.mT * scale).masked_fill(hidden, -torch.inf)
    sizes = scores.abs().masked_fill(hidden, 0.0)
    # Each side is within u16, twice, of the exact score: before and after scaling.
    off = 2 * FP32.scores(q, k, scale) + 4.1 * U16 * sizes
    pattern = scores.softmax(-1)
    # First order, times 1.2 for the rest; then the pattern's own rounding.
    pattern_off = 1.2 * FP32.softmax(scores, off + 2.1 * U16 * sizes) + 2.1 * U16 * pattern
    z_off = FP32.values(pattern, v, pattern_off.masked_fill(hidden, 0.0)).transpose(0, 1)
    return 2 * z_off + 2.05 * U16 * y_THh.double().abs()


def lockstep(path: Path) -> tuple[Values, Values, Values]:
    """Our values, transformers' on our inputs, and the bound on their difference, by address."""
    ours, theirs, bounds = {}, {}, {}
    model = bitlens.load(path, dtype="hf_bf16", backend="torch")
    peer = TransformersAddresses(peer_of(path))
    tokens_P = torch.randint(48, (N_TOKENS,), generator=torch.Generator().manual_seed(2))

    def keep(address: str) -> Callable[..., Tensor]:
        def fn(operation: Any, *args: Any, **kwargs: Any) -> Tensor:
            y: Tensor = operation(*args, **kwargs)
            ours[address], bounds[address] = y, bound_of(address, y, args, kwargs)
            return y

        return fn

    def swap(address: str) -> Callable[..., Any]:
        heads_first = ".rope_" in address

        def fn(operation: Any, *args: Any, **kwargs: Any) -> Any:
            result = operation(*args, **kwargs)
            y = result[0] if isinstance(result, tuple) else result
            shown = y.transpose(1, 2) if heads_first else y
            theirs[address] = shown.reshape(ours[address].shape)
            mine = ours[address].view(shown.shape).to(y.dtype)
            mine = mine.transpose(1, 2) if heads_first else mine
            return (mine, *result[1:]) if isinstance(result, tuple) else mine

        return fn

    with ExitStack() as stack, torch.no_grad():
        assert set(model.op_addresses) == set(peer.op_addresses)
        for address in model.op_addresses:
            stack.enter_context(model.override(address, keep(address)))
        model(tokens_P)
        for address in peer.op_addresses:
            stack.enter_context(peer.override(address, swap(address)))
        peer(tokens_P)
    return ours, theirs, bounds


def test_every_operation_agrees_in_lockstep(path: Path) -> None:
    ours, theirs, bounds = lockstep(path)
    for address, y in ours.items():
        difference = (y.double() - theirs[address].double()).abs()
        assert bool((difference <= bounds[address]).all()), address
        assert torch.equal(y, y.bfloat16().to(y.dtype)), address
    equal = [torch.equal(y, theirs[address].to(y.dtype)) for address, y in ours.items()]
    assert sum(equal) > len(equal) / 2


def test_another_rounding_is_noticed(path: Path) -> None:
    """The policy bf16 keeps scores, patterns, act(gate) and residual adds in fp32."""
    ours, _, _ = lockstep(path)
    tokens_P = torch.randint(48, (N_TOKENS,), generator=torch.Generator().manual_seed(2))
    found = {}
    model = bitlens.load(path, dtype="bf16", backend="torch")

    def swap(address: str) -> Callable[..., Tensor]:
        def fn(operation: Any, *args: Any, **kwargs: Any) -> Tensor:
            found[address] = operation(*args, **kwargs)
            return ours[address].to(found[address].dtype)

        return fn

    with ExitStack() as stack, torch.no_grad():
        for address in model.op_addresses:
            stack.enter_context(model.override(address, swap(address)))
        model(tokens_P)
    moved = {
        address.rpartition(".")[2]
        for address, y in found.items()
        if not torch.equal(y.float(), ours[address].float())
    }
    assert {"act", "attention", "rope_q", "ln1", "unembed", "resid_mid", "resid_post"} <= moved
    assert "embed" not in moved  # rows of bf16 weights


def test_logits_are_bf16_numbers_and_near_the_peers(path: Path) -> None:
    model, peer = bitlens.load(path, dtype="hf_bf16", backend="torch"), peer_of(path)
    tokens_BP = torch.randint(48, (2, N_TOKENS), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        ours, theirs = model(tokens_BP), peer(tokens_BP).logits
    assert torch.equal(ours, ours.bfloat16().float())
    spread = float(theirs.float().std())
    assert float((ours - theirs.float()).abs().max()) < 0.1 * spread
    assert float((ours.argmax(-1) == theirs.argmax(-1)).float().mean()) > 0.9


def test_native_and_gemma_are_refused() -> None:
    with pytest.raises(ValueError, match=r'hf_bf16.*backend="torch"'):
        random_model("llama", dtype="hf_bf16")
    with pytest.raises(ConfigError, match="rounding points of gemma3"):
        random_model("gemma3", dtype="hf_bf16", backend="torch")


def test_bf16_weights_is_fp32_on_rounded_weights(path: Path) -> None:
    """Weights that are bf16 already stay as they are: the bits of fp32. Others are rounded once."""
    tokens_P = torch.arange(N_TOKENS)
    for backend in ("native", "torch"):
        rounded = bitlens.load(path, dtype="bf16_weights", backend=backend)
        assert rounded.storage().keys() <= {"BF16", "bfloat16"}
        want = bitlens.load(path, backend=backend)(tokens_P)
        assert rounded(tokens_P).dtype == torch.float32
        assert torch.equal(rounded(tokens_P), want)


def test_bf16_weights_rounds_every_weight_once() -> None:
    checkpoint, tokens_P = random_checkpoint("qwen2"), torch.arange(9)
    tensors = checkpoint.reader.tensors  # type: ignore[attr-defined]
    rounded = {name: x.bfloat16().float() for name, x in tensors.items()}
    again = dataclasses.replace(checkpoint, reader=MemoryReader(rounded))
    model = bitlens.load(checkpoint, dtype="bf16_weights")
    assert torch.equal(model(tokens_P), bitlens.load(again)(tokens_P))
    assert not torch.equal(model(tokens_P), bitlens.load(checkpoint)(tokens_P))
