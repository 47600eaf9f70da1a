"""`bitlens watch`: a model writes, probes watch."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from ..policies import PolicyName
from .console import err
from .loading import load_model
from .model_argument import Model
from .monitors import PROBE_HELP, StopOrFlag, monitors_of
from .options import Backend, DtypeOption, Json, Threads

if TYPE_CHECKING:
    from ..interp.monitors import Alarm, Monitor
    from ..interp.monitors.page import WatchedText
    from ..model.generation import GenerateOutput
    from ..model.transformer import HookedTransformer


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        epilog="Examples:  bitlens watch smollm2-135m-instruct --probe harm --chat -p 'Tell me a "
        "story'  |  bitlens watch model.gguf --probe a/ --probe b/ --prompts file.txt --json"
    )(watch)


def watch(
    model: Model,
    probe: Annotated[list[Path], typer.Option(help=PROBE_HELP)],
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", help="The prompt (default: read stdin).")
    ] = None,
    prompts: Annotated[Path | None, typer.Option(help="A file with a prompt a line.")] = None,
    chat: Annotated[
        bool, typer.Option("--chat/--raw", help="Wrap prompts in the model's chat template.")
    ] = False,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Stop after so many tokens.")] = 128,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy.")] = 0.0,
    seed: Annotated[int | None, typer.Option(help="Same seed, same text.")] = None,
    stop: StopOrFlag = True,
    threshold: Annotated[float | None, typer.Option(help="In place of the probe's own.")] = None,
    dictionary: Annotated[
        str | None, typer.Option("--dictionary", "-d", help="Explain alarms by its features.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page.")] = None,
    trail: Annotated[Path | None, typer.Option(help="Append to an audit trail.")] = None,
    dtype: DtypeOption = PolicyName.fp32,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Write, watched by probes: text appears once it was scored, coloured by its score.

    Exit code 1 if there was an alarm. With --json, one object a token.
    """
    texts = _prompts(prompt, prompts)
    loaded = load_model(model, dtype, Backend.native, threads, None)
    from ..interp.dictionaries import load_dictionary
    from ..interp.monitors import AuditTrail

    explains = None if dictionary is None else load_dictionary(dictionary, model=loaded)
    shown: list[WatchedText] = []
    n_alarms = 0
    for number, text in enumerate(texts):
        view = _View(loaded, as_json, number)
        monitors = monitors_of(
            loaded, probe, stop=stop, threshold=threshold, dictionary=explains, scored=view.scored
        )
        request: Any = [{"role": "user", "content": text}] if chat else text
        result = loaded.generate(
            request,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed,
            stream=view.write,
            monitors=monitors,
        )
        view.end(result)
        n_alarms += len(result.alarms)
        shown += _watched(loaded, monitors, result)
        if trail is not None:
            AuditTrail(trail).append(loaded, result, f"prompt {number}")
    if html is not None:
        from ..interp.monitors.page import page

        facts = {"model": model, "dtype": dtype.value, "prompts": str(len(texts))}
        html.write_text(page("A watched generation", facts, shown), encoding="utf-8")
        err.print(f"[dim]wrote {html}[/]")
    raise typer.Exit(1 if n_alarms else 0)


