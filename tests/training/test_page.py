"""docs/training.md runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import bitlens
import pytest
from support.training_models import small_model

PAGE = Path(bitlens.__file__).resolve().parent / "docs" / "training.md"


def _run_page() -> dict[str, Any]:
    """In order and in one namespace, as a reader would paste it."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 6
    assert len([line for line in blocks[0].splitlines() if line.strip()]) <= 10
    namespace: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), namespace)
    return namespace


def test_it_runs_on_a_tiny_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bitlens, "load", lambda name, **options: small_model(**options))
    found = _run_page()
    assert found["run"].metrics[0]["logprob_gap"] == 0
    assert found["gradient"].abs().max() > 0


@pytest.mark.nightly
def test_it_runs_on_the_model_that_it_names(
    smollm2_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = _run_page()
    assert found["run"].metrics[0]["logprob_gap"] == 0
