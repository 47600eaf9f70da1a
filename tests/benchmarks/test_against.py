"""benchmarks/against.py: two builds in pairs, on a tiny model."""

from __future__ import annotations

import itertools
import math
import random
import shutil
from pathlib import Path

import bitlens
import pytest
import torch
import transformers
import typer
from bitlens.benchmarks import __main__ as command_line
from bitlens.benchmarks import race
from bitlens.benchmarks.against import Pair, median_interval, pairs
from bitlens.benchmarks.builds import build_of, this_build
from bitlens.benchmarks.suites import Options, Suite
from typer.testing import CliRunner

ROOT = Path(bitlens.__file__).parent


@pytest.fixture(autouse=True)
def _any_machine_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tested here does not depend on how busy the machine is: no round waits or repeats."""
    monkeypatch.setattr(race, "QUIET", math.inf)
    monkeypatch.setattr(race, "PATIENCE", 0.0)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of random weights that loads in no time."""
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        vocab_size=64,
        max_position_embeddings=64,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def slow_checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This tree under another version, whose clock adds 50 milliseconds to whatever it times."""
    checkout = tmp_path_factory.mktemp("checkout")
    package = checkout / "build" / "link" / "bitlens"
    shutil.copytree(ROOT / "benchmarks", package / "benchmarks")
    for entry in ROOT.iterdir():
        if entry.suffix in {".py", ".so"} or entry.name in {
            "audit",
            "interp",
            "model",
            "precision",
        }:
            (package / entry.name).symlink_to(entry.resolve())
    (package / "version.py").unlink()
    (package / "version.py").write_text('__version__ = "0.0.7"\n')
    timing = package / "benchmarks" / "contenders" / "timing.py"
    honest = "    return now() - started\n"
    assert honest in timing.read_text()
    timing.write_text(timing.read_text().replace(honest, honest.rstrip() + " + 0.05\n"))
    return checkout


def options(model: Path, rounds: int) -> Options:
    return Options(model=str(model), threads=(1,), dtypes=("fp32",), rounds=rounds, quick=True)


def test_both_builds_are_the_ones_that_were_meant(slow_checkout: Path) -> None:
    ours, theirs = this_build(), build_of(slow_checkout)
    assert (ours.version, theirs.version) == (bitlens.__version__, "0.0.7")
    assert ours.path == ROOT.parent
    assert theirs.path == slow_checkout / "build" / "link"


def test_a_slower_build_is_told_from_this_one(tiny: Path, slow_checkout: Path) -> None:
    """7 rounds: all ratios lie over 1, and so does the whole interval."""
    measured = list(pairs([Suite.prefill], slow_checkout, options(tiny, 7)))
    assert [pair.what for pair in measured] == [
        "prefill, every position, fp32, 1 thread",
        "prefill, last position, fp32, 1 thread",
    ]
    for pair in measured:
        assert min(pair.theirs) > 0.05
        assert pair.verdict == "faster"


def test_command_line(tiny: Path, slow_checkout: Path) -> None:
    """Every paired suite runs, for the dtype and threads that were asked for."""
    app = typer.Typer()
    app.command()(command_line.main)
    words = ["--against", str(slow_checkout), "--model", str(tiny), "--quick"]
    ran = CliRunner().invoke(app, [*words, "--threads", "1", "--dtype", "fp32"])
    assert ran.exit_code == 0, ran.output
    for task in (
        "decode a token (loop)",
        "decode a token (generate)",
        "prefill, every position",
        "prefill, last position",
        "keep every residual stream",
        "keep every default hook",
    ):
        assert f"{task}, fp32, 1 thread:" in ran.output
    assert "bf16" not in ran.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["load", "--against", str(ROOT)], "choose from decode, prefill, hooks"),
        (["prefill", "--against", "/nowhere"], "run `make build` there"),
        (["prefill", "--against", str(ROOT), "--show", "table"], "--against keeps none"),
    ],
)
def test_refuses(words: list[str], message: str) -> None:
    app = typer.Typer()
    app.command()(command_line.main)
    ran = CliRunner(env={"COLUMNS": "300"}).invoke(app, [*words, "--model", "x", "--quick"])
    assert ran.exit_code == 2
    assert message in " ".join(ran.output.replace("│", " ").split())


def test_a_build_that_does_not_import_is_refused(slow_checkout: Path, tmp_path: Path) -> None:
    package = tmp_path / "build" / "link" / "bitlens"
    (package / "benchmarks").mkdir(parents=True)
    (package / "benchmarks" / "worker.py").touch()
    (package / "__init__.py").write_text("raise ImportError('half a build')")
    with pytest.raises(ValueError, match=r"(?s)cannot be imported.*half a build"):
        build_of(tmp_path)


def test_ratios_are_paired_by_round() -> None:
    """Each round is twice as slow as the one before: only the pairs show that ours is faster."""
    theirs = [float(2**i) for i in range(9)]
    pair = Pair(what="", ours=[x / 1.5 for x in theirs], theirs=theirs)
    assert pair.ratio == 1.5
    assert pair.verdict == "faster"
    assert Pair(what="", ours=theirs, theirs=pair.ours).verdict == "slower"
    assert Pair(what="", ours=theirs, theirs=theirs[::-1]).verdict == "no difference shown"


def test_few_rounds_show_nothing() -> None:
    """5 coins fall alike in 1 of 16 cases: more than the twentieth that may err."""
    pair = Pair(what="", ours=[1.0] * 5, theirs=[2.0] * 5)
    assert pair.interval == (0.0, math.inf)
    assert pair.verdict == "no difference shown"


@pytest.mark.parametrize("n", range(6, 13))
def test_interval_holds_the_median_as_often_as_it_says(n: int) -> None:
    """Counted over all 2^n ways in which n values can fall on the two sides of the median."""
    values = list(range(n))
    low, high = median_interval(random.Random(n).sample(values, n))
    held = sum(low < sum(sides) <= high for sides in itertools.product((0, 1), repeat=n))
    narrower = sum(
        low + 1 < sum(sides) <= high - 1 for sides in itertools.product((0, 1), repeat=n)
    )
    assert held / 2**n >= 0.95 > narrower / 2**n
