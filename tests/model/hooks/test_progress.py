"""Bars of long work: none for the patient, one for who waits, none where nobody looks."""

from __future__ import annotations

from io import StringIO

import pytest
from bitlens.model.hooks import progress
from rich.console import Console


@pytest.mark.parametrize(
    ("patience", "is_terminal", "is_shown"),
    [(0.0, True, True), (60, True, False), (0, False, False)],
)
def test_track(
    monkeypatch: pytest.MonkeyPatch, patience: float, is_terminal: bool, is_shown: bool
) -> None:
    monkeypatch.setattr(progress, "PATIENCE", patience)
    out = StringIO()
    console = Console(file=out, force_terminal=is_terminal, force_jupyter=False, width=80)
    assert list(progress.track(["a", "b", "c"], "patching", console)) == ["a", "b", "c"]
    assert ("patching" in out.getvalue()) == is_shown
    assert ("2/3" in out.getvalue()) == is_shown


@pytest.mark.parametrize(
    ("patience", "is_terminal", "is_shown"),
    [(0.0, True, True), (60, True, False), (0, False, False)],
)
def test_stage_bars(
    monkeypatch: pytest.MonkeyPatch, patience: float, is_terminal: bool, is_shown: bool
) -> None:
    monkeypatch.setattr(progress, "PATIENCE", patience)
    out = StringIO()
    console = Console(file=out, force_terminal=is_terminal, force_jupyter=False, width=80)
    with progress.stage_bars(console=console) as tell:
        for stage in ("writing", "tokens"):
            for done in (1, 2):
                tell(stage, done, 3)
    for stage in ("writing", "tokens"):
        assert (stage in out.getvalue()) == is_shown


def test_who_reports_gets_no_bar() -> None:
    told: list[tuple[str, int, int]] = []
    with progress.stage_bars(lambda *step: told.append(step)) as tell:
        tell("writing", 1, 3)
    assert told == [("writing", 1, 3)]
