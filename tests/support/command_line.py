"""Runs `bitlens ...` in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from bitlens import cli

Run = Callable[..., tuple[int, str, str]]


def command_runner(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *prefix: str
) -> Run:
    """A function from arguments after `bitlens` and `prefix` to (exit code, stdout, stderr)."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["bitlens", *prefix, *map(str, arguments)])
        with pytest.raises(SystemExit) as leaving:
            cli.main()
        captured = capsys.readouterr()
        code = leaving.value.code
        return (code if isinstance(code, int) else 0), captured.out, captured.err

    return run
