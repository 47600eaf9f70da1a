"""SmolLM2 and its fp64 truth, read once."""

from __future__ import annotations

from pathlib import Path

import pytest
from bitlens.benchmarks.accuracy import Logits, truth_logits
from bitlens.model.sources import open_checkpoint
from bitlens.model.weights.checkpoint import Checkpoint


@pytest.fixture(scope="session")
def smollm2(smollm2_path: Path) -> Checkpoint:
    return open_checkpoint(smollm2_path)


@pytest.fixture(scope="session")
def truth(smollm2: Checkpoint) -> Logits:
    """Logits by the fp64 path on SmolLM2's own weights."""
    return truth_logits(smollm2, "fp32")
