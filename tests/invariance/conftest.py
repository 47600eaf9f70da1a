"""Fixtures of the invariance tests."""

from __future__ import annotations

from pathlib import Path

import bitlens
import pytest
import torch
from bitlens.model.transformer import HookedTransformer
from invariance.subjects import SUBJECTS, small, with_dtypes

LATER = ("bf16_weights", "hf_bf16")


@pytest.fixture(params=with_dtypes(SUBJECTS, as_pairs=True))
def model(request: pytest.FixtureRequest) -> HookedTransformer:
    """A small random model of each architecture and source in each dtype, native."""
    return small(*request.param)


@pytest.fixture(
    scope="module",
    params=["fp32", "bf16", *(pytest.param(d, marks=pytest.mark.nightly) for d in LATER)],
)
def smollm2(request: pytest.FixtureRequest, smollm2_path: Path) -> HookedTransformer:
    """SmolLM2 in each dtype, native."""
    return bitlens.load(smollm2_path, dtype=request.param)


@pytest.fixture(autouse=True)
def _torch_on_one_thread(_settings_restored: None) -> None:
    """torch only copies here; its threads would spin beside ours on machines with few cores."""
    torch.set_num_threads(1)
