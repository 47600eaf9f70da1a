"""Gradients of weights as kernels: near fp64, and the same bits however a batch is cut."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import bitlens
import pytest
import torch
from bitlens import _core
from bitlens.model.gradients import weight_kernels as kernels
from bitlens.model.hooks.registry import same_bits

U = 2.0**-24
STARTS = [0, 300, 301, 600, 1200]
"""Sequences of more than a leaf, of one token, of a whole leaf and more."""

Operation = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], None]


def _embed(sums: torch.Tensor, dy: torch.Tensor, x: torch.Tensor, starts: torch.Tensor) -> None:
    tokens = (x[:, 0].abs() * 1000).long() % len(sums)
    kernels.add_embed_grad(sums, dy[:, : sums.shape[1]], tokens, 0.7, starts)


def _bias(sums: torch.Tensor, dy: torch.Tensor, x: torch.Tensor, starts: torch.Tensor) -> None:
    kernels.add_bias_grad(sums, dy, starts)


def _norm(sums: torch.Tensor, dy: torch.Tensor, x: torch.Tensor, starts: torch.Tensor) -> None:
    kernels.add_norm_weight_grad(sums, dy, x[:, : dy.shape[1]].float(), starts)


OPERATIONS: dict[str, tuple[Operation, tuple[int, ...]]] = {
    "linear": (kernels.add_linear_weight_grad, (33, 61)),
    "bias": (_bias, (33,)),
    "norm": (_norm, (33,)),
    "embed": (_embed, (29, 33)),
}


def _rows(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    dy, x = (torch.randn(STARTS[-1], n, generator=generator).to(dtype) for n in (33, 61))
    return dy if dtype is torch.float32 else dy.float(), x


def _sum(name: str, bounds: list[int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """The gradient, in calls that end at some of the sequences."""
    run, shape = OPERATIONS[name]
    sums, (dy, x) = torch.zeros(shape), _rows(dtype)
    for first, last in itertools.pairwise(bounds):
        rows = slice(STARTS[first], STARTS[last])
        starts = torch.tensor(STARTS[first : last + 1]) - STARTS[first]
        run(sums, dy[rows], x[rows], starts)
    return sums


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_cuts_threads_and_instruction_sets_move_no_bit(name: str, dtype: torch.dtype) -> None:
    bitlens.set_num_threads(1)
    whole = _sum(name, [0, 4], dtype)
    for isa in _core.available_isas():
        _core.set_isa(isa)
        for threads in (1, 2, 5):
            bitlens.set_num_threads(threads)
            for bounds in ([0, 4], [0, 1, 2, 3, 4], [0, 2, 4], [0, 3, 4]):
                assert same_bits(_sum(name, bounds, dtype), whole), (isa, threads, bounds)


@pytest.mark.parametrize("name", OPERATIONS)
def test_one_chain_over_all_rows_has_other_bits(name: str) -> None:
    """The control: without leaves that end with their sequences."""
    run, shape = OPERATIONS[name]
    sums, (dy, x) = torch.zeros(shape), _rows()
    for start in range(0, STARTS[-1], 256):
        rows = slice(start, min(start + 256, STARTS[-1]))
        run(sums, dy[rows], x[rows], torch.tensor([0, rows.stop - start]))
    assert not same_bits(sums, _sum(name, [0, 4]))


def test_rows_without_a_gradient_may_be_left_out() -> None:
    dy, x = _rows()
    kept = torch.arange(len(dy)) % 3 == 0
    dy[~kept] = 0.0
    whole, part = torch.zeros(33, 61), torch.zeros(33, 61)
    kernels.add_linear_weight_grad(whole, dy, x, torch.tensor(STARTS))
    leaves = sorted({*STARTS, 256, 301 + 256, 600 + 256, 600 + 512})
    starts = torch.tensor([int(kept[:leaf].sum()) for leaf in leaves])
    kernels.add_linear_weight_grad(part, dy[kept], x[kept], starts)
    assert same_bits(whole, part)


def test_linear_is_within_its_bound_of_fp64() -> None:
    """A leaf of 256 rounds 256 times, the sums of 6 leaves 6 times."""
    dy, x = _rows()
    found = _sum("linear", [0, 4]).double()
    exact, size = dy.double().T @ x.double(), dy.double().T.abs() @ x.double().abs()
    n = 256 + 6
    error, bound = (found - exact).abs(), n * U / (1 - n * U) * size
    assert bool((error <= bound).all())
    assert float((error / bound).max()) > 1e-4


def test_an_embedding_adds_to_the_rows_of_its_tokens_alone() -> None:
    dy, x = _rows()
    tokens = (x[:, 0].abs() * 1000).long() % 29
    exact = torch.zeros(29, 33, dtype=torch.float64).index_add(0, tokens, dy.double() * 0.7)
    size = torch.zeros(29, 33, dtype=torch.float64).index_add(0, tokens, dy.double().abs())
    found = _sum("embed", [0, 4]).double()
    assert bool(((found - exact).abs() <= 2 * (256 + 6) * U * size).all())
    assert bool((found != 0).any(1).equal((size != 0).any(1)))
