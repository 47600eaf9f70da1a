"""Draws have the probabilities they should: chi-squared against the exact distribution."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bitlens.model.sampling import SamplingParams, sample
from support.sampling_frequencies import ROWS, assert_fits, frequencies

SHAPES = {
    "flat": torch.zeros(64),
    "peaked": torch.linspace(0, -8, 64),
    "heavy": -1.1 * torch.arange(1, 65).float().log(),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("draws", [340_000, pytest.param(10**7, marks=pytest.mark.nightly)])
def test_softmax(shape: str, draws: int) -> None:
    """Over the three shapes 10^6 draws in every run, 3 * 10^7 nightly."""
    row_V = SHAPES[shape]
    probability = torch.softmax(row_V.double(), 0).numpy()
    assert_fits(frequencies(row_V, SamplingParams(seed=11), draws), probability)


def test_a_nucleus_is_renormalised() -> None:
    row_V = SHAPES["peaked"]
    probability = torch.softmax(row_V.double(), 0).numpy()
    kept = np.cumsum(probability) - probability < float(np.float32(0.8))
    probability = np.where(kept, probability, 0) / probability[kept].sum()
    assert_fits(frequencies(row_V, SamplingParams(seed=12, top_p=0.8), 100_000), probability)


def test_noise_of_neighbours_is_independent() -> None:
    """The tokens of one Philox block, of consecutive positions and of consecutive draws."""
    x = torch.zeros(ROWS, 4)
    p = SamplingParams(seed=1)
    positions = torch.arange(ROWS)
    base = sample(x, p, positions=positions).tokens
    for other in (
        sample(x, p, positions=positions + 1).tokens,
        sample(x, p, positions=positions, draws=torch.ones(ROWS, dtype=torch.int64)).tokens,
        sample(x, SamplingParams(seed=2), positions=positions).tokens,
    ):
        pairs = np.bincount((4 * base + other).numpy(), minlength=16)
        assert_fits(pairs, np.full(16, 1 / 16))
