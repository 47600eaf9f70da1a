"""`bitlens postmortem`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from .._core import numerics_version
from ..version import __version__
from .console import VIOLATED, command_line, err, show
from .files import check_output
from .model_argument import Model
from .postmortem_noise import report_noise
from .postmortem_routing import report_routing
from .postmortem_xla import report_xla

if TYPE_CHECKING:
    from ..audit.postmortem import Rate


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        epilog="Examples:  bitlens postmortem smollm2-135m-instruct"
        "  |  bitlens postmortem model.gguf --prompts mine.txt --shards 1,8 --plot rates.png"
        "  |  bitlens postmortem smollm2-135m-instruct --routing"
        "  |  bitlens postmortem smollm2-135m-instruct --noise"
        "  |  bitlens postmortem smollm2-135m-instruct --xla"
    )(postmortem)


def postmortem(
    model: Model,
    prompts: Annotated[
        Path | None,
        typer.Option(help="A file with one prompt a line (default: the shipped prompts)."),
    ] = None,
    n_prompts: Annotated[int, typer.Option(min=1, help="Use this many prompts.")] = 300,
    routing: Annotated[
        bool,
        typer.Option("--routing", help="Misroute requests between two context pools instead."),
    ] = False,
    noise: Annotated[
        bool,
        typer.Option(
            "--noise", help="Count instead the items until each way of looking notices a fault."
        ),
    ] = False,
    xla: Annotated[
        bool,
        typer.Option(
            "--xla",
            help="Compile the model's blocks and a sampler with JAX instead, and say which "
            "roundings XLA leaves out (extra `platforms`).",
        ),
    ] = False,
    shards: Annotated[
        str | None, typer.Option(help="Shard counts, comma-separated (default: 1,2,4,8).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
    output: Annotated[
        Path | None, typer.Option(help="Write the report here (default: postmortem.html).")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Write a picture; needs the `bench` extra.")
    ] = None,
) -> None:
    """Count what known faults of sampling, or of routing, do, and that bitlens never has them; how
    soon evaluations and canaries notice such faults; or what a real compiler's do.

    Exit 1 if it does.
    """
    from ..audit.postmortem import shipped_prompts

    texts = shipped_prompts() if prompts is None else prompts.read_text("utf-8").splitlines()
    texts = [text for text in texts if text][:n_prompts]
    others = {"--routing": routing, "--noise": noise, "--xla": xla}
    asked = [name for name, is_asked in others.items() if is_asked]
    if len(asked) > 1:
        raise ValueError(f"{', '.join(asked)}: one at a time")
    page = output or Path("postmortem.html")
    if not asked:
        _report_sampling(model, texts, shards or "1,2,4,8", page, plot, as_json)
    elif xla:
        _refuse("--xla", "no --shards, --plot", shards, plot)
        report_xla(model, texts, output=page, made=_made(texts), as_json=as_json)
    else:
        _refuse(asked[0], "no --shards, --output, --plot", shards, output, plot)
        report = report_routing if routing else report_noise
        report(model, texts, as_json=as_json)


def _refuse(name: str, takes: str, *given: object) -> None:
    if any(each is not None for each in given):
        raise ValueError(f"{name} prints its report: it takes {takes}")


def _report_sampling(
    model: str, texts: list[str], shards: str, output: Path, plot: Path | None, as_json: bool
) -> None:
    from ..audit.postmortem import run_postmortem
    from ..audit.postmortem.page import moved, page
    from ..audit.postmortem.plot import plot as write_plot
    from ..audit.postmortem.plot import require_matplotlib
    from ..model import load

    counts = _shard_counts(shards)
    check_output(output)
    if plot is not None:
        require_matplotlib()
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("loading", total=None)
        loaded = load(model)
        rates = run_postmortem(
            loaded,
            texts,
            counts,
            progress=lambda done, total: bar.update(
                task, description="prompts", completed=done, total=total
            ),
        )
    output.write_text(page(Path(model).stem, rates, _made(texts)), encoding="utf-8")
    if plot is not None:
        write_plot(rates, plot, f"{Path(model).stem}, {len(texts)} prompts")
    if as_json:
        _print_json(model, rates)
    else:
        _print_table(model, rates, counts)
        err.print(f"report in {output}", highlight=False)
    if any(moved(rate) for rate in rates):
        raise typer.Exit(VIOLATED)


def _shard_counts(text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise ValueError(f"--shards {text}: expected numbers with commas between, such as 1,2,4,8")
    return list(dict.fromkeys(int(part) for part in parts))


def _made(texts: list[str]) -> list[tuple[str, str]]:
    from ..audit.page.render import page_date

    prompts = hashlib.sha256("\n".join(texts).encode()).hexdigest()
    return [
        ("command", command_line()),
        ("date", page_date()),
        ("version", f"bitlens {__version__}, numerics {numerics_version}"),
        ("prompts, SHA-256", prompts),
    ]


def _print_json(model: str, rates: list[Rate]) -> None:
    from ..audit.postmortem import experiment

    setting = {
        "model": model,
        "top_p": experiment.TOP_P,
        "top_k": experiment.TOP_K,
        "draws_per_prompt": experiment.DRAWS,
        "version": __version__,
        "numerics_version": numerics_version,
    }
    rows = [dataclasses.asdict(rate) for rate in rates]
    typer.echo(json.dumps({**setting, "rates": rows}, indent=2))


def _print_table(model: str, rates: list[Rate], counts: list[int]) -> None:
    from ..audit.postmortem import experiment
    from ..audit.postmortem.shares import PANELS

    by_key = {(rate.sampler, rate.shards): rate for rate in rates}
    samplers = list(dict.fromkeys(rate.sampler for rate in rates))
    prompts = rates[0].prompts
    title = (
        f"{model}: {prompts} prompts, {experiment.DRAWS} draws each, top_p {experiment.TOP_P}, "
        f"then top_k {experiment.TOP_K}"
    )
    table = Table(title=title, box=SIMPLE_HEAD)
    table.add_column("sampler")
    for n in counts:
        table.add_column(f"{n} shard{'s' * (n > 1)}", justify="right")
    for panel, share in PANELS.items():
        table.add_section()
        table.add_row(f"[bold]{panel}[/]")
        for sampler in samplers:
            shares = [share(by_key[sampler, n]) for n in counts]
            table.add_row(f"  {sampler}", *("never" if s == 0 else f"{s:.2%}" for s in shares))
    show(table)
