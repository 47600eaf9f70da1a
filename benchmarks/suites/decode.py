"""Greedy decoding, a token at a time: 32 prompt tokens, 64 new ones.

Ours is `generate`; Hugging Face gets the faster of `generate` and a loop by hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from ..race import Entry, Race, Worker, Workers, race
from ..report import Row, Target, at_least, ratio_row
from . import NO_BF16, WITHOUT, Options, command, threads_text

_TARGETS = {"bf16": {1: 3.0, 2: 4.0}, "fp32": {1: 1.7, 2: 1.9}}
_WAYS = ("loop", "generate")


def rows(options: Options) -> Iterator[Row]:
    with Workers() as workers:
        for threads in options.threads:
            if "bf16" in options.dtypes:
                yield from _bf16(workers, options, threads)
            if "fp32" in options.dtypes:
                yield from _fp32(workers, options, threads)


def _bf16(workers: Workers, options: Options, threads: int) -> Iterator[Row]:
    setting: dict[str, Any] = {"model": options.model, "threads": threads, "dtype": "bf16"}
    ours = workers.get("bitlens", **setting)
    contenders = {"bitlens": ours, "transformers": workers.get("transformers", **setting)}
    for name in tuple(contenders):
        contenders[name + WITHOUT] = workers.get(name, environment=NO_BF16, **setting)
    result = _race(contenders, workers, options, threads)
    target = at_least_of("bf16", threads)
    yield _against(result, "transformers", "bf16", threads, target)
    yield _against(
        result, "transformers" + WITHOUT, "bf16", threads, target, ours="bitlens" + WITHOUT
    )
    yield _fed(result, ours, "bf16", threads, at_least(0.75) if threads == 2 else None)


def _fp32(workers: Workers, options: Options, threads: int) -> Iterator[Row]:
    setting: dict[str, Any] = {"model": options.model, "threads": threads}
    dense = workers.get("bitlens", dtype="fp32", storage="fp32", **setting)
    packed = workers.get("bitlens", dtype="fp32", **setting)
    peer = workers.get("transformers", dtype="fp32", **setting)
    result = _race({"bitlens": dense, "transformers": peer}, workers, options, threads)
    yield _against(result, "transformers", "fp32", threads, at_least_of("fp32", threads))
    yield _fed(result, dense, "fp32", threads, at_least(0.75) if threads == 2 else None)

    contenders = {"bitlens": packed, "transformers": peer}
    if find_spec("llama_cpp") is not None:
        contenders["llama.cpp"] = workers.get("llama.cpp", **setting)
    result = _race(contenders, workers, options, threads)
    kind = "fp32 from the packed file"
    yield _against(result, "transformers", kind, threads, at_least(4.0), "fp32")
    if "llama.cpp" in contenders:
        yield _against(result, "llama.cpp", kind, threads, at_least(1.2), "fp32")
    yield _fed(result, packed, kind, threads, None, "fp32")


def at_least_of(dtype: str, threads: int) -> Target | None:
    bound = _TARGETS[dtype].get(threads)
    return None if bound is None else at_least(bound)


def _race(contenders: dict[str, Worker], workers: Workers, options: Options, threads: int) -> Race:
    args = {"n_prompt": options.size(32, 4), "n_new": options.size(64, 2)}
    entries = {name: Entry(worker, "decode", args) for name, worker in contenders.items()}
    memory = workers.get("bandwidth", threads=threads)
    entries["memory"] = Entry(memory, "read", {"mebibytes": options.size(512, 64)})
    return race(entries, options.rounds)


def _against(
    result: Race,
    peer: str,
    kind: str,
    threads: int,
    target: Target | None,
    dtype: str = "",
    ours: str = "bitlens",
) -> Row:
    way = result.fastest(peer, _WAYS)
    by_hand = 1 / result.median(ours, "loop")
    return ratio_row(
        result,
        (peer, way),
        (ours, "generate"),
        suite="decode",
        what=f"{kind}, {threads_text(threads)}, against {peer}",
        ours=f"{1 / result.median(ours, 'generate'):.1f} tok/s (by hand {by_hand:.1f})",
        peer=f"{1 / result.median(peer, way):.1f} tok/s ({way})",
        target=target,
        command=command("decode", threads, dtype or kind),
    )


def _fed(
    result: Race, worker: Worker, kind: str, threads: int, target: Target | None, dtype: str = ""
) -> Row:
    """Our speed over the speed at which memory could deliver the weights."""
    n_bytes = worker.run("weights")["bytes"]
    for sample in result.samples["memory"]:
        sample["seconds"] = n_bytes / sample["bytes_per_second"]
    rate = result.median("memory", "bytes_per_second") / 1e9
    return ratio_row(
        result,
        ("memory", "seconds"),
        ("bitlens", "generate"),
        suite="decode",
        what=f"{kind}, {threads_text(threads)}, of what memory could feed",
        ours=f"{n_bytes / result.median('bitlens', 'generate') / 1e9:.1f} GB/s",
        peer=f"{rate:.1f} GB/s",
        target=target,
        command=command("decode", threads, dtype or kind),
        details={"weight_bytes": n_bytes},
    )
