"""Contenders taking turns, so that a slow minute of the machine hits them all alike.

A round waits, for a while, until others leave the machine alone; one that they disturbed all the
same is thrown away and run again, a few times.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

QUIET = 0.15
"""Cores that others may use, on average, while one contender runs."""

RETRIES = 3
"""Disturbed rounds that are run again, for each round wanted."""

PATIENCE = 4.0
"""Seconds a race may wait for a quiet machine, for each round wanted."""


class Worker:
    """A contender in a process of its own."""

    def __init__(self, name: str, environment: Mapping[str, str], **options: Any) -> None:
        """Starts it; `environment` is added to ours. Raises RuntimeError with what it printed."""
        self.name = name
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, **environment},
            text=True,
        )
        self._ask({"name": name, **options})

    def run(self, task: str, **args: Any) -> dict[str, float]:
        """Runs a task and returns its numbers."""
        return self._ask({"task": task, "args": args})

    def cpu_seconds(self) -> float:
        """Processor time it and its finished children have used."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._log.close()

    def _ask(self, request: dict[str, Any]) -> dict[str, float]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self._log.seek(0)
            raise RuntimeError(f"{self.name} failed on {request}:\n{self._log.read()}")
        result: dict[str, float] = json.loads(answer)
        return result


class Workers:
    """Starts each contender once; a context manager that ends them."""

    def __init__(self) -> None:
        self._workers: dict[str, Worker] = {}

    def get(
        self, name: str, *, environment: Mapping[str, str] | None = None, **options: Any
    ) -> Worker:
        """The worker with these options; `threads` also sets what OpenMP and MKL read."""
        key = json.dumps([name, dict(environment or {}), options], sort_keys=True)
        if key not in self._workers:
            threads = str(options.get("threads", 1))
            added = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "HF_HUB_OFFLINE": "1"}
            self._workers[key] = Worker(name, {**added, **(environment or {})}, **options)
        return self._workers[key]

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for worker in self._workers.values():
            worker.close()


@dataclass(frozen=True)
class Entry:
    """A task of a contender, as a race runs it."""

    worker: Worker
    task: str
    args: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ratio:
    """Median and quartiles of what the rounds gave."""

    median: float
    low: float
    high: float


@dataclass
class Race:
    """What the rounds gave, by entry. `disturbed`: rounds kept though others used the machine."""

    samples: dict[str, list[dict[str, float]]]
    disturbed: int = 0

    def values(self, entry: str, metric: str = "seconds") -> list[float]:
        return [sample[metric] for sample in self.samples[entry]]

    def median(self, entry: str, metric: str = "seconds") -> float:
        return statistics.median(self.values(entry, metric))

    def fastest(self, entry: str, metrics: tuple[str, ...]) -> str:
        """The metric of an entry whose median is least."""
        held = [metric for metric in metrics if metric in self.samples[entry][0]]
        return min(held, key=lambda metric: self.median(entry, metric))


def race(entries: Mapping[str, Entry], rounds: int, *, quiet: bool = True) -> Race:
    """Runs every entry once unmeasured, then in turn, `rounds` times.

    Where processor time is measured, `quiet` may be false: no round waits or is run again.
    """
    for entry in entries.values():
        entry.worker.run(entry.task, **entry.args)
    result = Race({name: [] for name in entries})
    spare, patience = (RETRIES * rounds, PATIENCE * rounds) if quiet else (0, 0.0)
    while len(next(iter(result.samples.values()))) < rounds:
        patience -= _wait_for_quiet(patience)
        turns = {name: _turn(entry) for name, entry in entries.items()}
        if disturbed := any(others > QUIET for _, others in turns.values()):
            spare -= 1
            if spare >= 0:
                continue
        result.disturbed += disturbed
        for name, (sample, _) in turns.items():
            result.samples[name].append(sample)
    return result


def spread(values: list[float]) -> Ratio:
    """Median and quartiles."""
    if len(values) == 1:
        return Ratio(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Ratio(median, low, high)


def _wait_for_quiet(patience: float) -> float:
    """Returns when others are using less than QUIET, or out of patience; the seconds it took."""
    started, others = time.perf_counter(), 1.0
    while others > QUIET and time.perf_counter() - started < patience:
        before = _busy_seconds()
        time.sleep(0.5)
        others = (_busy_seconds() - before) / 0.5
    return time.perf_counter() - started


def _turn(entry: Entry) -> tuple[dict[str, float], float]:
    """One run's numbers, and how many cores others used meanwhile."""
    started, busy, own = time.perf_counter(), _busy_seconds(), entry.worker.cpu_seconds()
    sample = entry.worker.run(entry.task, **entry.args)
    elapsed = time.perf_counter() - started
    others = (_busy_seconds() - busy) - (entry.worker.cpu_seconds() - own)
    # Both clocks tick in hundredths: short runs would look disturbed by rounding alone.
    return sample, max(0.0, others - 0.03) / max(elapsed, 0.05)


def _busy_seconds() -> float:
    """Processor seconds used since boot by all, those stolen by other machines included."""
    fields = [int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
