"""The `bitlens` command.

Exit codes: 0 done, 1 a promise was violated, 2 bad usage or bad input.
"""

from __future__ import annotations

import json
import re
import sys
import time
import traceback
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from . import __version__, get_num_threads, isa, load, numerics_version, set_num_threads
from .cli_audit import register as register_audit
from .cli_context_cost import register as register_context_cost
from .cli_model import Model
from .cli_postmortem import register as register_postmortem
from .cli_sae_eval import register as register_sae_eval

if TYPE_CHECKING:
    from .model import HookedTransformer
    from .model.parallel import Group
    from .model.verify import VerifyReport, VerifyRow

VIOLATED, BAD_INPUT, INTERNAL_ERROR = 1, 2, 3

app = typer.Typer(
    name="bitlens",
    help="Transformers whose bits do not move and whose insides are readable at full speed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
# Results go to stdout; progress and remarks to stderr, so that output can be piped.
out = Console()
err = Console(stderr=True)


class Dtype(StrEnum):
    fp32 = "fp32"
    bf16 = "bf16"
    bf16_weights = "bf16_weights"
    hf_bf16 = "hf_bf16"
    fp64 = "fp64"


class NativeDtype(StrEnum):
    fp32 = "fp32"
    bf16 = "bf16"
    bf16_weights = "bf16_weights"
    hf_bf16 = "hf_bf16"


class Backend(StrEnum):
    native = "native"
    torch = "torch"


DtypeOption = Annotated[Dtype, typer.Option(help="Precision policy, see docs/numerics.md.")]
NativeDtypeOption = Annotated[
    NativeDtype, typer.Option(help="Precision policy, of those with native kernels.")
]
BackendOption = Annotated[Backend, typer.Option(help="Native kernels, or plain PyTorch.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads (default: torch's number).")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")]


def _load(
    source: str,
    dtype: StrEnum,
    backend: Backend = Backend.native,
    threads: int | None = None,
    group: Group | None = None,
) -> HookedTransformer:
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
        set_num_threads(threads)
    with err.status(f"loading {source}"):
        return load(source, dtype=dtype.value, backend=backend.value, group=group)


@app.command(
    epilog="Examples:  bitlens generate smollm2-135m-instruct --chat -p 'Why is the sky blue?'"
    "  |  echo 'Once upon a time' | bitlens generate model.gguf --seed 7 --temperature 0.8"
)
def generate(
    model: Model,
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", help="The prompt (default: read stdin).")
    ] = None,
    chat: Annotated[
        bool, typer.Option("--chat/--raw", help="Wrap the prompt in the model's chat template.")
    ] = False,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Stop after so many tokens.")] = 128,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy.")] = 0.0,
    top_k: Annotated[int | None, typer.Option(min=1, help="Keep the k likeliest tokens.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Keep this much probability.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same text.")] = None,
    dtype: DtypeOption = Dtype.fp32,
    backend: BackendOption = Backend.native,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Continue a prompt, streaming to the terminal.

    `torchrun --nproc-per-node N -m bitlens generate ...` spreads the model over N processes.
    """
    from .model.parallel import from_rank_0, torchrun_group

    with torchrun_group() as group:
        leads = group is None or group.rank == 0
        err.quiet = not leads
        read = sys.stdin.read() if prompt is None and leads else ""
        text = from_rank_0(group, (prompt or read).encode()).decode()
        loaded = _load(model, dtype, backend, threads, group)
        request: Any = [{"role": "user", "content": text}] if chat else text
        started = time.perf_counter()
        result = loaded.generate(
            request,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            seed=seed,
            stream=leads and not as_json,
        )
    if not leads:
        return
    seconds = time.perf_counter() - started
    n_new = result.n_new[0]
    if as_json:
        _print_json(
            model=model,
            prompt=text,
            text=result.text[0],
            tokens=result.tokens[0].tolist(),
            new_tokens=n_new,
            seconds=seconds,
            ranks=1 if group is None else group.size,
            **_setting(dtype),
        )
    else:
        err.print(f"[dim]{n_new} tokens, {n_new / seconds:.1f} tokens/s, {_setting_line(dtype)}[/]")


@app.command(epilog="Example:  bitlens info smollm2-135m-instruct --json")
def info(
    model: Model,
    dtype: DtypeOption = Dtype.fp32,
    backend: BackendOption = Backend.native,
    as_json: Json = False,
) -> None:
    """Show architecture, parameters, storage, instruction set and threads."""
    loaded = _load(model, dtype, backend)
    config = loaded.config
    storage = loaded.storage()
    if as_json:
        import dataclasses

        _print_json(
            model=model,
            config=dataclasses.asdict(config),
            parameters=loaded.n_parameters(),
            storage=storage,
            **_setting(dtype),
        )
        return
    table = Table(title=model, show_header=False, title_style="bold")
    heads = f"{config.n_heads} heads, {config.n_key_value_heads} key/value heads"
    windows = sorted({layer.window for layer in config.layers if layer.window is not None})
    table.add_row("architecture", config.architecture)
    table.add_row("parameters", f"{loaded.n_parameters():,}")
    table.add_row("layers", f"{config.n_layers} of d_model {config.d_model}, d_mlp {config.d_mlp}")
    table.add_row("attention", f"{heads}, d_head {config.d_head}")
    table.add_row("windows", ", ".join(map(str, windows)) or "none")
    caps = {"scores": config.attn_logit_softcap, "logits": config.final_logit_softcap}
    capped = ", ".join(f"{what} at {cap:g}" for what, cap in caps.items() if cap is not None)
    table.add_row("soft caps", capped or "none")
    table.add_row(
        "vocabulary", f"{config.d_vocab:,}" + (" (tied)" if config.tie_embeddings else "")
    )
    table.add_row("context", f"{config.n_ctx:,} tokens")
    for kind, n_bytes in storage.items():
        table.add_row(f"weights in {kind}", f"{n_bytes / 2**20:.1f} MiB")
    table.add_row("running as", _setting_line(dtype))
    out.print(table)


@app.command(
    epilog="Examples:  bitlens fetch gemma-3-270m  |  bitlens fetch HuggingFaceTB/SmolLM2-135M"
)
def fetch(model: Model = "smollm2-135m-instruct", as_json: Json = False) -> None:
    """Download a model into the cache and print its path."""
    from .model.sources import ALIASES, locate

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task(model, total=None)
        path = locate(
            model, progress=lambda done, total: bar.update(task, completed=done, total=total)
        ).path
    terms = ALIASES[model].terms if model in ALIASES else None
    if as_json:
        _print_json(model=model, path=str(path), terms=terms)
    else:
        if terms is not None:
            err.print(f"terms of the weights: {terms}", soft_wrap=True)
        typer.echo(path)


@app.command(
    epilog="Examples:  bitlens verify smollm2-135m-instruct --quick"
    "  |  bitlens verify model.gguf --dtype bf16"
)
def verify(
    model: Model,
    dtype: NativeDtypeOption = NativeDtype.fp32,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer lengths and layers.")] = False,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Prove on this machine that the bits do not move; exit 1 if one does."""
    from .model.verify import verify as verify_model

    if threads is not None:
        set_num_threads(threads)
    with Progress(console=err, transient=True) as bar:
        task = bar.add_task("loading")
        report = verify_model(
            model,
            dtype=dtype.value,
            quick=quick,
            progress=lambda name, done, total: bar.update(
                task, description=name, completed=done, total=total
            ),
        )
    if as_json:
        _print_json(**report.to_dict())
    else:
        _print_report(report)
    if not report.ok:
        raise typer.Exit(VIOLATED)


