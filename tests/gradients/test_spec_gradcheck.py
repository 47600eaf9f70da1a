"""The spec of weights' gradients, instantiated in double, against finite differences."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

ROOT = Path(__file__).resolve().parents[2]
SOURCE = Path(__file__).with_name("spec_in_double.cpp")
FLAGS = [
    "-std=c++20", "-O2", "-ffp-contract=off", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror",
    "-Wno-unused-function", f"-I{ROOT / 'csrc'}",
]  # fmt: skip
STARTS = torch.tensor([0, 3, 4, 4 + 261])
"""Sequences of three tokens, of one, and of more than a leaf."""
ROWS, N, K = int(STARTS[-1]), 3, 4
GENERATOR = torch.Generator().manual_seed(2)
TOKENS = torch.randint(0, N, (ROWS,), generator=GENERATOR)
TEMPERATURE = 0.7

Spec = Callable[..., None]


def _draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=GENERATOR, dtype=torch.float64)


X, WIDE, LOGITS = _draw(ROWS, K), _draw(ROWS, N), 3 * _draw(5, N)
NORMALIZED = WIDE / WIDE.square().mean(1, keepdim=True).add(1e-5).sqrt()


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Any:
    compiler = shutil.which("g++") or shutil.which("c++")
    assert compiler, "these tests compile C++"
    library = tmp_path_factory.mktemp("spec") / "spec_in_double.so"
    subprocess.run([compiler, *FLAGS, str(SOURCE), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def _call(function: Any, *arguments: torch.Tensor | int | float) -> None:
    """Tensors by their addresses; they are contiguous and outlive the call."""
    made: list[Any] = []
    for x in arguments:
        if isinstance(x, torch.Tensor):
            assert x.is_contiguous()
            made.append(ctypes.c_void_p(x.data_ptr()))
        else:
            made.append(ctypes.c_double(x) if isinstance(x, float) else ctypes.c_int64(x))
    function(*made)


def _sequences() -> tuple[torch.Tensor, int]:
    return STARTS, len(STARTS) - 1


def _linear(spec: Any, dy: torch.Tensor, w: torch.Tensor, sums: torch.Tensor) -> None:
    _call(spec.linear, dy, N, X, K, *_sequences(), sums)


def _bias(spec: Any, dy: torch.Tensor, w: torch.Tensor, sums: torch.Tensor) -> None:
    _call(spec.bias, dy, N, *_sequences(), sums)


def _norm(spec: Any, dy: torch.Tensor, w: torch.Tensor, sums: torch.Tensor) -> None:
    _call(spec.norm, dy, NORMALIZED, N, *_sequences(), sums)


def _embed(spec: Any, dy: torch.Tensor, w: torch.Tensor, sums: torch.Tensor) -> None:
    _call(spec.embed, dy, K, TOKENS, N, 0.7, *_sequences(), sums)


def _logprob(spec: Any, dy: torch.Tensor, w: torch.Tensor, sums: torch.Tensor) -> None:
    _call(spec.logprob, dy, w, len(w), N, TOKENS, TEMPERATURE, sums)


def _token_logprob(logits: torch.Tensor) -> torch.Tensor:
    x = torch.log_softmax(logits / TEMPERATURE, -1)
    return x.gather(1, TOKENS[: len(x), None])[:, 0]


Formula = Callable[[torch.Tensor], torch.Tensor]
OPERATIONS: dict[str, tuple[torch.Tensor, Formula, Spec]] = {
    "linear_weight_grad": (_draw(N, K), lambda w: F.linear(X, w), _linear),
    "bias_grad": (_draw(N), lambda b: WIDE + b, _bias),
    "rms_norm_weight_grad": (_draw(N), lambda w: NORMALIZED * w, _norm),
    "embed_grad": (_draw(N, K), lambda w: w[TOKENS] * 0.7, _embed),
    "token_logprob": (LOGITS, _token_logprob, _logprob),
}


def _with_spec(name: str, spec: Any, skipped: int | None = None) -> Formula:
    """The formula, whose derivative is the spec's; `skipped` is a row that it leaves out."""
    _, formula, derivative = OPERATIONS[name]

    class Operation(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, w: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(w)
            return formula(w)

        @staticmethod
        def backward(ctx: Any, dy: torch.Tensor) -> torch.Tensor:
            (w,) = ctx.saved_tensors
            dy, sums = dy.clone(memory_format=torch.contiguous_format), torch.zeros_like(w)
            if skipped is not None:
                dy[skipped] = 0.0
            derivative(spec, dy, w, sums)
            return sums

    return lambda w: Operation.apply(w)


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_spec_is_the_derivative(name: str, spec: Any) -> None:
    w = OPERATIONS[name][0].clone().requires_grad_()
    assert torch.autograd.gradcheck(_with_spec(name, spec), (w,))


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_row_left_out_is_found(name: str, spec: Any) -> None:
    """The control: the last position, in the second leaf of its sequence."""
    w = OPERATIONS[name][0].clone().requires_grad_()
    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        torch.autograd.gradcheck(_with_spec(name, spec, skipped=-1), (w,))


@pytest.mark.parametrize("name", OPERATIONS)
def test_it_is_near_autograds_derivative(name: str, spec: Any) -> None:
    """Closer than finite differences can tell: in double, to a few hundred roundings."""
    start, formula, _ = OPERATIONS[name]
    ours, exact = (start.clone().requires_grad_() for _ in range(2))
    dy = torch.randn(formula(start).shape, generator=GENERATOR, dtype=torch.float64)
    _with_spec(name, spec)(ours).backward(dy)
    formula(exact).backward(dy)
    assert ours.grad is not None
    assert exact.grad is not None
    assert (ours.grad - exact.grad).abs().max() <= 1e-13 * exact.grad.abs().max()
