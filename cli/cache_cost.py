"""`bitlens cache-cost`."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .._core import numerics_version
from ..policies import NativePolicyName
from ..version import __version__
from .options import Json, NativeDtypeOption
from .progress import progress_bars

if TYPE_CHECKING:
    from ..audit.cache_cost import Replay, TracedRequest


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        name="cache-cost",
        epilog="Examples:  bitlens cache-cost trace.jsonl"
        "  |  bitlens cache-cost trace.jsonl --model smollm2-135m-instruct --measure",
    )(cache_cost)


def cache_cost(
    trace: Annotated[Path, typer.Argument(help="Requests, one JSON object a line.")],
    model: Annotated[
        str | None, typer.Option(help="Reads text, and says how long a first token takes.")
    ] = None,
    prices: Annotated[
        str, typer.Option(help="anthropic-5m, anthropic-1h, or a TOML file.")
    ] = "anthropic-5m",
    measure: Annotated[
        bool, typer.Option("--measure", help="Run the model, rather than count operations.")
    ] = False,
    dtype: NativeDtypeOption = NativePolicyName.bf16,
    as_json: Json = False,
) -> None:
    """Replay a trace of requests under prices: hits, time to the first token, and the bill.

    "90% off" is the price of a read: what many uses of a prefix save comes close, and never there.
    """
    from ..audit.cache_cost import read_prices, read_trace, replay
    from ..model.sources.resolve import open_checkpoint

    if measure and model is None:
        raise ValueError("--measure runs a model: give one by --model")
    charged = read_prices(prices)
    checkpoint = None if model is None else open_checkpoint(model)
    requests = read_trace(trace, None if checkpoint is None else checkpoint.tokenizer)
    found = replay(requests, charged)
    first: dict[str, Any] | None = None
    if model is not None and checkpoint is not None:
        first = (
            _measured(model, dtype, requests, charged.ttl)
            if measure
            else _counted(checkpoint.config, found)
        )
    if as_json:
        typer.echo(json.dumps(_facts(trace, prices, found, first), indent=2))
    else:
        _print(trace, prices, found, first)


def _measured(
    model: str, dtype: NativePolicyName, requests: list[TracedRequest], ttl: float
) -> dict[str, Any]:
    from ..audit.cache_cost import measure_first_tokens
    from .loading import load_model

    loaded = load_model(model, dtype)
    with progress_bars() as tell:
        found = measure_first_tokens(loaded, requests, ttl, partial(tell, "requests"))
    return {"unit": "seconds", **_means(found.with_cache, found.without)}


def _counted(config: Any, found: Replay) -> dict[str, Any]:
    from ..audit.cache_cost.measure import prefill_flops

    warm = [prefill_flops(config, each.prompt, each.read) for each in found.requests]
    cold = [prefill_flops(config, each.prompt, 0) for each in found.requests]
    return {"unit": "operations", **_means(warm, cold)}


def _means(warm: Any, cold: Any) -> dict[str, float]:
    return {"with_cache": mean(warm), "without": mean(cold), "ratio": mean(cold) / mean(warm)}


def _facts(trace: Path, prices: str, found: Replay, first: dict[str, Any] | None) -> dict[str, Any]:
    counts = {name: found.total(name) for name in ("prompt", "read", "written", "plain", "output")}
    return {
        "trace": str(trace),
        "prices": {"name": prices, **dataclasses.asdict(found.prices)},
        "requests": len(found.requests),
        "hits": found.hits,
        "tokens": counts,
        "bill": found.bill,
        "bill_without_cache": found.bill_without,
        "first_token": first,
        "version": __version__,
        "numerics_version": numerics_version,
    }


def _print(trace: Path, prices: str, found: Replay, first: dict[str, Any] | None) -> None:
    n, prompt, read = len(found.requests), found.total("prompt"), found.total("read")
    lines = [
        f"{trace}: {n:,} requests, {found.hits:,} of which found a beginning in the cache",
        f"tokens of prompts: {prompt:,}, of which {read:,} ({read / prompt:.1%}) were read, "
        f"{found.total('written'):,} written",
        f"bill ({prices}): ${found.bill:,.6g}, without a cache ${found.bill_without:,.6g}",
    ]
    if found.bill_without:
        lines.append(f"saved: {1 - found.bill / found.bill_without:.1%}")
    if first is not None:
        lines.append(
            f"first token, mean: {first['with_cache']:.3g} {first['unit']}, without a cache "
            f"{first['without']:.3g}: {first['ratio']:.1f} times as long"
        )
    typer.echo("\n".join(lines))
