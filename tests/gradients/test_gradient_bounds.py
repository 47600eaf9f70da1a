"""Native gradients against fp64 ones at every hook, within a derived bound (gradient_bounds.py).

Checked are the elements that are off most.
"""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import bitlens
import pytest
import torch
from bitlens.model.gradients import kernels
from bitlens.model.hooks.registry import has_key_axis
from bitlens.model.sources import open_checkpoint
from bitlens.model.weights.checkpoint import Checkpoint
from invariance.subjects import ARCHITECTURES
from support.gradient_bounds import GradientBounds
from support.gradient_cases import gradient_names, gradients
from support.random_models import random_checkpoint

ON_A_PATH_OF_THEIR_OWN = ("hook_result", "hook_mlp_in")
"""Copies of what other hooks hold, whose gradient is one part of theirs."""

OUTSIDE = ("hook_", "ln_final", "unembed")

# The reference of the bound counts a layer's scores as one operation without a cap.
UNCAPPED = [name for name in ARCHITECTURES if name != "gemma2"]

TOKENS = torch.tensor([3, 141, 59, 26, 53, 58, 97])


@pytest.fixture(autouse=True)
def _one_torch_thread() -> None:
    torch.set_num_threads(1)


def worst_use(
    checkpoint: Checkpoint, tokens: torch.Tensor, wanted: tuple[str, ...], n_checked: int = 2
) -> float:
    """The largest part of its bound that an element's error takes, at names that begin so."""
    model = bitlens.load(checkpoint)
    names = [name for name in gradient_names(model) if name.startswith(wanted)]
    names = [name for name in names if not name.endswith(ON_A_PATH_OF_THEIR_OWN)]
    found = gradients(model, tokens[None], names)
    truth = GradientBounds(bitlens.load(checkpoint, dtype="fp64", backend="torch"), tokens, names)
    used = 0.0
    for name in names:
        exact = truth.gradients[name].detach()
        if has_key_axis(name):  # the reference has gradients at masked keys, which nothing reads
            exact = exact.where(found[name] != 0, 0.0)
        error = (found[name].double() - exact).abs().flatten()
        worst = error.topk(min(n_checked, error.numel())).indices
        bound = truth.bound(name, worst)
        assert not error[worst][bound == 0].any()
        used = max([used, *(error[worst] / bound)[bound > 0].tolist()])
    return used


@pytest.mark.parametrize("architecture", UNCAPPED)
def test_random_models(architecture: str) -> None:
    assert 0 < worst_use(random_checkpoint(architecture), TOKENS, (*OUTSIDE, "blocks.1.")) <= 1


@pytest.mark.nightly
def test_capped_scores_and_logits_are_near_fp64() -> None:
    """Normwise, to a few hundred roundings of fp32: no bound is derived for the caps."""
    checkpoint = random_checkpoint("gemma2")
    model, double = (
        bitlens.load(checkpoint),
        bitlens.load(checkpoint, dtype="fp64", backend="torch"),
    )
    names = gradient_names(model)
    truth = gradients(double, TOKENS[None], names)
    for name, found in gradients(model, TOKENS[None], names).items():
        assert (found.double() - truth[name]).norm() <= 300 * 2**-24 * truth[name].norm(), name


@pytest.mark.parametrize("architecture", UNCAPPED)
def test_random_models_in_every_layer(architecture: str) -> None:
    assert 0 < worst_use(random_checkpoint(architecture), TOKENS, (*OUTSIDE, "blocks"), 5) <= 1


@pytest.mark.nightly
def test_smollm2(smollm2_path: Path) -> None:
    checkpoint = open_checkpoint(smollm2_path)
    tokenizer = checkpoint.tokenizer
    assert tokenizer is not None
    tokens = torch.tensor(tokenizer.encode("Paris is the capital of"))
    assert 0 < worst_use(checkpoint, tokens, (*OUTSIDE, "blocks.0.", "blocks.15."), 1) <= 1


@pytest.mark.parametrize("kernel", ["rms_norm_backward", "softmax_backward", "normalize_backward"])
def test_a_gradient_that_is_off_by_a_hundredth_breaks_the_bound(kernel: str) -> None:
    right = getattr(kernels, kernel)

    def wrong(*args: object) -> object:
        result = right(*args)
        return (result[0] * 1.01, result[1]) if isinstance(result, tuple) else result * 1.01

    with mock.patch.object(kernels, kernel, wrong):
        assert worst_use(random_checkpoint("qwen3"), TOKENS, ("blocks.0.",)) > 1
