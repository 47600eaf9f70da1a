"""Settings that tests of numbers share."""

from __future__ import annotations

from pathlib import Path

import bitlens
import pytest
import torch
from bitlens import HookedTransformer


@pytest.fixture(autouse=True)
def _one_thread(request: pytest.FixtureRequest, _settings_restored: None) -> None:
    """One thread of torch by day: its tensors are small here, and a second thread spends several
    times the test's own time on waiting. Nightly runs have all of them, and so does a test that is
    marked `threads`."""
    if not (request.config.getoption("--nightly") or request.node.get_closest_marker("threads")):
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def models(smollm2_path: Path) -> tuple[HookedTransformer, HookedTransformer]:
    """SmolLM2 under bf16, twice: what is overridden in one shows against the other."""
    a, b = (bitlens.load(smollm2_path, dtype="bf16") for _ in range(2))
    return a, b