@app.command(epilog="Example:  bitlens bench smollm2-135m-instruct --dtype bf16 --threads 2")
def bench(
    model: Model,
    dtype: NativeDtypeOption = NativeDtype.fp32,
    threads: Threads = None,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Tokens to prefill.")] = 128,
    new_tokens: Annotated[int, typer.Option(min=1, help="Tokens to decode.")] = 16,
    rounds: Annotated[int, typer.Option(min=1, help="Measured rounds; medians count.")] = 3,
    as_json: Json = False,
) -> None:
    """Time prefill and decode, native kernels and plain PyTorch in turn."""
    from .model.speed import measure

    models = {b.value: _load(model, dtype, b, threads) for b in Backend}
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
        _print_json(model=model, tokens_per_second=rates, **_setting(dtype))
        return
    table = Table(title=f"tokens/s, {_setting_line(dtype)}")
    for column in ("backend", f"prefill of {prompt_tokens}", f"decode of {new_tokens}"):
        table.add_column(column, justify="left" if column == "backend" else "right")
    for name, speed in speeds.items():
        table.add_row(name, f"{speed.prefill:.1f}", f"{speed.decode:.1f}")
    native, torch_ = speeds["native"], speeds["torch"]
    ratios = (native.prefill / torch_.prefill, native.decode / torch_.decode)
    table.add_row("native / torch", *(f"{ratio:.2f}x" for ratio in ratios))
    out.print(table)


