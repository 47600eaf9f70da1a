"""`bitlens probe causal`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from ..policies import NativePolicyName
from .console import out, print_json
from .loading import load_model
from .model_argument import Model
from .options import Json, NativeDtypeOption, Threads


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        epilog="Example:  bitlens probe causal smollm2-135m-instruct refusal rho-refusal"
        ' --says "I cannot help with that." --rather "Sure, here is" --limit 40',
    )(causal)


def causal(
    model: Model,
    probe: Annotated[
        Path, typer.Argument(help="A linear probe of one hook in the residual stream.")
    ],
    data: Annotated[str, typer.Argument(help="Requests, as `probe eval` takes them.")],
    says: Annotated[str, typer.Option(help="The answer that the direction should bring.")],
    rather: Annotated[str, typer.Option(help="The answer that it is weighed against.")],
    strength: Annotated[
        float, typer.Option(help="Of steering, in spreads of the requests along the direction.")
    ] = 1.0,
    limit: Annotated[int | None, typer.Option(min=2, help="Take only so many requests.")] = None,
    strict: Annotated[
        bool, typer.Option(help="Refuse a probe of a model with another fingerprint.")
    ] = True,
    dtype: NativeDtypeOption = NativePolicyName.fp32,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Say whether a probe's direction does what it detects: ablate it, add it, and measure.

    Requests stand in the model's chat template, where it has one.
    """
    from ..interp.probes import Probe
    from ..interp.probes.causal import causal_check
    from ..interp.probes.data import open_dataset
    from ..interp.probes.reading import tokenizer_of

    labelled = open_dataset(data)
    texts = labelled.texts[:limit]
    loaded = load_model(model, dtype, threads=threads)
    found = Probe.load(probe, loaded, strict=strict)
    tokenizer = tokenizer_of(loaded)
    if tokenizer.chat_template is not None:
        texts = [tokenizer.apply_chat_template([{"role": "user", "content": t}]) for t in texts]
    prompts = [tokenizer.encode(t) for t in texts]
    report = causal_check(
        loaded, found, prompts, tokenizer.encode(says), tokenizer.encode(rather), strength=strength
    )
    if as_json:
        print_json(**report)
        return
    out.print(f"log-odds of the first answer over {report['n_prompts']} requests: "
              f"{report['log_odds']:.3f}")  # fmt: skip
    for name in ("ablated", "steered"):
        each = report[name]
        control = ", ".join(f"{c:+.3f}" for c in each["control"])
        line = (
            f"{name}: {each['mean']:+.3f} [{each['low']:+.3f}, {each['high']:+.3f}]; "
            f"random directions {control}"
        )
        out.print(escape(line), soft_wrap=True)
