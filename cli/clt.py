"""`bitlens clt`: transcoders of every layer at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from .console import err, out, print_json, show
from .options import Json

if TYPE_CHECKING:
    from ..interp.training.layers import LayersTrainConfig

Config = Annotated[
    Path,
    typer.Argument(
        help="A TOML or JSON file: model, optionally dtype and text, and a table [transcoders] "
        "with d_sae, k, n_tokens, and max_reach = 1 for per-layer transcoders ..."
    ),
]
Output = Annotated[Path, typer.Option("--output", "-o", help="The run's folder, made here.")]


def register(app: typer.Typer) -> None:
    """Adds the group."""
    clt = typer.Typer(
        help="Train transcoders of every layer: per-layer sets and cross-layer ones.",
        no_args_is_help=True,
    )
    app.add_typer(clt, name="clt")
    clt.command(epilog="Example:  bitlens clt train run.toml --output run")(train)
    clt.command("eval", epilog="Example:  bitlens clt eval run/transcoders --alone 0 --alone 15")(
        evaluate
    )


def train(
    config: Config,
    output: Output,
    resume: Annotated[bool, typer.Option(help="Go on with the run in the folder.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train transcoders of all layers; interrupted, the same command goes on.

    The model runs beside the training; no activation is stored.
    """
    from ..interp.training.layers import train_layers
    from ..model import load

    found = _read(config)

    def show(step: int, total: int, line: dict[str, Any]) -> None:
        err.print(
            f"step {step} of {total}: explained variance {line['explained_variance']:.4f}, "
            f"L0 {line['l0']:.1f}, {line['dead']:,} never active, {line['tokens_per_s']:,.0f} "
            "tokens/s"
        )

    model = load(found.model, dtype=found.dtype)
    result = train_layers(
        model, found.transcoders, text=found.text, output=output, resume=resume, progress=show
    )
    if as_json:
        print_json(path=str(result.path), **result.metrics)
        return
    m = result.metrics
    typer.echo(
        f"{result.path}: explained variance {m['explained_variance']:.4f} on the last batch, "
        f"L0 {m['l0']:.1f}, after {m['tokens']:,} tokens"
    )


def evaluate(
    transcoders: Annotated[Path, typer.Argument(help="A folder that `clt train` wrote.")],
    model: Annotated[str, typer.Option("--model", "-m", help="As for `generate`.")] = (
        "smollm2-135m-instruct"
    ),
    text: Annotated[Path | None, typer.Option(help="Text (default: the default corpus).")] = None,
    n_tokens: Annotated[int, typer.Option(min=1, help="Held-out tokens.")] = 4096,
    alone: Annotated[
        list[int] | None, typer.Option(help="Also replace this layer alone; repeatable.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Judge transcoders on held-out text: what they miss, what the model loses without its MLPs."""
    from ..interp.evaluation import evaluate_layers
    from ..interp.training.layers.train import load_transcoders
    from ..model import load

    result = evaluate_layers(
        load(model),
        load_transcoders(transcoders),
        text=text,
        n_tokens=n_tokens,
        layers_alone=alone or (),
    )
    if as_json:
        print_json(**result.to_dict())
        return
    out.print(
        f"{result.n_tokens:,} tokens: loss {result.ce_loss:.4f}, every MLP replaced "
        f"{result.ce_loss_replaced:.4f} (+{result.delta_ce:.4f}), KL {result.kl_div:.4f}, "
        f"same top token {result.top1_agreement:.3f}"
    )
    table = Table("layer", "NMSE", "with outliers", "L0", "loss, alone", box=None)
    for i, nmse in enumerate(result.nmse):
        rise = result.delta_ce_alone.get(i)
        table.add_row(
            str(i),
            f"{nmse:.4f}",
            f"{result.nmse_all[i]:.4f}",
            f"{result.l0[i]:.1f}",
            "" if rise is None else f"{rise:+.4f}",
        )
    show(table, out)


class _RunFile:
    """What a config file asks for."""

    def __init__(self, found: dict[str, Any], file: Path) -> None:
        from ..interp.training.layers import LayersTrainConfig

        known = {"model", "dtype", "text", "transcoders"}
        if unknown := sorted(found.keys() - known):
            raise ValueError(f"{file}: unknown field {unknown[0]!r}; expected {sorted(known)}")
        table = found.get("transcoders")
        if not isinstance(table, dict):
            raise ValueError(f"{file}: expected a table [transcoders]")
        try:
            self.transcoders: LayersTrainConfig = LayersTrainConfig.from_dict(table)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{file}: transcoders: {error}") from error
        self.model = str(found.get("model", "smollm2-135m-instruct"))
        self.dtype = str(found.get("dtype", "fp32"))
        self.text: str | None = found.get("text")


def _read(file: Path) -> _RunFile:
    """Reads a config file. Raises OSError and ValueError naming file and field."""
    from ..model.sources.settings_file import read_table

    return _RunFile(read_table(file), file)
