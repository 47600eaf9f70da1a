"""docs/alignment.md runs."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import bitlens
import bitlens.alignment.pipeline
import pytest
from bitlens.model.load import load
from support.standin_model import speaking_checkpoint

PAGE = Path(bitlens.__file__).resolve().parent / "docs" / "alignment.md"


def _run_page() -> dict[str, Any]:
    """Its files are written, its code runs in order and in one namespace."""
    page = PAGE.read_text()
    constitution, settings = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    Path("mine.toml").write_text(constitution)
    Path("cai.toml").write_text(settings)
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 3
    assert len([line for line in blocks[0].splitlines() if line.strip()]) <= 10
    namespace: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), namespace)
    return namespace


def test_it_runs_on_a_tiny_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def small(name: str, **options: Any) -> Any:
        return load(speaking_checkpoint(), **options)

    monkeypatch.setattr(bitlens, "load", small)
    monkeypatch.setattr(sys.modules["bitlens.alignment.pipeline.stages"], "load", small)
    found = _run_page()
    assert found["found"].report.exists()
    assert len(found["labels"].rows) == 12


@pytest.mark.nightly
def test_it_runs_on_the_model_that_it_names(
    smollm2_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _run_page()["found"].report.exists()
