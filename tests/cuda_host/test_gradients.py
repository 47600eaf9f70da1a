"""Gradients: CUDA kernels on the executor have the CPU's bits, alone and through whole models."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from bitlens.model.gradients import kernels as cpu
from bitlens.model.load import load
from bitlens.model.ops import kernels as forward
from bitlens.model.weights.checkpoint import Checkpoint
from support.cuda_host import (
    ORDERS,
    assert_same_bits,
    host_derivatives,
    host_library,
    host_model,
    launching,
    threads_in_order,
)
from support.gradient_cases import gradient_names, gradients
from support.random_models import CONFIGS, random_checkpoint

F32, BF16 = torch.float32, torch.bfloat16
WIDTHS = (1, 17, 255, 257, 1000)
STREAMS = [(F32, F32), (F32, BF16), (BF16, BF16)]
"""dtypes of the residual stream and of what norms give."""


@pytest.fixture
def order(request: pytest.FixtureRequest) -> Iterator[None]:
    with threads_in_order(request.param):
        yield


def draw(*shape: int, dtype: torch.dtype = F32, seed: int = 0) -> torch.Tensor:
    """Numbers of many sizes, the last row subnormal."""
    generator = torch.Generator().manual_seed(sum(shape) + seed)
    x = torch.randn(shape, generator=generator)
    sizes = torch.randint(-12, 12, (shape[0], *[1] * (len(shape) - 1)), generator=generator)
    x = x * torch.exp2(sizes.float())
    x[-1] *= 2.0**-130
    return forward.cast(x, dtype)


@pytest.mark.parametrize("order", ORDERS, indirect=True)
@pytest.mark.parametrize("d", WIDTHS)
@pytest.mark.parametrize(("x_dtype", "dtype"), STREAMS)
def test_rms_norm(order: None, d: int, x_dtype: torch.dtype, dtype: torch.dtype) -> None:
    x, dy, weight = draw(3, d, dtype=x_dtype), draw(3, d, dtype=dtype, seed=1), draw(1, d)[0]
    with launching("rms_norm_backward"):
        found = host_derivatives().rms_norm_backward(dy, x, weight, 1e-5)
    assert_same_bits(found, cpu.rms_norm_backward(dy, x, weight, 1e-5))


@pytest.mark.parametrize("order", ORDERS, indirect=True)
@pytest.mark.parametrize("d", WIDTHS)
def test_rows(order: None, d: int) -> None:
    """The parts of the norm, and the softmax."""
    x, dy, gpu = draw(3, d), draw(3, d, seed=1), host_derivatives()
    scale = forward.rms_scale(x, 1e-5)
    dscale, pattern = draw(3, 1, seed=2), forward.softmax(x)
    with launching("normalize_backward", "rms_scale_backward", "softmax_backward"):
        dx, of_scale = gpu.normalize_backward(dy, x, scale)
        through_scale = gpu.rms_scale_backward(dscale, x, scale)
        dscores = gpu.softmax_backward(pattern, dy)
    wanted_dx, wanted_of_scale = cpu.normalize_backward(dy, x, scale)
    assert_same_bits(dx, wanted_dx)
    assert_same_bits(of_scale, wanted_of_scale)
    assert_same_bits(through_scale, cpu.rms_scale_backward(dscale, x, scale))
    assert_same_bits(dscores, cpu.softmax_backward(pattern, dy))


@pytest.mark.parametrize("order", ORDERS, indirect=True)
@pytest.mark.parametrize("dtype", [F32, BF16])
def test_elements(order: None, dtype: torch.dtype) -> None:
    gate, up, dpost = (draw(5, 129, dtype=dtype, seed=i) for i in range(3))
    gate[0, :4] = torch.tensor([float("inf"), -float("inf"), -0.0, float("nan")])
    for kind in ("silu", "gelu_tanh"):
        with launching("gated_act_backward"):
            found = host_derivatives().gated_act_backward(kind, gate, up, dpost)
        for ours, wanted in zip(found, cpu.gated_act_backward(kind, gate, up, dpost), strict=True):
            assert_same_bits(ours, wanted)
    y = forward.soft_cap(draw(5, 129), 30.0)
    with launching("soft_cap_backward"):
        dx = host_derivatives().soft_cap_backward(draw(5, 129, seed=4), y, 30.0)
    assert_same_bits(dx, cpu.soft_cap_backward(draw(5, 129, seed=4), y, 30.0))


SHAPES = [(1, 1, 1, 1, 1), (5, 4, 2, 70, 12), (130, 6, 2, 130, 65), (256, 3, 1, 300, 16)]
"""Queries, heads, key/value heads, keys, d_head: pairs within a leaf, and leaves with a rest."""


@pytest.mark.parametrize("order", ORDERS, indirect=True)
@pytest.mark.parametrize("dtype", [F32, BF16])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sums_of_keys(order: None, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    queries, heads, kv_heads, keys, d_head = shape
    weight = draw(queries, heads, keys)
    seen = torch.ones(queries, keys).tril(keys - queries) > 0
    weight = weight.where(seen[:, None], 0.0)
    x = draw(queries, heads, d_head, dtype=dtype, seed=1)
    with launching("attention_key_sums"):
        found = host_derivatives().key_sums(weight, x, kv_heads)
    assert_same_bits(found, cpu.key_sums(weight, x, kv_heads))
    other = cpu.key_sums(weight.flip(0), x.flip(0), kv_heads)
    assert queries * heads < 5 or not torch.equal(found.cpu(), other)  # the order shows


def two_layers(architecture: str) -> Checkpoint:
    config = CONFIGS[architecture]
    return random_checkpoint(architecture, n_layers=2, layers=config.layers[-2:])


TOKENS = torch.tensor([[5, 17, 200, 3, 99, 14, 7], [250, 1, 2, 0, 0, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0, 0]])
EVERY = [
    (dtype, architecture) for dtype in ("fp32", "bf16", "bf16_weights") for architecture in CONFIGS
]
BY_DAY = {("fp32", "gemma2"), ("bf16", "qwen3"), ("bf16_weights", "llama")}
WHOLE = {"attention_key_sums", "gated_act_backward", "rms_norm_backward", "softmax_backward"}


@pytest.mark.parametrize(
    ("dtype", "architecture"),
    [x if x in BY_DAY else pytest.param(*x, marks=pytest.mark.nightly) for x in EVERY],
)
def test_gradients_at_every_hook(dtype: str, architecture: str) -> None:
    """All of them together, which runs every operation in parts; one alone, which runs it whole."""
    checkpoint = two_layers(architecture)
    ours, theirs = host_model(checkpoint, dtype), load(checkpoint, dtype=dtype)
    before = host_library().launches()
    with threads_in_order("7"):
        for names in (gradient_names(theirs), ["blocks.0.hook_resid_pre"]):
            found, wanted = (gradients(m, TOKENS, names, MASK) for m in (ours, theirs))
            for name in names:
                assert_same_bits(found[name], wanted[name])
            assert any(bool(found[name].any()) for name in names)
    launched = {name for name, n in host_library().launches().items() if n > before[name]}
    assert WHOLE | {"normalize_backward", "rms_scale_backward"} <= launched
    assert ("soft_cap_backward" in launched) == (architecture == "gemma2")


@pytest.mark.nightly
def test_gradients_of_sequences_longer_than_a_block() -> None:
    checkpoint = two_layers("llama")
    checkpoint = random_checkpoint(
        "llama", n_layers=1, layers=checkpoint.config.layers[:1], n_ctx=512
    )
    tokens = torch.arange(270)[None] % 251
    names = [f"blocks.0.{x}" for x in ("hook_resid_pre", "attn.hook_k", "attn.hook_v")]
    found, wanted = (
        gradients(m, tokens, names) for m in (host_model(checkpoint, "fp32"), load(checkpoint))
    )
    for name in names:
        assert_same_bits(found[name], wanted[name])
