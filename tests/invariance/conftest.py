"""Fixtures of the invariance tests."""

from __future__ import annotations

from pathlib import Path

import bitlens
import pytest
import torch
from bitlens.model.transformer import HookedTransformer
from invariance.subjects import REAL_MODEL_DTYPES, SUBJECTS, small, with_dtypes


@pytest.fixture(params=with_dtypes(SUBJECTS, as_pairs=True))
def model(request: pytest.FixtureRequest) -> HookedTransformer:
    """A small random model of each architecture and source in each dtype, native."""
    return small(*request.param)


@pytest.fixture(params=with_dtypes(SUBJECTS, as_pairs=True, in_turn=True))
def model_in_turn(request: pytest.FixtureRequest) -> HookedTransformer:
    """The same, each in one dtype; nightly in all. For tests that take seconds."""
    return small(*request.param)


@pytest.fixture(scope="module", params=REAL_MODEL_DTYPES)
def smollm2(request: pytest.FixtureRequest, smollm2_path: Path) -> HookedTransformer:
    """SmolLM2 in each dtype, native."""
    return bitlens.load(smollm2_path, dtype=request.param)


@pytest.fixture(autouse=True)
def _torch_on_one_thread(_settings_restored: None) -> None:
    """torch only copies here; its threads would spin beside ours on machines with few cores."""
    torch.set_num_threads(1)
