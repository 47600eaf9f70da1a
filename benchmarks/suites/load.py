"""Loading the GGUF in a fresh process, its file out of the page cache: seconds and peak memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec

from ..report import Row, Target, at_most, spread_row
from . import Options, command


def rows(options: Options) -> Iterator[Row]:
    for dtype in options.dtypes:
        yield from _both(dtype, dtype, options, options.rounds, at_most(6.0), at_most(1.8))
    # transformers reads GGUF files with the gguf package; it takes long, so once.
    if find_spec("gguf") is not None and not options.quick and "fp32" in options.dtypes:
        yield from _both("transformers", "fp32", options, 1, None, None)


def _both(
    who: str,
    dtype: str,
    options: Options,
    rounds: int,
    seconds: Target | None,
    memory: Target | None,
) -> Iterator[Row]:
    probes = [_probe(options.model, dtype, who) for _ in range(rounds)]
    measures = {
        "cold load": ([p["seconds"] for p in probes], "s", seconds),
        "peak memory over the weights": ([p["peak"] / p["weights"] for p in probes], "x", memory),
    }
    for what, (values, unit, target) in measures.items():
        yield spread_row(
            values,
            suite="load",
            what=f"{who}: {what}",
            unit=unit,
            ours="" if unit == "s" else f"weights {probes[0]['weights'] / 2**20:.0f} MiB",
            target=target,
            command=command("load", dtype=dtype),
            details={"probes": probes},
        )


def _probe(model: str, dtype: str, who: str) -> dict[str, float]:
    package = __package__.rpartition(".")[0]
    arguments = [sys.executable, "-m", f"{package}.load_probe", model, dtype, who]
    done = subprocess.run(arguments, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{who} could not load {model} in {dtype}: {done.stderr}")
    result: dict[str, float] = json.loads(done.stdout.strip().split("\n")[-1])
    return result
