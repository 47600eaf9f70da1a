"""`bitlens context-cost`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from .._core import numerics_version
from ..version import __version__
from .console import show
from .model_argument import Model
from .progress import progress_bars

if TYPE_CHECKING:
    from ..audit.context_cost.cost import ContextCost


class KVDtype(StrEnum):
    fp32 = "fp32"
    bf16 = "bf16"


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        name="context-cost",
        epilog="Examples:  bitlens context-cost smollm2-135m-instruct"
        "  |  bitlens context-cost model.gguf --lengths 256,1024,4096 --base 256 --measure",
    )(context_cost)


def context_cost(
    model: Model,
    lengths: Annotated[
        str, typer.Option(help="Context lengths in tokens, comma-separated.")
    ] = "8000,32000,200000,1000000",
    base: Annotated[
        int, typer.Option(min=1, help="Divide costs by the cost at this length.")
    ] = 32000,
    dtype: Annotated[
        KVDtype, typer.Option(help="Precision policy of the cache and of --measure.")
    ] = KVDtype.fp32,
    measure: Annotated[
        bool, typer.Option("--measure", help="Time prefills, too, within the model's context.")
    ] = False,
    rounds: Annotated[int, typer.Option(min=1, help="Measured rounds; medians count.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Write a picture; needs the `bench` extra.")
    ] = None,
) -> None:
    """Count what a longer context costs: attention, the whole model, the KV cache.

    The familiar 39.1x of 200K tokens over 32K is attention alone: a whole model grows less.
    """
    from ..audit.context_cost.cost import context_cost as cost_of
    from ..audit.context_cost.plot import plot as write_plot
    from ..audit.postmortem.plot import require_matplotlib
    from ..model.ops.policy import get_policy
    from ..model.sources.resolve import open_checkpoint

    counts = _lengths(lengths)
    if plot is not None:
        require_matplotlib()
        if not plot.parent.is_dir():
            raise FileNotFoundError(f"--plot {plot}: there is no directory {plot.parent}")
    config = open_checkpoint(model).config
    itemsize = get_policy(dtype.value).activation.itemsize
    costs = [cost_of(config, n, itemsize) for n in counts]
    over = cost_of(config, base, itemsize)
    seconds = _measure(model, dtype, [*counts, base], rounds) if measure else {}
    if plot is not None:
        write_plot(costs, over, seconds, plot, f"{Path(model).stem}, {dtype.value}")
    if as_json:
        _print_json(model, dtype, costs, over, seconds)
    else:
        _print_table(model, dtype, costs, over, seconds, measure)


def _lengths(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) for part in parts):
        raise ValueError(f"--lengths {text}: expected numbers with commas between, such as 8000")
    return sorted({int(part) for part in parts})


def _measure(model: str, dtype: KVDtype, lengths: Sequence[int], rounds: int) -> dict[int, float]:
    from ..audit.context_cost.cost import measure_prefill
    from ..model import load

    with progress_bars() as tell:
        return measure_prefill(
            load(model, dtype=dtype.value),
            sorted(set(lengths)),
            rounds,
            progress=partial(tell, "measuring"),
        )


def _print_json(
    model: str,
    dtype: KVDtype,
    costs: Sequence[ContextCost],
    base: ContextCost,
    seconds: Mapping[int, float],
) -> None:
    rows = [
        {
            "n_tokens": cost.n_tokens,
            "attention_flops": cost.attention_flops,
            "attention_ratio": cost.attention_flops / base.attention_flops,
            "model_flops": cost.model_flops,
            "model_ratio": cost.model_flops / base.model_flops,
            "attention_share": cost.attention_share,
            "next_token_flops": cost.next_token_flops,
            "kv_bytes": cost.kv_bytes,
            "seconds": seconds.get(cost.n_tokens),
        }
        for cost in costs
    ]
    setting = {
        "model": model,
        "dtype": dtype.value,
        "base_tokens": base.n_tokens,
        "base_seconds": seconds.get(base.n_tokens),
        "version": __version__,
        "numerics_version": numerics_version,
    }
    typer.echo(json.dumps({**setting, "lengths": rows}, indent=2))


def _print_table(
    model: str,
    dtype: KVDtype,
    costs: Sequence[ContextCost],
    base: ContextCost,
    seconds: Mapping[int, float],
    measured: bool,
) -> None:
    title = f"{Path(model).name}, {dtype.value}: FLOPs, and times those of {base.n_tokens:,} tokens"
    table = Table(title=title, box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    columns = ["tokens", "attention", "whole model", "share", "next token", "KV cache"]
    for column in [*columns, "measured"] if measured else columns:
        table.add_column(column, justify="right", no_wrap=True)
    for cost in costs:
        cells = [
            f"{cost.n_tokens:,}",
            f"{_si(cost.attention_flops)} {_ratio(cost.attention_flops, base.attention_flops)}",
            f"{_si(cost.model_flops)} {_ratio(cost.model_flops, base.model_flops)}",
            f"{cost.attention_share:.1%}",
            _si(cost.next_token_flops),
            _bytes(cost.kv_bytes),
        ]
        if measured:
            cells.append(_timed(cost.n_tokens, base.n_tokens, seconds))
        table.add_row(*cells)
    show(table)
    last = costs[-1]
    attention = _ratio(last.attention_flops, base.attention_flops)
    whole = _ratio(last.model_flops, base.model_flops)
    typer.echo("share: attention's part of the whole model")
    typer.echo(
        f"{last.n_tokens:,} tokens over {base.n_tokens:,}: {attention} is attention alone, "
        f"the whole model takes {whole}"
    )


def _timed(n_tokens: int, base: int, seconds: Mapping[int, float]) -> str:
    if n_tokens not in seconds:
        return "-"
    over = _ratio(seconds[n_tokens], seconds[base]) if base in seconds else ""
    return f"{seconds[n_tokens]:.3g} s {over}".rstrip()


def _ratio(value: float, base: float) -> str:
    ratio = value / base
    return f"{ratio:,.{0 if ratio >= 1000 else 1 if ratio >= 1 else 3}f}x"


def _si(flops: int) -> str:
    prefixes = " kMGTPEZ"
    power = min((len(str(flops)) - 1) // 3, len(prefixes) - 1)
    return f"{flops / 1000**power:.3g} {prefixes[power]}".rstrip()


def _bytes(n: int) -> str:
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    power = min((n.bit_length() - 1) // 10, len(units) - 1)
    return f"{n / 1024**power:.4g} {units[power]}"
