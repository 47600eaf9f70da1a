"""`bitlens serve`."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..policies import NativePolicyName
from .loading import load_model
from .model_argument import Model
from .monitors import PROBE_HELP, StopOrFlag, monitors_of
from .options import NativeDtypeOption, Threads

if TYPE_CHECKING:
    from ..model import HookedTransformer
    from ..model.serving import Router
    from ..model.serving.http.service import Record


class LongRope(StrEnum):
    """RoPE scalings whose keys keep their bits as a sequence grows."""

    yarn = "yarn"
    ntk = "ntk"


KEY_VARIABLE = "BITLENS_API_KEY"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        epilog="Example:  bitlens serve smollm2-135m-instruct  |  then OpenAI(base_url="
        '"http://127.0.0.1:8000/v1", api_key="none")'
    )(serve)


def serve(
    model: Model,
    host: Annotated[str, typer.Option(help="Others than this machine need a key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    name: Annotated[
        str | None, typer.Option(help="The model's name to clients (default: MODEL).")
    ] = None,
    dtype: NativeDtypeOption = NativePolicyName.bf16,
    cache_bytes: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Bound on keys and values, kept prompts included (default: what "
            "the requests need, at most a quarter of memory).",
        ),
    ] = None,
    long_context: Annotated[
        int | None,
        typer.Option(
            min=1, help="Tokens of a second pool, for what the model's own context does not hold."
        ),
    ] = None,
    long_rope: Annotated[
        LongRope, typer.Option(help="How the RoPE of --long-context is stretched.")
    ] = LongRope.yarn,
    max_running: Annotated[int, typer.Option(min=1, help="Samples that run at a time.")] = 32,
    max_waiting: Annotated[int, typer.Option(min=0, help="Samples that may wait.")] = 256,
    token_budget: Annotated[int, typer.Option(min=2, help="Tokens a step runs on.")] = 512,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds an answer may take.")] = 600.0,
    api_key_file: Annotated[
        Path | None, typer.Option(help=f"A key a line (default: ${KEY_VARIABLE}, or none).")
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A name of this server; several may be given.")
    ] = None,
    probe: Annotated[
        list[Path] | None, typer.Option(help=f"Watch every answer. {PROBE_HELP}")
    ] = None,
    stop: StopOrFlag = True,
    trail: Annotated[Path | None, typer.Option(help="Append to an audit trail.")] = None,
    threads: Threads = None,
) -> None:
    """Serve a model over HTTP, to OpenAI's and Anthropic's clients.

    An answer depends on its request alone, whoever else is asking. Ctrl-C and SIGTERM let what is
    under way end.
    """
    import uvicorn

    from ..model.serving.http import Service, create_app, listen

    keys = _keys(api_key_file)
    if host not in _LOOPBACK and not keys:
        raise ValueError(
            f"--host {host}: others can reach it, so it needs a key: --api-key-file, or "
            f"{KEY_VARIABLE}"
        )
    if trail is not None and not probe:
        raise ValueError(f"--trail {trail}: tells what monitors saw: give --probe")
    loaded = load_model(model, dtype, threads=threads)
    router = _router(
        loaded,
        long_context,
        long_rope,
        cache_bytes,
        max_running=max_running,
        max_waiting=max_waiting,
        token_budget=token_budget,
    )
    monitors = monitors_of(loaded, probe or [], stop=stop)
    service = Service(
        router, name or model, timeout=timeout, monitors=monitors, record=_record(trail)
    )
    hosts = [*_LOOPBACK, "[::1]", host, *(allow_host or [])]
    app = create_app(service, keys=keys, hosts=hosts if host != "0.0.0.0" or allow_host else ["*"])
    listening = listen(host, port)
    bound = listening.getsockname()
    pools = ", ".join(
        f"{pool.name}: {pool.context:,} tokens, {pool.fingerprint}" for pool in router.pools
    )
    typer.echo(f"serving {service.name} on http://{host}:{bound[1]} ({pools})", err=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])


def _router(
    model: HookedTransformer,
    long_tokens: int | None,
    long_rope: LongRope,
    cache_bytes: int | None,
    **engine: int,
) -> Router:
    """One pool, or two that share the memory for keys and values as they share the weights."""
    from ..model.serving import Pool, Router, long_context
    from ..model.serving.engine import default_cache_bytes

    if long_tokens is None:
        return Router([Pool("only", model, cache_bytes=cache_bytes, **engine)])
    longer = long_context(model, long_tokens, long_rope.value)
    room = cache_bytes or default_cache_bytes(longer, engine["max_running"])
    return Router(
        [
            Pool("short", model, cache_bytes=room // 2, **engine),
            Pool("long", longer, cache_bytes=room // 2, **engine),
        ]
    )


def _record(path: Path | None) -> Record | None:
    """Returns the function that appends the answers of each request to an audit trail, if
    there is to be one."""
    if path is None:
        return None
    from ..interp.monitors import AuditTrail

    trail = AuditTrail(path)
    return lambda model, request_id, found: trail.append_answers(model, found, request_id)


def _keys(path: Path | None) -> list[str]:
    if path is not None:
        keys = [line.strip() for line in path.read_text().splitlines() if line.strip()]
        if not keys:
            raise ValueError(f"{path}: holds no key")
        return keys
    key = os.environ.get(KEY_VARIABLE)
    return [key] if key else []