class _View:
    """One prompt's answer, as it comes: on the terminal, or as JSON lines."""

    def __init__(self, model: HookedTransformer, as_json: bool, row: int) -> None:
        self._model, self._as_json, self._row = model, as_json, row
        self._out = Console(soft_wrap=True, highlight=False)
        self._latest: dict[str, tuple[float, float]] = {}
        self._line: dict[str, Any] = {}

    def scored(self, name: str, threshold: float) -> Any:
        """Returns what a monitor calls with each score."""

        def take(row: int, position: int, token_id: int, score: float) -> None:
            self._latest[name] = score, threshold
            if self._line.get("position") != position:
                self._flush()
                self._line = {
                    "row": self._row, "position": position, "token_id": token_id, "scores": {},
                    "alarm": False,
                }  # fmt: skip
            self._line["scores"][name] = score
            self._line["alarm"] = self._line["alarm"] or score > threshold

        return take

    def write(self, piece: str) -> None:
        """Prints a piece of text in the colour of the score that stands furthest over its
        threshold."""
        if self._as_json:
            return
        from ..interp.monitors.page import mark

        strongest = max((mark(s, t) for s, t in self._latest.values()), default=0)
        style = f"on rgb({60 + 20 * strongest},30,30)" if strongest > 0 else ""
        self._out.print(Text(piece, style=style), end="")

    def end(self, result: GenerateOutput) -> None:
        """Prints what is known at the end: how it ended, and each alarm."""
        self._flush()
        if self._as_json:
            return
        self._out.print()
        for alarm in result.alarms:
            self._out.print(_sentence(self._model, alarm), style="bold red")
            for line in _terms(self._model, alarm):
                self._out.print(line, style="dim")
        if not result.alarms:
            self._out.print(f"no alarm; ended by {result.finish_reason[0]}", style="dim")

    def _flush(self) -> None:
        if self._line and self._as_json:
            typer.echo(json.dumps(self._line))
        self._line = {}


def _prompts(prompt: str | None, prompts: Path | None) -> list[str]:
    if prompt is not None and prompts is not None:
        raise ValueError("watch: give --prompt or --prompts, not both")
    if prompt is not None:
        return [prompt]
    if prompts is None and sys.stdin.isatty():
        err.print("[dim]Type the prompt, then Ctrl-D on a line of its own:[/]")
    if prompts is None:
        return [sys.stdin.read()]
    found = [line for line in prompts.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not found:
        raise ValueError(f"--prompts {prompts}: no line with a prompt")
    return found


def _watched(
    model: HookedTransformer, monitors: Sequence[Monitor], result: GenerateOutput
) -> list[WatchedText]:
    from ..interp.monitors.page import ScoredToken, WatchedText

    tokens = result.tokens[0].tolist()
    first_new = len(tokens) - result.n_new[0]
    pieces = model.to_str_tokens(result.tokens[0])
    texts = []
    for monitor in monitors:
        scores = result.scores[monitor.name][0].tolist()
        scored = [
            ScoredToken(str(piece), None if score != score else score, i >= first_new)
            for i, (piece, score) in enumerate(zip(pieces, scores, strict=True))
        ]
        alarms = [alarm for alarm in result.alarms if alarm.monitor == monitor.name]
        texts.append(
            WatchedText(monitor.name, monitor.threshold, result.finish_reason[0], scored, alarms)
        )
    return texts


def _sentence(model: HookedTransformer, alarm: Alarm) -> str:
    token = model.to_str_tokens([alarm.token_id])[0]
    return (
        f"{alarm.monitor}: {alarm.score:.4g} > {alarm.threshold:.4g} at position "
        f"{alarm.position}, {token!r} (decided by {alarm.decided_by})"
    )


def _terms(model: HookedTransformer, alarm: Alarm) -> list[str]:
    if alarm.explanation is None:
        return []
    e = alarm.explanation
    shown = list(zip(e.features, e.contributions, strict=True))[:5]
    lines = [f"  feature {feature}: {added:+.4g}" for feature, added in shown]
    rest = sum(e.contributions[5:])
    pieces = model.to_str_tokens(list(alarm.tokens))
    said = zip(e.tokens[:5], e.token_shares, strict=False)
    return [
        "  tokens: " + ", ".join(f"{pieces[t]!r} {added:+.4g}" for t, added in said),
        *lines,
        f"  other features {rest:+.4g}, not reconstructed {e.error:+.4g}, bias {e.bias:+.4g}, "
        f"rounding {e.rounding:+.1e} (at most {e.rounding_bound:.1e})",
    ]
