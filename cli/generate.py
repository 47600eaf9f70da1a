"""`bitlens generate`."""

from __future__ import annotations

import sys
import time
from typing import Annotated, Any

import typer

from ..policies import PolicyName
from .console import err, print_json, setting, setting_line
from .loading import load_model
from .model_argument import Model
from .options import Backend, BackendOption, DtypeOption, Json, Threads


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        epilog="Examples:  bitlens generate smollm2-135m-instruct --chat -p 'Why is the sky blue?'"
        "  |  echo 'Once upon a time' | bitlens generate model.gguf --seed 7 --temperature 0.8"
    )(generate)


def generate(
    model: Model,
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", help="The prompt (default: read stdin).")
    ] = None,
    chat: Annotated[
        bool, typer.Option("--chat/--raw", help="Wrap the prompt in the model's chat template.")
    ] = False,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, help="Generate at most this many tokens.")
    ] = 128,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy.")] = 0.0,
    top_k: Annotated[int | None, typer.Option(min=1, help="Keep the k likeliest tokens.")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Keep the likeliest tokens up to this probability.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the sampler: the same seed, the same text.")
    ] = None,
    dtype: DtypeOption = PolicyName.fp32,
    backend: BackendOption = Backend.native,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Continue a prompt, streaming to the terminal.

    `torchrun --nproc-per-node N -m bitlens generate ...` spreads the model over N processes.
    """
    from ..model.parallel import from_rank_0, torchrun_group

    with torchrun_group() as group:
        leads = group is None or group.rank == 0
        err.quiet = not leads
        read = sys.stdin.read() if prompt is None and leads else ""
        text = from_rank_0(group, (prompt or read).encode()).decode()
        loaded = load_model(model, dtype, backend, threads, group)
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
        print_json(
            model=model,
            prompt=text,
            text=result.text[0],
            tokens=result.tokens[0].tolist(),
            new_tokens=n_new,
            seconds=seconds,
            ranks=1 if group is None else group.size,
            **setting(dtype),
        )
    else:
        err.print(f"[dim]{n_new} tokens, {n_new / seconds:.1f} tokens/s, {setting_line(dtype)}[/]")
