"""`bitlens train`: a model on your examples."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .progress import progress

if TYPE_CHECKING:
    from ..model.training import TrainConfig


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(epilog="Example:  bitlens train sft run.toml --output run")(train)


def train(
    method: Annotated[
        str, typer.Argument(help="sft, lm, rm, dpo, ppo, grpo or rloo (docs/training.md).")
    ],
    config: Annotated[
        Path,
        typer.Argument(
            help="A TOML or JSON file: data (a JSONL file), steps, optionally model, dtype, "
            "rope_scaling, batch_size, lr ...; for ppo, grpo and rloo a reward, FILE.py:FUNCTION."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Create the run's folder here.")],
    export: Annotated[
        Path | None, typer.Option(help="Write the trained model here, a Hugging Face directory.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Resume the run in the folder.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train a model; interrupted, the same command goes on, with the same bits."""
    run = TrainFile(config, method)
    from ..model import load
    from ..model.training import export as export_model
    from ..model.training import train as train_model

    scaling = run.rope_scaling
    model = load(run.model, dtype=run.dtype, trainable="full", rope_scaling=scaling)
    with _bar(run.config.steps) as show:
        result = train_model(
            model,
            run.config,
            data=run.data,
            output=output,
            reward=run.reward,
            resume=resume,
            progress=show,
        )
    if export is not None:
        export_model(model, export)
    if as_json:
        found = {
            "checkpoint": str(result.checkpoint),
            "weights_digest": result.weights_digest,
            "metrics": result.metrics[-1],
            "before": result.before,
            "after": result.after,
            "stopped": result.stopped,
        }
        typer.echo(json.dumps(found, indent=2))
        return
    last = result.metrics[-1]
    typer.echo(f"{result.checkpoint}: {last['step']} steps, loss {last['loss']:.4f}")
    for name, value in result.after.items():
        typer.echo(f"{name}: {result.before[name]:.4f} before, {value:.4f} after")


class TrainFile:
    """The contents of a config file.

    Attributes:
        data: The JSONL file.
        reward: The function that the file names, None where it names none.
        rope_scaling: As `bitlens.load` takes it, a table of its own; None for the model's.
    """

    def __init__(self, file: Path, method: str) -> None:
        """Raises OSError and ValueError naming file and field."""
        from ..model.sources.settings_file import read_table
        from ..model.training import TrainConfig

        found = read_table(file)
        try:
            self.model = str(found.pop("model", "smollm2-135m-instruct"))
            self.dtype = str(found.pop("dtype", "fp32"))
            if "data" not in found:
                raise ValueError("data: missing; name a JSONL file")
            self.data = str(found.pop("data"))
            reward = found.pop("reward", None)
            self.rope_scaling: dict[str, Any] | None = found.pop("rope_scaling", None)
            self.config: TrainConfig = TrainConfig.from_dict({"method": method, **found})
        except (TypeError, ValueError) as error:
            raise ValueError(f"{file}: {error}") from error
        self.reward = None if reward is None else _function(str(reward))


def _function(name: str) -> Callable[..., Any]:
    """The function FILE.py:FUNCTION. Raises ValueError where there is none."""
    path, _, attribute = name.rpartition(":")
    spec = importlib.util.spec_from_file_location("reward", path) if path else None
    if spec is None or spec.loader is None or not Path(path).is_file():
        raise ValueError(f"reward = {name!r}: expected FILE.py:FUNCTION")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = getattr(module, attribute, None)
    if not callable(found):
        raise ValueError(f"reward: {path} has no function {attribute!r}")
    return found  # type: ignore[no-any-return]


@contextmanager
def _bar(steps: int) -> Iterator[Callable[[int, int, dict[str, Any]], None]]:
    """Yields a function of a step, how many there are and the step's line of the log."""
    with progress() as bar:
        task = bar.add_task("training", total=steps)

        def advance(step: int, _: int, line: dict[str, Any]) -> None:
            reward = f", reward {line['reward']:.3f}" if "reward" in line else ""
            said = f"loss {line['loss']:.4f}{reward}, {line['tokens_per_s']:,.0f} tokens/s"
            bar.update(task, description=said, completed=step)

        yield advance
