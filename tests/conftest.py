"""Fixtures and settings every test shares."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before torch starts its pools: the tests must not depend on the machine's cores.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import bitlens
import pytest
import torch
from bitlens.model.weights.checkpoint import Checkpoint
from hypothesis import settings
from support.budget import budgets, lines

settings.register_profile("bitlens", deadline=None, max_examples=25, derandomize=True)
settings.register_profile("nightly", deadline=None, max_examples=500)
settings.load_profile("bitlens")

TORCH_THREADS, THREADS, ISA = (
    torch.get_num_threads(),
    bitlens.get_num_threads(),
    bitlens._core.isa_setting(),
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--nightly", action="store_true", help="include tests that run for minutes")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--nightly"):
        settings.load_profile("nightly")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--nightly") or "nightly" in config.option.markexpr:
        return
    nightly = [item for item in items if item.get_closest_marker("nightly")]
    if nightly:
        config.hook.pytest_deselected(items=nightly)
        items[:] = [item for item in items if item not in nightly]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """With --durations, prints the minutes of each folder beside its budget."""
    if terminalreporter.config.option.durations is None:
        return
    reports = terminalreporter.stats.values()
    durations = [(r.nodeid, r.duration) for rs in reports for r in rs if hasattr(r, "duration")]
    allowed = budgets(Path(bitlens.__file__).resolve().parent / "CONTRIBUTING.md")
    terminalreporter.section("minutes by folder")
    for line in lines(durations, allowed):
        terminalreporter.line(line)


@pytest.fixture(autouse=True)
def _settings_restored(request: pytest.FixtureRequest) -> Iterator[None]:
    """Threads, instruction set and torch's flush-to-zero are process-wide: undo what a test did,
    and what was done in a fixture that lives longer than one test.

    By day torch has one thread: tensors are small here, and a second thread spends several times
    the test's own time on waiting. Nightly runs have all of them, and so does a test that is
    marked `threads`.
    """
    if not (request.config.getoption("--nightly") or request.node.get_closest_marker("threads")):
        torch.set_num_threads(1)
    yield
    torch.set_flush_denormal(False)
    torch.set_num_threads(TORCH_THREADS)
    bitlens.set_num_threads(THREADS)
    bitlens._core.set_isa(ISA)


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """SmolLM2-135M-Instruct as a Q4_1 GGUF, fetched once into the user's cache."""
    from bitlens.model.sources import fetch

    return Path(fetch("smollm2-135m-instruct"))


@pytest.fixture(scope="session")
def gemma3_path() -> Path:
    """Gemma 3 270m (base) as a Q4_K_M GGUF, fetched once into the user's cache."""
    from bitlens.model.sources import fetch

    return Path(fetch("gemma-3-270m"))


@pytest.fixture(scope="session")
def gemma3_checkpoint(gemma3_path: Path) -> Checkpoint:
    """The same, opened once: its vocabulary of 262,144 takes seconds to build."""
    from bitlens.model.sources import open_checkpoint

    return open_checkpoint(gemma3_path)
