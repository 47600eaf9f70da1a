"""`bitlens bench`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.progress import Progress
from rich.table import Table

from ..policies import NativePolicyName
from .console import err, out, print_json, setting, setting_line, show
from .loading import load_model
from .model_argument import Model
from .options import Backend, Json, NativeDtypeOption, Threads


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(epilog="Example:  bitlens bench smollm2-135m-instruct --dtype bf16 --threads 2")(
        bench
    )


def bench(
    model: Model,
    dtype: NativeDtypeOption = NativePolicyName.fp32,
    threads: Threads = None,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Tokens to prefill.")] = 128,
    new_tokens: Annotated[int, typer.Option(min=1, help="Tokens to decode.")] = 16,
    rounds: Annotated[int, typer.Option(min=1, help="Measured rounds; medians count.")] = 3,
    as_json: Json = False,
) -> None:
    """Time prefill and decode, native kernels and plain PyTorch in turn."""
    from ..audit.speed import measure

    models = {b.value: load_model(model, dtype, b, threads) for b in Backend}
    with Progress(console=err, transient=True) as bar:
        task = bar.add_task("measuring")
        speeds = measure(
            models,
            n_prompt=prompt_tokens,
            n_new=new_tokens,
            rounds=rounds,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if as_json:
        rates = {name: {"prefill": s.prefill, "decode": s.decode} for name, s in speeds.items()}
        print_json(model=model, tokens_per_second=rates, **setting(dtype))
        return
    table = Table(title=f"tokens/s, {setting_line(dtype)}")
    for column in ("backend", f"prefill of {prompt_tokens}", f"decode of {new_tokens}"):
        table.add_column(column, justify="left" if column == "backend" else "right")
    for name, speed in speeds.items():
        table.add_row(name, f"{speed.prefill:.1f}", f"{speed.decode:.1f}")
    native, torch_ = speeds["native"], speeds["torch"]
    ratios = (native.prefill / torch_.prefill, native.decode / torch_.decode)
    table.add_row("native / torch", *(f"{ratio:.2f}x" for ratio in ratios))
    show(table, out)
