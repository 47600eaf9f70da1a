"""The answers of the command before it works: fast, with near matches, completed by the shell."""

from __future__ import annotations

import io
import logging
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bitlens
import pytest
from bitlens.audit.evaluations.files import read_lines
from bitlens.cli import console
from bitlens.cli.command import GROUPS, make_app, only_names
from bitlens.cli.console import show
from bitlens.cli.files import check_output
from bitlens.interp import load_dictionary
from bitlens.interp.probes import Probe
from bitlens.interp.probes.data.catalog import open_dataset
from bitlens.model.sources import ALIASES
from bitlens.names import ALIASES as NAMES
from bitlens.names import did_you_mean, near_files
from bitlens.precision import PrecisionContract
from rich.console import Console
from rich.table import Table
from support.command_line import command_runner
from support.tiny_llama import write_tiny_llama


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs `bitlens ...`; returns (exit code, stdout, stderr)."""
    return command_runner(capsys, monkeypatch)


def _cpu_seconds(*words: str) -> float:
    """The lesser of two runs: other programs on the machine make no difference."""

    def once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *words], capture_output=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    return min(once(), once())


@pytest.mark.nightly
def test_answers_cost_little_more_than_the_command_line_library() -> None:
    """0.3 s on a desk, said as a ratio; torch alone would take ten times as long."""
    library = _cpu_seconds("-c", "import typer, typer.rich_utils, rich.progress")
    bare = _cpu_seconds("-c", "pass")
    assert _cpu_seconds("-m", "bitlens", "--version") < max(library, 3 * bare)
    assert _cpu_seconds("-m", "bitlens", "generat") < library
    # Beside the library: its reading of a command's words imports pydantic where there is one.
    for words in (("--help",), ("info", "smollm2-135m-instrct"), ("audit", "--bogus")):
        assert _cpu_seconds("-m", "bitlens", *words) < 2.2 * library, words


def test_one_group_alone_is_the_group_of_all() -> None:
    import typer

    whole: Any = typer.main.get_command(make_app([]))
    assert len(whole.commands) == len(GROUPS)
    for name, command in whole.commands.items():
        alone: Any = typer.main.get_command(make_app([name]))
        assert list(alone.commands) == [name]
        found, expected = ([p.opts for p in c.params] for c in (alone.commands[name], command))
        assert found == expected


def test_help_is_the_same_without_the_parameters_that_it_does_not_show(run: Any) -> None:
    import typer

    whole: Any = typer.main.get_command(make_app([]))
    listed: Any = typer.main.get_command(only_names(make_app([])))
    helps = [
        {name: (c.help, c.hidden) for name, c in each.commands.items()} for each in (whole, listed)
    ]
    assert helps[0] == helps[1]
    assert any(command.params for command in whole.commands.values())
    assert not any(
        parameter.name != "help" for c in listed.commands.values() for parameter in c.params
    )
    _, out, _ = run("--help")
    assert all(name in out for name in whole.commands)


def test_every_alias_is_known() -> None:
    assert tuple(ALIASES) == NAMES


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("generat",), "no such command: generat; did you mean 'generate'?"),
        (("context-kost",), "did you mean 'context-cost'"),
        (("info", "smollm2-135m-instrct"), "did you mean 'smollm2-135m-instruct'?"),
        (("info", "mdel.gguf"), "did you mean 'model.gguf'?"),
        (("audit", "model.gguf", "--prompts", "promts.txt"), "did you mean 'prompts.txt'?"),
        (("audit", "model.gguf", "--n-promts", "3"), "--n-prompts"),
        (("probe", "evall"), "eval"),
    ],
)
def test_near_matches(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], hint: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("model.gguf", "prompts.txt"):
        (tmp_path / name).touch()
    code, _, err = run(*words)
    assert code == 2
    assert hint in " ".join(err.split())


@pytest.mark.parametrize(
    ("ask", "near"),
    [
        (lambda: PrecisionContract("rms_nrom"), "rms_norm"),
        (lambda: Probe.load("harn"), "harm"),
        (lambda: Probe.load("my_prob"), "my_probe"),
        (
            lambda: load_dictionary("smollm2-135m-instruct/blocks.15.hook_resid_pst"),
            "hook_resid_post",
        ),
        (lambda: open_dataset("rho-refusl"), "rho-refusal"),
        (lambda: open_dataset("texs.jsonl"), "texts.jsonl"),
        (lambda: list(read_lines(Path("rum.jsonl"))), "run.jsonl"),
    ],
)
def test_whatever_has_a_name_has_near_matches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ask: Callable[[], object], near: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("my_probe", "texts.jsonl", "run.jsonl"):
        (tmp_path / name).touch()
    with pytest.raises((OSError, ValueError), match=f"did you mean .*{near}"):
        ask()


def test_nothing_is_offered_where_nothing_is_near(tmp_path: Path) -> None:
    assert did_you_mean("zzz", NAMES) == ""
    assert near_files(tmp_path / "nothing") == ""
    with pytest.raises(FileNotFoundError, match="there is no directory"):
        check_output(tmp_path / "no" / "page.html")


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("bitlens gen", "generate"),
        ("bitlens info smo", NAMES[0]),
        ("bitlens audit x --ch", "--checked"),
    ],
)
def test_the_shell_completes(typed: str, offered: str) -> None:
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
    environment = {**os.environ, **words, "_BITLENS_COMPLETE": "complete_bash"}
    command = [
        sys.executable,
        "-c",
        "import sys; sys.argv = ['bitlens']; from bitlens.cli import main; main()",
    ]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert offered in ran.stdout.split()


@pytest.mark.parametrize("width", [10, 30, 200])
def test_a_narrow_terminal_loses_no_digit(width: int) -> None:
    table = Table(title="a title of several words")
    table.add_column("an operation, in words that may wrap")
    table.add_column("values", justify="right")
    table.add_column("of bound", justify="right")
    table.add_row("blocks.29.mlp.down and more of it", "134,515,008", "0.123456789")
    written = io.StringIO()
    show(table, Console(file=written, width=width))
    text = written.getvalue()
    assert "134,515,008" in text
    assert "0.123456789" in text
    assert "blocks.29.mlp.down" in text
    assert "…" not in text


def test_generate_says_what_it_waits_for_and_why_it_ends(
    run: Any, smollm2_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal("Once"))
    monkeypatch.setattr(console.err, "quiet", False)
    code, _, err = run("generate", smollm2_path, "--max-new-tokens", "2")
    assert code == 0
    said = re.sub(r"\s+", " ", err)
    assert "Type the prompt, then Ctrl-D" in said
    assert "stopped at 2 tokens" in said


def test_logs_are_quiet_until_somebody_asks(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_tiny_llama(tmp_path)
    capfd.readouterr()
    bitlens.load(folder)
    assert capfd.readouterr() == ("", "")
    assert not caplog.messages
    with caplog.at_level(logging.INFO, "bitlens"):
        bitlens.load(folder)
    assert caplog.messages[0].startswith(f"loaded {folder} under fp32")
