"""Settings that tests of numbers share."""

from __future__ import annotations

from pathlib import Path

import bitlens
import pytest
from bitlens import HookedTransformer


@pytest.fixture(scope="session")
def models(smollm2_path: Path) -> tuple[HookedTransformer, HookedTransformer]:
    """SmolLM2 under bf16, twice: what is overridden in one shows against the other."""
    a, b = (bitlens.load(smollm2_path, dtype="bf16") for _ in range(2))
    return a, b
