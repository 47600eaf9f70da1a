"""One pass over 512 tokens, in bf16 over 2048, too; the logits of every position."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from ..race import Entry, Worker, Workers, race
from ..report import Row, Target, at_least, ratio_row
from . import HAS_TILES, NO_BF16, TILES, WITHOUT, Options, command, threads_text

PACKED = "bitlens, packed file"


def rows(options: Options) -> Iterator[Row]:
    with Workers() as workers:
        for threads in options.threads:
            setting: dict[str, Any] = {"model": options.model, "threads": threads}
            if "bf16" in options.dtypes:
                yield from _bf16(workers, options, threads, setting)
            if "fp32" in options.dtypes:
                dense = workers.get("bitlens", dtype="fp32", storage="fp32", **setting)
                packed = workers.get("bitlens", dtype="fp32", **setting)
                ours = {"bitlens": dense, PACKED: packed}
                peers = {"transformers": workers.get("transformers", dtype="fp32", **setting)}
                if find_spec("llama_cpp") is not None:
                    peers["llama.cpp"] = workers.get("llama.cpp", **setting)
                yield from _compare(ours, peers, options, threads, "fp32", at_least(1.0))


def _bf16(
    workers: Workers, options: Options, threads: int, setting: dict[str, Any]
) -> Iterator[Row]:
    # With the same instructions a core's peak is little more than twice what transformers reaches.
    environments: tuple[tuple[str, dict[str, str], Target], ...] = (
        ("", {}, at_least(1.5 if HAS_TILES else 1.0)),
        (WITHOUT, NO_BF16, at_least(2.6)),
    )
    for suffix, environment, target in environments:
        ours, peers = (
            {name + suffix: workers.get(name, environment=environment, dtype="bf16", **setting)}
            for name in ("bitlens", "transformers")
        )
        yield from _compare(ours, peers, options, threads, "bf16", target)
        if suffix == "":
            goal, needs = (target, "") if HAS_TILES else (None, TILES)
            yield from _compare(ours, peers, options, threads, "bf16", goal, 2048, needs)


def _compare(
    ours: dict[str, Worker],
    peers: dict[str, Worker],
    options: Options,
    threads: int,
    dtype: str,
    target: Target | None,
    full: int = 512,
    needs: str = "",
) -> Iterator[Row]:
    n_tokens = options.size(full, 16)
    contenders = {**ours, **peers}
    entries = {
        name: Entry(worker, "prefill", {"n_tokens": n_tokens})
        for name, worker in contenders.items()
    }
    result = race(entries, options.rounds)
    for us in ours:
        for peer in peers:
            kind = f"{dtype} from the packed file" if us == PACKED else dtype
            yield ratio_row(
                result,
                (peer, "seconds"),
                (us, "seconds"),
                suite="prefill",
                what=f"{kind}, {n_tokens} tokens, {threads_text(threads)}, against {peer}",
                ours=f"{n_tokens / result.median(us):.0f} tok/s",
                peer=f"{n_tokens / result.median(peer):.0f} tok/s",
                target=None if peer == "llama.cpp" else target,
                needs=needs,
                command=command("prefill", threads, dtype),
            )