sae = typer.Typer(help="Train, judge and use sparse dictionaries.", no_args_is_help=True)
app.add_typer(sae, name="sae")
register_sae_eval(sae)
register_audit(app)
register_context_cost(app)
register_postmortem(app)


def _print_report(report: VerifyReport) -> None:
    table = Table(title=f"{report.model}, {report.dtype}: do the bits move?", box=SIMPLE_HEAD)
    table.add_column("varied: how (what shows that it ran)")
    table.add_column("values", justify="right")
    table.add_column("other bits", justify="right")
    table.add_column("")
    for row in report.rows:
        remark = row.error or row.evidence
        promise = f"[bold]{row.varied}[/]: {row.compared} [dim]({escape(remark)})[/]"
        table.add_row(promise, f"{row.values:,}", f"{row.different:,}", _verdict(row))
    out.print(table)
    verdict = "[green]no bit moved[/]" if report.ok else "[red]a promise is broken[/]"
    setting = f"{report.isa}, {report.threads} threads, numerics {report.numerics_version}"
    out.print(f"{verdict}: {setting}, {report.seconds:.0f} s")
    if report.not_covered:
        out.print(f"[dim]not covered here: {'; '.join(report.not_covered)}[/]")


def _verdict(row: VerifyRow) -> str:
    if row.error is not None:
        return "[red]not run[/]"
    if row.control:
        return "[green]differs[/]" if row.ok else "[red]blind[/]"
    return "[green]same[/]" if row.ok else "[red]MOVED[/]"


def _setting(dtype: StrEnum) -> dict[str, Any]:
    return {
        "dtype": dtype.value,
        "isa": isa(),
        "threads": get_num_threads(),
        "version": __version__,
        "numerics_version": numerics_version,
    }


def _setting_line(dtype: StrEnum) -> str:
    threads = get_num_threads()
    return f"{dtype.value}, {isa()}, {threads} thread{'s' * (threads > 1)}"


def _print_json(**data: Any) -> None:
    typer.echo(json.dumps(data, indent=2))


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"bitlens {__version__}, numerics {numerics_version}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show and exit.")
    ] = False,
) -> None:
    from .model.parallel import launched_by_torchrun

    if launched_by_torchrun() and context.invoked_subcommand != "generate":
        raise ValueError("torchrun: only `generate` runs on several ranks; run this without it")


def _as_typed(message: str) -> str:
    """An error's way out, which names arguments of `bitlens.load`, in options of this command."""
    group = typer.main.get_command(app)
    name = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    command = getattr(group, "commands", {}).get(name, group)
    options = {option for parameter in command.params for option in parameter.opts}

    def spell(match: re.Match[str]) -> str:
        option = f"--{match[1]}"
        return f"{option} {match[2]}" if option in options else f"{match[0]} in Python"

    return re.sub(r'\b(backend|dtype|device)="(\w+)"', spell, message)


def main() -> None:
    """Runs the command; bad input ends in one line on stderr, not in a traceback."""
    try:
        app()
    except (ValueError, OSError, NotImplementedError, RuntimeError, MemoryError) as error:
        message = " ".join(_as_typed(str(error)).split()) or type(error).__name__
        typer.secho(f"bitlens: {message}", fg="red", err=True)
        raise SystemExit(BAD_INPUT) from None
    except Exception:  # a bug of ours must not exit with 1, which says that a promise was broken
        traceback.print_exc()
        raise SystemExit(INTERNAL_ERROR) from None
