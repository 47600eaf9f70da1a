"""Operations on rows: CUDA kernels on the executor have the CPU's bits in any order of threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from bitlens.model.ops import kernels as cpu
from support.cuda_host import (
    ORDERS,
    assert_same_bits,
    host_kernels,
    launching,
    threads_in_order,
)

F32, BF16 = torch.float32, torch.bfloat16


@pytest.fixture(params=ORDERS, autouse=True)
def order(request: pytest.FixtureRequest) -> Iterator[None]:
    with threads_in_order(request.param):
        yield


def rows(n: int, d: int, dtype: torch.dtype = F32, seed: int = 0) -> torch.Tensor:
    """Numbers of many sizes, subnormal ones among them."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator)
    x = x * torch.exp2(torch.randint(-12, 12, (n, 1), generator=generator).float())
    x[-1] *= 2.0**-130
    return cpu.cast(x, dtype)


WIDTHS = (1, 16, 17, 255, 256, 257, 1000, 4097)
STREAMS = [(F32, F32), (F32, BF16), (BF16, BF16)]
"""dtypes of the residual stream and of what norms give, of every policy."""


@pytest.mark.parametrize("d", WIDTHS)
@pytest.mark.parametrize(("x_dtype", "dtype"), STREAMS)
def test_rms_norm(d: int, x_dtype: torch.dtype, dtype: torch.dtype) -> None:
    x, weight, gpu = rows(3, d, x_dtype), rows(1, d, seed=1)[0], host_kernels()
    with launching("rms_norm"):
        y = gpu.rms_norm(x, weight, 1e-5, dtype)
        stepwise = gpu.rms_norm(x, weight, 1e-5, dtype, stepwise=True)
        scale = gpu.rms_scale(x, 1e-5)
    assert_same_bits(y, cpu.rms_norm(x, weight, 1e-5, dtype))
    assert_same_bits(stepwise, cpu.rms_norm(x, weight, 1e-5, dtype, stepwise=True))
    assert_same_bits(scale, cpu.rms_scale(x, 1e-5))


@pytest.mark.parametrize("d", WIDTHS)
@pytest.mark.parametrize(("x_dtype", "dtype"), STREAMS)
def test_rms_norm_after_the_residual_add(d: int, x_dtype: torch.dtype, dtype: torch.dtype) -> None:
    x, residual = rows(3, d, x_dtype), rows(3, d, dtype, seed=2)
    weight = rows(1, d, seed=1)[0]
    with launching("rms_norm"):
        found = host_kernels().add_rms_norm(x, residual, weight, 1e-6)
    for ours, wanted in zip(found, cpu.add_rms_norm(x, residual, weight, 1e-6), strict=True):
        assert_same_bits(ours, wanted)


def test_parts_of_the_norm() -> None:
    gpu = host_kernels()
    for dtype in (F32, BF16):
        x, weight = rows(5, 300, dtype), rows(1, 300, seed=1)[0]
        scale = cpu.rms_scale(x, 1e-5)
        normalized = cpu.normalize(x, scale)
        with launching("normalize", "norm_weight"):
            assert_same_bits(gpu.normalize(x, scale), normalized)
            ours = gpu.norm_weight(normalized, weight, dtype)
        assert_same_bits(ours, cpu.norm_weight(normalized, weight, dtype))


ELEMENTWISE: dict[str, Callable[..., torch.Tensor]] = {
    "add": lambda k, x, y: k.add(x, y),
    "cast": lambda k, x, y: k.cast(x, y.dtype),
    "scaled": lambda k, x, y: k.scaled(x, 0.37, y.dtype),
    "scale_scores": lambda k, x, y: k.scale_scores(k.cast(x, F32), 0.3, y.dtype),
    "soft_cap": lambda k, x, y: k.soft_cap(k.cast(x, F32), 30.0),
}


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize("x_dtype", [F32, BF16])
@pytest.mark.parametrize("y_dtype", [F32, BF16])
def test_elementwise(name: str, x_dtype: torch.dtype, y_dtype: torch.dtype) -> None:
    x, y = rows(4, 333, x_dtype), rows(4, 333, y_dtype, seed=3)
    before = host_kernels().library.launches()[name]
    assert_same_bits(ELEMENTWISE[name](host_kernels(), x, y), ELEMENTWISE[name](cpu, x, y))
    assert host_kernels().library.launches()[name] > before


@pytest.mark.parametrize("kind", ["silu", "gelu_tanh"])
@pytest.mark.parametrize("stepwise", [False, True])
@pytest.mark.parametrize("dtype", [F32, BF16])
def test_gated_activations(kind: str, stepwise: bool, dtype: torch.dtype) -> None:
    gate, up = rows(5, 129, dtype), rows(5, 129, dtype, seed=4)
    gate[0, :3] = torch.tensor([float("inf"), -float("inf"), -0.0])
    with launching("gated_act"):
        found = host_kernels().gated_act(kind, gate, up, stepwise=stepwise)
    assert_same_bits(found, cpu.gated_act(kind, gate, up, stepwise=stepwise))


@pytest.mark.parametrize("n", [1, 7, 256, 300, 5000])
def test_softmax_and_its_logarithm(n: int) -> None:
    x, gpu = rows(4, n), host_kernels()
    x[1] = -float("inf")
    x[2, n // 2 :] = -float("inf")
    x[3, 0] = float("nan")
    with launching("softmax", "log_softmax", "logsumexp"):
        found = [gpu.softmax(x), gpu.log_softmax(x), gpu.logsumexp(x)]
    for ours, wanted in zip(
        found, [cpu.softmax(x), cpu.log_softmax(x), cpu.logsumexp(x)], strict=True
    ):
        assert_same_bits(ours, wanted)


@pytest.mark.parametrize(
    ("n", "dtype", "smoothing"), [(260, F32, 0.1), (9, BF16, 0.0), (9, BF16, 0.1)]
)
def test_cross_entropy(n: int, dtype: torch.dtype, smoothing: float) -> None:
    logits, gpu = rows(n, 70, dtype), host_kernels()
    targets = torch.arange(n) % 70
    targets[::7] = -100
    with launching("cross_entropy", "mean_loss"):
        losses = gpu.cross_entropy(logits, targets, smoothing, mean=False)
        mean = gpu.cross_entropy(logits, targets, smoothing)
    assert_same_bits(losses, cpu.cross_entropy(logits, targets, smoothing, mean=False))
    assert_same_bits(mean, cpu.cross_entropy(logits, targets, smoothing))


def test_targets_that_cannot_be() -> None:
    logits = rows(3, 10)
    with pytest.raises(IndexError, match="expected a class below 10"):
        host_kernels().cross_entropy(logits, torch.tensor([0, 10, 1]))
    with pytest.raises(ValueError, match="every target is ignored"):
        host_kernels().cross_entropy(logits, torch.full((3,), -100))


def test_another_order_of_sums_moves_bits() -> None:
    """The negative control: the comparison sees what it should."""
    x = torch.randn(20, 4097, generator=torch.Generator().manual_seed(0))
    turned = host_kernels().rms_scale(x.flip(1), 1e-5)
    assert not torch.equal(turned, cpu.rms_scale(x, 1e-5))
