"""`bitlens sae train` and `bitlens sae harvest`."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

if TYPE_CHECKING:
    from ..interp.training import TrainConfig
    from ..model.transformer import HookedTransformer

Config = Annotated[
    Path,
    typer.Argument(
        help="A TOML or JSON file: model, optionally dtype and text, and a table [dictionary] (or "
        "several, each [dictionaries.NAME]) with hook_name, d_sae, k, n_tokens ..."
    ),
]
Output = Annotated[Path, typer.Option("--output", "-o", help="Create the run's folder here.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(epilog="Example:  bitlens sae train run.toml --output run")(train)
    app.command(
        epilog="Example:  torchrun --nproc-per-node 2 -m bitlens sae harvest run.toml --output run"
    )(harvest)


def train(
    config: Config,
    output: Output,
    resume: Annotated[bool, typer.Option(help="Resume the run in the folder.")] = True,
    keep_harvest: Annotated[
        bool, typer.Option("--keep-harvest", help="Keep the activations at the end.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Train sparse autoencoders or transcoders; interrupted, the same command goes on.

    The text is run through the model once, however many dictionaries there are.
    """
    from ..interp.training import train_all

    run = read_run(config)
    with _table() as show:
        results = train_all(
            run.load(),
            run.configs,
            text=run.text,
            output=output,
            resume=resume,
            keep_harvest=keep_harvest,
            progress=show,
        )
    found = [{"path": str(result.path), **result.metrics} for result in results]
    if as_json:
        typer.echo(json.dumps({"dictionaries": found}, indent=2))
        return
    for result in found:
        typer.echo(
            f"{result['path']}: explained variance {result['explained_variance']:.4f} on its last "
            f"batch, L0 {result['l0']:.1f}; `bitlens sae eval` judges it on text that was held out"
        )


def harvest(config: Config, output: Output) -> None:
    """Write the activations that `train` reads; under torchrun every rank takes its share."""
    from ..interp.training.train import harvest_for

    run = read_run(config)
    with _table() as show:
        harvest_for(
            run.load(),
            run.configs,
            text=run.text,
            output=output,
            rank=int(os.environ.get("RANK", "0")),
            n_ranks=int(os.environ.get("WORLD_SIZE", "1")),
            progress=show,
        )


class RunFile:
    """The contents of a config file.

    Attributes:
        configs: The dictionaries by the name of their folders; one alone is "".
        text: A path, or None for the default corpus.
    """

    def __init__(self, found: dict[str, Any], file: Path) -> None:
        from ..interp.training import TrainConfig

        known = {"model", "dtype", "text", "dictionary", "dictionaries"}
        if unknown := sorted(found.keys() - known):
            raise ValueError(f"{file}: unknown field {unknown[0]!r}; expected {sorted(known)}")
        if ("dictionary" in found) == ("dictionaries" in found):
            raise ValueError(
                f"{file}: expected a table [dictionary], or several [dictionaries.NAME]"
            )
        tables = found.get("dictionaries", {"": found.get("dictionary")})
        self.configs: dict[str, TrainConfig] = {}
        for name, table in tables.items():
            if not isinstance(table, dict) or Path(name).name != name:
                raise ValueError(f"{file}: dictionary {name!r} is no table, or no folder's name")
            try:
                self.configs[name] = TrainConfig.from_dict(table)
            except (TypeError, ValueError) as error:
                raise ValueError(f"{file}: {name or 'dictionary'}: {error}") from error
        self.model = str(found.get("model", "smollm2-135m-instruct"))
        self.dtype = str(found.get("dtype", "fp32"))
        self.text: str | None = found.get("text")

    def load(self) -> HookedTransformer:
        """Loads the model. Raises ValueError for a hook that it does not have."""
        from ..model import load
        from ..model.hooks.registry import select_names

        model = load(self.model, dtype=self.dtype)
        try:
            for config in self.configs.values():
                select_names([config.hook_name, config.target_hook], model.hook_names)
        except KeyError as error:
            raise ValueError(error.args[0]) from error
        return model


def read_run(file: Path) -> RunFile:
    """Reads a config file. Raises OSError and ValueError naming file and field."""
    from ..model.sources.settings_file import read_table

    return RunFile(read_table(file), file)


class _table:
    """A live table of the run on stderr, a row a stage."""

    def __init__(self) -> None:
        self._rows: dict[str, tuple[str, ...]] = {}
        self._began: dict[str, tuple[float, int]] = {}
        self._live = Live(console=Console(stderr=True), refresh_per_second=4)

    def __enter__(self) -> Callable[[str, int, int, dict[str, Any]], None]:
        self._live.__enter__()
        return self._show

    def __exit__(self, *error: Any) -> None:
        self._live.__exit__(*error)

    def _show(self, stage: str, done: int, total: int, line: dict[str, Any]) -> None:
        began, first = self._began.setdefault(stage, (time.monotonic(), done))
        rate = (done - first) / max(1e-9, time.monotonic() - began)
        left = f"{(total - done) / rate / 60:.0f} min" if rate and done < total else ""
        rows = line.get("rows_per_s")
        self._rows[stage] = (
            stage,
            f"{min(done, total):,} of {total:,}",
            f"{rows:,.0f} rows/s" if rows else f"{rate:,.0f}/s",
            left,
            f"{line['explained_variance']:.4f}" if line else "",
            f"{line['l0']:.1f}" if line else "",
            f"{line['dead']:,}" if line else "",
        )
        table = Table(box=None)
        for name in ("stage", "done", "speed", "left", "EV", "L0", "dead"):
            table.add_column(name, justify="left" if name == "stage" else "right")
        for row in self._rows.values():
            table.add_row(*row)
        self._live.update(table)
