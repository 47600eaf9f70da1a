"""`bitlens generate`."""

from __future__ import annotations

import sys
import time
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..policies import PolicyName
from .console import err, print_json, setting, setting_line
from .loading import load_model
from .model_argument import Model
from .options import Backend, BackendOption, DtypeOption, Json, Threads

if TYPE_CHECKING:
    from ..model.generation import GenerateOutput


class FilterOrder(StrEnum):
    """The orders of filters that the sampler knows."""

    top_k_first = "top_k_first"
    joint = "joint"


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
    min_p: Annotated[
        float | None, typer.Option(help="Keep tokens of this probability relative to the best.")
    ] = None,
    typical_p: Annotated[
        float | None, typer.Option(help="Keep this much of the most typical probability.")
    ] = None,
    repetition_penalty: Annotated[
        float, typer.Option(help="Divide the logits of tokens seen by this.")
    ] = 1.0,
    frequency_penalty: Annotated[
        float, typer.Option(help="Subtract this for each time a token was written.")
    ] = 0.0,
    presence_penalty: Annotated[
        float, typer.Option(help="Subtract this from tokens that were written.")
    ] = 0.0,
    filter_apply_order: Annotated[
        FilterOrder, typer.Option(help="Whether top-p is a share of what top-k kept, or of all.")
    ] = FilterOrder.top_k_first,
    logit_bias: Annotated[
        list[str] | None,
        typer.Option(metavar="ID=VALUE", help="Add to a token's logit; may be given repeatedly."),
    ] = None,
    allowed_token_ids: Annotated[
        list[int] | None,
        typer.Option(metavar="ID", help="Choose of these tokens alone; may be given repeatedly."),
    ] = None,
    no_repeat_ngram_size: Annotated[
        int, typer.Option(min=0, help="Let no n-gram of this size appear twice (0: any may).")
    ] = 0,
    min_new_tokens: Annotated[
        int, typer.Option(min=0, help="Write at least this many tokens.")
    ] = 0,
    stop: Annotated[
        list[str] | None, typer.Option(help="Text that ends the answer; may be given repeatedly.")
    ] = None,
    logprobs: Annotated[
        int | None,
        typer.Option(min=0, help="With --json: log-probabilities of each token and of the best n."),
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

    biases = _biases(logit_bias or [])
    with torchrun_group() as group:
        leads = group is None or group.rank == 0
        err.quiet = not leads
        read = _read_prompt() if prompt is None and leads else ""
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
            min_p=min_p,
            typical_p=typical_p,
            repetition_penalty=repetition_penalty,
            frequency_penalty=frequency_penalty,
            presence_penalty=presence_penalty,
            filter_apply_order=filter_apply_order.value,
            logit_bias=biases,
            allowed_token_ids=allowed_token_ids,
            no_repeat_ngram_size=no_repeat_ngram_size,
            min_new_tokens=min_new_tokens,
            stop=stop,
            logprobs=logprobs if as_json else None,
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
            finish_reason=result.finish_reason[0],
            **_logprobs(result),
            seconds=seconds,
            ranks=1 if group is None else group.size,
            **setting(dtype),
        )
        return
    ended = "" if result.finish_reason[0] == "stop" else f"stopped at {n_new} tokens; "
    rate = f"{n_new} tokens, {n_new / seconds:.1f} tokens/s"
    err.print(f"[dim]{ended}{rate}, {setting_line(dtype)}[/]")


def _biases(given: list[str]) -> dict[int, float]:
    """Returns the logit bias of each token; raises typer.BadParameter for what is none."""
    biases = {}
    for text in given:
        token, _, value = text.partition("=")
        try:
            biases[int(token)] = float(value)
        except ValueError:
            raise typer.BadParameter(
                f"--logit-bias {text!r}: expected ID=VALUE, as in 42=-3.5"
            ) from None
    return biases


def _read_prompt() -> str:
    if sys.stdin.isatty():
        err.print("[dim]Type the prompt, then Ctrl-D on a line of its own:[/]")
    return sys.stdin.read()


def _logprobs(result: GenerateOutput) -> dict[str, Any]:
    names = ("logprobs", "top_ids", "top_logprobs")
    found = {name: getattr(result, name) for name in names}
    return {name: x[0].tolist() for name, x in found.items() if x is not None}
