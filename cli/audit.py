"""`bitlens audit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ..names import near_files
from .console import VIOLATED, command_line, show
from .files import check_output
from .model_argument import Model

if TYPE_CHECKING:
    from ..audit import AuditResult
    from ..audit.checkpoints import CheckpointComparison

STAGES = {
    "loading": "loading",
    "writing": "A continues the prompts",
    "checkpoints": "comparing checkpoints",
    "tokens": "next tokens of both",
    "contracts": "operations in lockstep",
    "localising": "who restores the token",
    "shrinking": "shrinking the reproducer",
    "features": "features of both",
}

DIFFERS = {
    "bits": "gives other bits first at",
    "relative": "differs by more than rounding to the coarser format first at",
}
"""What is said of the first operation to differ, by its judge, where no contract is broken."""


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        epilog="Examples:  bitlens audit smollm2-135m-instruct"
        "  |  bitlens audit model.gguf --b hf --prompts mine.txt --output mine.html"
        "  |  bitlens audit smollm2-135m-instruct --dictionary "
        "smollm2-135m-instruct/blocks.15.hook_resid_post"
        "  |  bitlens audit base/ --b finetuned/ --json"
    )(audit)


def audit(
    model: Model,
    a: Annotated[str, typer.Option("--a", help="The reference: a native policy.")] = "fp32",
    b: Annotated[
        str,
        typer.Option(
            "--b",
            help="On trial: a native policy, a platform such as hf, jax or onnx, or a checkpoint.",
        ),
    ] = "bf16",
    prompts: Annotated[
        Path | None,
        typer.Option(help="A file with one prompt a line (default: the shipped prompts)."),
    ] = None,
    n_prompts: Annotated[int, typer.Option(min=2, help="Use this many prompts.")] = 64,
    tokens: Annotated[
        int, typer.Option(min=2, help="Tokens per prompt; A continues shorter prompts.")
    ] = 128,
    checked: Annotated[
        int, typer.Option(min=1, help="Prompts to run in lockstep, operation by operation.")
    ] = 8,
    rows: Annotated[
        int, typer.Option(min=1, help="Output rows to judge per operation of such a prompt.")
    ] = 16,
    margin: Annotated[
        float,
        typer.Option(
            help="Treat the paths as equivalent if fewer than this share of tokens change."
        ),
    ] = 0.05,
    dictionary: Annotated[
        str | None, typer.Option(help="Compare the features of this dictionary, too.")
    ] = None,
    device: Annotated[
        str, typer.Option(help="Where B's kernels run: cpu, cuda or cuda:N. A's run on the CPU.")
    ] = "cpu",
    seed: Annotated[int, typer.Option(help="Seed of continuations and sampled rows.")] = 0,
    output: Annotated[Path, typer.Option(help="Write the report here.")] = Path("report.html"),
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the findings as one JSON object too.")
    ] = False,
) -> None:
    """Judge one path of a model against another on real prompts; write a report.

    Another checkpoint is compared first, tensor by tensor. Every operation of B gets A's inputs and
    meets B's precision contract. Exit 1 if a tensor differs or a contract is broken.
    """
    from ..audit import Plan, render, run_audit
    from ..audit.postmortem import shipped_prompts

    check_output(output)
    texts = (shipped_prompts() if prompts is None else _read_prompts(prompts))[:n_prompts]
    plan = Plan(tokens=tokens, checked=checked, rows=rows, margin=margin, seed=seed)
    columns = (TextColumn("{task.description:26}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks = {stage: bar.add_task(words, start=False) for stage, words in STAGES.items()}

        def advance(stage: str, done: int, total: int) -> None:
            for earlier, task in tasks.items():
                if earlier == stage:
                    bar.start_task(task)
                    bar.update(task, completed=done, total=total if total > 1 else None)
                    return
                bar.update(task, completed=1, total=1, visible=False)

        result = run_audit(model, a, b, texts, plan, advance, dictionary, device=device)
    output.write_text(render(result, command_line()), encoding="utf-8")
    if as_json:
        typer.echo(result.to_json())
    else:
        _print(result, output)
    if not result.ok:
        raise typer.Exit(VIOLATED)


def _read_prompts(file: Path) -> list[str]:
    """The lines that hold text. Raises OSError and ValueError naming the option and the cause."""
    try:
        text = file.read_bytes().decode("utf-8")
    except OSError as error:
        near = near_files(file) if isinstance(error, FileNotFoundError) else ""
        raise OSError(f"--prompts {file}: {error.strerror}{near}") from error
    except UnicodeDecodeError as error:
        raise ValueError(
            f"--prompts {file}: not UTF-8 at byte {error.start}, save it as UTF-8"
        ) from error
    # str.splitlines would also cut prompts at form feeds and U+2028.
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    found = [line for line in lines if line.strip()]
    if len(found) < 2:
        raise ValueError(
            f"--prompts {file}: lines with text: {len(found)}; intervals need at least two prompts"
        )
    return found


def _print(result: AuditResult, output: Path) -> None:
    from ..audit.page.charts import percent, used

    out, flips, setting = Console(), result.flips, result.setting
    table = Table(title=f"{setting.model}: {setting.b} against {setting.a}", box=SIMPLE_HEAD)
    for column in ("operation", "values", "outside", "of bound", "bias, ULP"):
        table.add_column(column, justify="left" if column == "operation" else "right")
    for kind in result.kinds:
        ops = [op for op in result.ops if op.kind == kind]
        worst = max(ops, key=lambda op: op.utilisation)
        outside = sum(op.outside for op in ops)
        shown = f"[red]{outside:,}[/]" if outside else "0"
        values = f"{sum(op.values for op in ops):,}"
        bias = "" if worst.bias_ulp is None else f"{worst.bias_ulp:+.4f}"
        table.add_row(kind, values, shown, used(worst.utilisation), bias)
    if result.depth == "operations":
        show(table, out)
    else:
        out.print(f"{setting.b}: judged by its logits alone. {result.why_logits}", highlight=False)
    low, high = (percent(end) for end in flips.clustered_interval)
    out.print(
        f"tokens: {flips.flips:,} of {flips.positions:,} flip "
        f"({low} to {high}: 95%, prompts as clusters), {flips.certified:,} certified not to"
    )
    if (changes := result.features) is not None:
        out.print(
            f"features: {changes.lost:,} lost and {changes.gained:,} gained of "
            f"{changes.active:,} active ({percent(changes.changed_share)}), "
            f"{percent(changes.certified / max(1, changes.pairs))} of {changes.pairs:,} pairs "
            "certified not to"
        )
    if result.checkpoints is not None:
        _print_checkpoints(result.checkpoints, out)
    found = result.divergence
    if found.first is not None:
        words = DIFFERS[found.judge] if result.kept else "first divergent operation:"
        out.print(f"{words} {found.first}")
    for difference in result.meaning:
        out.print(f"[red]another meaning[/]: {escape(str(difference))}", highlight=False)
    for op in result.violated[:5]:
        out.print(f"[red]{escape(op.name)}[/]: {escape(op.reason)}", highlight=False)
    out.print(f"{_verdict(result)}, report in {output}", highlight=False)


def _print_checkpoints(found: CheckpointComparison, out: Console) -> None:
    out.print(
        f"tensors: {found.equal:,} of {found.tensors:,} equal, {len(found.rounded):,} rounded, "
        f"{len(found.differing) - len(found.missing):,} differ, {len(found.missing):,} missing",
        highlight=False,
    )
    for difference in found.differing[:5]:
        out.print(f"[red]{difference.name}[/]: {escape(difference.words)}", highlight=False)
    if len(found.differing) > 5:
        out.print(f"[red]and {len(found.differing) - 5:,} tensors more[/]", highlight=False)
    for what, differences in found.settings.items():
        for words in differences[:5]:
            out.print(f"[red]{what}[/]: {escape(words)}", highlight=False)


def _verdict(result: AuditResult) -> str:
    """Green only where B has A's weights, as its policy stores them, and kept every contract."""
    differ = "" if result.checkpoints is None else result.checkpoints.headline
    if not result.same_model:
        return f"[red]another model: {differ}[/]"
    if result.depth == "logits":
        shown = result.flips.equivalence
        what = f"fewer than {shown.margin:.2g} of tokens flip"
        return f"[green]{what}[/]" if result.ok else f"[red]not shown that {what}[/]"
    if not result.ok:
        return f"[red]{'contract broken' if result.violated else 'not the same function'}[/]"
    return f"contract kept, with {differ}" if differ else "[green]contract kept[/]"
