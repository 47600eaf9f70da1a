"""Losses and gradients against TRL's own, kept in tests/golden/trl, and TRL where it is installed.

Both are given the same log-probabilities or rewards, which fp32 holds, padded on either side.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from bitlens.model.hooks.registry import same_bits
from bitlens.model.training import losses
from safetensors.torch import load_file
from support.running_error import Rounded
from support.trl_bounds import BOUNDS
from support.trl_losses import CASES, LAYOUTS, Case, Tensors, draw_inputs, trl_loss

GOLDEN = load_file(Path(__file__).parent.parent / "golden" / "trl" / "losses.safetensors")
CELLS = [(name, layout) for name in CASES for layout in LAYOUTS]

Ours = Callable[[Case, torch.Tensor, Tensors], torch.Tensor]


def _dpo(case: Case, x: torch.Tensor, inputs: Tensors) -> torch.Tensor:
    scored = inputs["scored"].bool()
    own = losses.sequence_logprobs(x, scored).chunk(2)
    reference = losses.sequence_logprobs(inputs["reference"], scored).chunk(2)
    kind, lengths = case.settings["loss_type"], scored.sum(1).chunk(2)
    return losses.dpo(
        *own,
        *reference,
        beta=case.settings["beta"],
        kind="ipo" if kind == "ipo" else "sigmoid",
        lengths_B=None if kind == "sigmoid" else (lengths[0], lengths[1]),
    )


def _reward(case: Case, x: torch.Tensor, inputs: Tensors) -> torch.Tensor:
    margin = inputs["margin"] if case.settings.get("margin") else None
    centering = case.settings.get("centering", 0.0)
    return losses.reward(*x.chunk(2), margin_B=margin, centering=centering)


def _epsilon(case: Case) -> tuple[float, float]:
    return case.settings["epsilon_low"], case.settings["epsilon_high"]


def _grpo(case: Case, x: torch.Tensor, inputs: Tensors) -> torch.Tensor:
    return losses.grpo(
        x,
        inputs["old"],
        inputs["advantages"],
        inputs["scored"].bool(),
        epsilon=_epsilon(case),
        beta=case.settings["beta"],
        reference_BP=inputs["reference"],
        mean="sequence" if case.settings["loss_type"] == "grpo" else "token",
        count=case.settings.get("count"),
    )


def _rloo(case: Case, x: torch.Tensor, inputs: Tensors) -> torch.Tensor:
    scored = inputs["scored"].bool()
    return losses.rloo(x, inputs["old"], inputs["advantages"], scored, epsilon=_epsilon(case))


OURS: dict[str, Ours] = {
    "sft": lambda case, x, inputs: losses.sft(x, inputs["scored"].bool()),
    "reward": _reward,
    "dpo": _dpo,
    "grpo": _grpo,
    "rloo": _rloo,
}


def _inputs(layout: str, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Those of the golden file, in a type that holds them."""
    prefix = f"{layout}/"
    found = {k.removeprefix(prefix): x for k, x in GOLDEN.items() if k.startswith(prefix)}
    inputs = {name: x for name, x in found.items() if "/" not in name}
    return {k: x.to(dtype, copy=True) if x.is_floating_point() else x for k, x in inputs.items()}


def _found(name: str, layout: str, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Our loss and gradient."""
    case, inputs = CASES[name], _inputs(layout, dtype)
    x = inputs[case.varied].requires_grad_()
    loss = OURS[case.trainer](case, x, inputs)
    loss.backward()
    assert x.grad is not None
    return loss.detach(), x.grad


def _golden(name: str, layout: str, label: str) -> tuple[torch.Tensor, torch.Tensor]:
    return GOLDEN[f"{layout}/{name}/{label}/loss"], GOLDEN[f"{layout}/{name}/{label}/gradient"]


def _distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference, relative to the largest number."""
    return float((a.detach() - b).abs().max() / b.abs().max())


@pytest.mark.parametrize(("name", "layout"), CELLS)
def test_fp64(name: str, layout: str) -> None:
    pairs = zip(_found(name, layout, torch.float64), _golden(name, layout, "fp64"), strict=True)
    for ours, theirs in pairs:
        assert bool(theirs.any())
        assert _distance(ours, theirs) < 1e-10
        here = theirs != 0
        assert torch.equal(ours != 0, here)
        assert float(((ours - theirs)[here] / theirs[here]).abs().max()) < 1e-10


@pytest.mark.parametrize(("name", "layout"), CELLS)
def test_fp32_is_within_what_rounding_makes_of_their_formula(name: str, layout: str) -> None:
    """Ours is computed in fp64 and its gradient rounded once; theirs rounds at every operation."""
    case, exact = CASES[name], _inputs(layout, torch.float64)
    bounds = BOUNDS[case.trainer](case, {k: x.numpy() for k, x in exact.items()})
    found, theirs = _found(name, layout, torch.float32), _golden(name, layout, "fp32")
    for ours, golden, bound in zip(found, theirs, bounds, strict=True):
        _check_within(ours.double().numpy(), golden.double().numpy(), bound)


def _check_within(ours: np.ndarray, theirs: np.ndarray, bound: Rounded) -> None:
    np.testing.assert_allclose(bound.value, ours, rtol=1e-6, atol=1e-9)
    assert (np.abs(ours - theirs) <= bound.error + 2.0**-24 * np.abs(ours)).all()
    assert bound.error.max() < 1e-4 * np.abs(bound.value).max()


@pytest.mark.parametrize("name", CASES)
def test_the_padded_side_moves_no_bit(name: str) -> None:
    case = CASES[name]
    (right, by_right), (left, by_left) = (_found(name, side, torch.float32) for side in LAYOUTS)
    assert same_bits(right, left)
    if case.varied == "logprobs":
        by_right, by_left = (
            gradient[_inputs(side, torch.float32)["scored"].bool()]
            for gradient, side in ((by_right, "right"), (by_left, "left"))
        )
    assert same_bits(by_right, by_left)


def test_another_loss_is_further_away() -> None:
    """The control: what one might take for TRL's."""
    inputs = _inputs("right", torch.float64)
    x, scored = inputs["logprobs"], inputs["scored"].bool()
    sums = [
        *losses.sequence_logprobs(x, scored).chunk(2),
        *losses.sequence_logprobs(inputs["reference"], scored).chunk(2),
    ]
    wrong = {
        "dpo, ipo": losses.dpo(*sums, beta=0.2, kind="ipo"),
        "sft": losses.sft(x, inputs["attended"].bool()),
        "grpo, kl": OURS["grpo"](CASES["grpo, by token"], x, inputs),
        "rloo": OURS["grpo"](CASES["grpo"], x, inputs),
    }
    for name, loss in wrong.items():
        assert _distance(loss, _golden(name, "right", "fp64")[0]) > 1e-3, name


@pytest.mark.nightly
@pytest.mark.parametrize("layout", LAYOUTS)
def test_trl_where_it_is_installed(layout: str) -> None:
    """The golden file's inputs are drawn as ever, and what TRL makes of them is what it made."""
    pytest.importorskip("trl", reason="needs pip install trl==1.16.0")
    inputs = draw_inputs(layout)
    for name, x in inputs.items():
        assert torch.equal(x, GOLDEN[f"{layout}/{name}"]), name
    for name, case in CASES.items():
        found = trl_loss(case, inputs, torch.float64)
        for ours, theirs in zip(_found(name, layout, torch.float64), found, strict=True):
            assert _distance(ours, theirs) < 1e-10, name
