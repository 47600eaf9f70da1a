"""An engine: the first token of a prompt whose beginning is known, and many requests at a time."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from ...audit.context_cost.cost import context_cost
from ...model.sources import open_checkpoint
from ..contenders.serving import NEW, mixed_work
from ..race import Entry, Race, Workers, race
from ..report import Row, Target, at_least, at_most, ratio_row, spread_row
from . import Options, command, threads_text

PREFIXES = (256, 512, 1024, 2048, 4096)


def rows(options: Options) -> Iterator[Row]:
    threads = max(options.threads)
    with Workers() as workers:
        for dtype in options.dtypes:
            setting: dict[str, Any] = {"model": options.model, "threads": threads, "dtype": dtype}
            contenders = {
                "bitlens": workers.get("bitlens serving", **setting),
                "transformers": workers.get("transformers serving", **setting),
            }
            if find_spec("llama_cpp") is not None:
                contenders["llama.cpp"] = workers.get(
                    "llama.cpp", model=options.model, threads=threads, n_ctx=8192
                )
            for n in (64, 128) if options.quick else PREFIXES:
                entries = {
                    name: Entry(worker, "first_token" if name != "llama.cpp" else "prompt_cache",
                                {"n_prefix": n})
                    for name, worker in contenders.items()
                }  # fmt: skip
                result = race(entries, max(1, options.rounds if n <= 1024 else options.rounds // 2))
                yield from _first_token(result, options.model, n, threads, dtype)
            work = mixed_work(options.size(64, 32))
            if options.quick:
                work = [(p // 8, a // 8) for p, a in work]
            yield from _throughput(contenders, work, options, threads, dtype)


def _first_token(result: Race, model: str, n: int, threads: int, dtype: str) -> Iterator[Row]:
    what = f"{dtype}, {n} known tokens and {NEW} new ones"
    ideal = _ideal(model, n)
    for name in result.samples:
        text = f"{what}: cold / warm, {name}"
        yield _row(result, text, (name, "cold"), (name, "warm"), threads, dtype,
                   details={"ideal": ideal}, peer=f"by FLOPs {ideal:.1f}x")  # fmt: skip
    warm, resident = result.values("bitlens", "warm"), result.values("bitlens", "resident")
    measured: dict[str, Any] = {
        "suite": "serving",
        "command": command("serving", threads, dtype),
        "disturbed": result.disturbed,
    }
    yield spread_row(
        # The goal is 1.1 times the pass and 2 ms.
        [(w - 0.002) / r for w, r in zip(warm, resident, strict=True)],
        what=f"{what}: (warm - 2 ms) / a pass over the new tokens alone",
        target=at_most(1.1),
        **measured,
    )
    yield spread_row(
        [1e3 * x for x in result.values("bitlens", "lookup")],
        what=f"looking up {n + NEW} tokens",
        unit="ms",
        target=at_most(1.0),
        **measured,
    )


def _throughput(
    contenders: dict[str, Any],
    work: list[tuple[int, int]],
    options: Options,
    threads: int,
    dtype: str,
) -> Iterator[Row]:
    ours, peer = contenders["bitlens"], contenders["transformers"]
    entries = {
        "engine": Entry(ours, "serve", {"work": work}),
        "static": Entry(ours, "static", {"work": work}),
        "transformers": Entry(peer, "serve", {"work": work}),
    }
    result = race(entries, max(1, options.rounds // 3))
    what = f"{dtype}, {len(work)} mixed requests, 32 at a time"
    tokens = sum(a for _, a in work)
    for name, text, target in (
        ("static", "a static batch without padding", at_least(0.85)),
        ("transformers", "transformers' batched generate", at_least(1.5)),
    ):
        yield _row(
            result, f"{what}: beside {text}", (name, "seconds"), ("engine", "seconds"), threads,
            dtype, target=target, ours=f"{tokens / result.median('engine'):.0f} new tokens/s",
            peer=f"{tokens / result.median(name):.0f} new tokens/s",
        )  # fmt: skip


def _row(
    result: Race,
    what: str,
    numerator: tuple[str, str],
    denominator: tuple[str, str],
    threads: int,
    dtype: str,
    *,
    target: Target | None = None,
    **fields: Any,
) -> Row:
    return ratio_row(
        result, numerator, denominator,
        suite="serving", what=f"{what}, {threads_text(threads)}", target=target,
        command=command("serving", threads, dtype), **fields,
    )  # fmt: skip


def _ideal(model: str, n: int) -> float:
    """FLOPs of the whole prompt over those of its new tokens on known ones; both end in logits."""
    config = open_checkpoint(model).config
    whole, known = (context_cost(config, each).model_flops for each in (n + NEW, n))
    logits = 2 * config.d_vocab * config.d_model
    return whole / (whole - known + logits)
