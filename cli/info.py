"""`bitlens info`."""

from __future__ import annotations

import dataclasses

import typer
from rich.table import Table

from ..policies import PolicyName
from .console import out, print_json, setting, setting_line, show
from .loading import load_model
from .model_argument import Model
from .options import Backend, BackendOption, DtypeOption, Json


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(epilog="Example:  bitlens info smollm2-135m-instruct --json")(info)


def info(
    model: Model,
    dtype: DtypeOption = PolicyName.fp32,
    backend: BackendOption = Backend.native,
    as_json: Json = False,
) -> None:
    """Show architecture, parameters, storage, instruction set and threads."""
    from ..model.ops.bf16_products import bf16_products_in_words

    loaded = load_model(model, dtype, backend)
    config = loaded.config
    storage = loaded.storage()
    if as_json:
        print_json(
            model=model,
            config=dataclasses.asdict(config),
            parameters=loaded.n_parameters(),
            storage=storage,
            bf16_products=bf16_products_in_words() if backend is Backend.native else None,
            **setting(dtype),
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
    table.add_row("running as", setting_line(dtype))
    if backend is Backend.native:
        table.add_row("bf16 products by", bf16_products_in_words())
    show(table, out)
