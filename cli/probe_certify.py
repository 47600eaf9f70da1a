"""`bitlens probe certify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from ..policies import NativePolicyName
from .console import VIOLATED, out, print_json
from .loading import load_model
from .model_argument import Model
from .options import Json, Threads
from .progress import progress_bars


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        epilog="Examples:  bitlens probe certify smollm2-135m-instruct probe english --store"
        "  |  bitlens probe certify smollm2-135m-instruct probe mine.jsonl --recorded other.json",
    )(certify)


def certify(
    model: Model,
    probe: Annotated[Path, typer.Argument(help="A folder that `bitlens probe train` made.")],
    data: Annotated[str, typer.Argument(help="Conversations, as `probe eval` takes them.")],
    a: Annotated[
        NativePolicyName, typer.Option("--a", help="The reference's precision policy.")
    ] = NativePolicyName.fp32,
    b: Annotated[
        NativePolicyName, typer.Option("--b", help="The policy that serves.")
    ] = NativePolicyName.bf16,
    recorded: Annotated[
        Path | None,
        typer.Option(help="Scores that `--record` wrote on another platform, in place of --b."),
    ] = None,
    record: Annotated[
        Path | None, typer.Option(help="Write run a's scores there, for another platform.")
    ] = None,
    store: Annotated[
        bool, typer.Option("--store", help="Write margin and golden scores into the probe's file.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option(min=2, help="Take only so many conversations.")
    ] = None,
    strict: Annotated[
        bool, typer.Option(help="Refuse a probe of a model with another fingerprint.")
    ] = True,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Say which decisions of a probe cannot have flipped in another precision, and by how much
    scores move there.

    Exit 1 if a certified decision flipped, or a score is outside the bound of its rounding.
    """
    from ..interp.probes import Probe
    from ..interp.probes.certificate import RecordedScores, certify_probe, store_certificate
    from ..interp.probes.data import open_dataset

    if recorded is not None and store:
        raise ValueError("--store needs both runs here: leave --recorded out")
    if recorded is None and a == b:
        raise ValueError(f"--b {b.value}: the same run as --a; choose another policy")
    labelled = open_dataset(data)
    if limit is not None:
        labelled = labelled.take(range(min(limit, len(labelled))))
    reference = load_model(model, a, threads=threads)
    found = Probe.load(probe, reference, strict=strict)
    other = (
        load_model(model, b, threads=threads)
        if recorded is None
        else RecordedScores.load(recorded, found, labelled)
    )
    with progress_bars() as advance:
        report = certify_probe(reference, other, found, labelled, record=record, progress=advance)
    if store and not isinstance(other, RecordedScores):
        store_certificate(found, reference, other, report)
        found.save(probe)
    if as_json:
        print_json(**report)
    else:
        _print(report, probe if store else None)
    if report["decisions"]["certified_and_flipped"] or report["arithmetic"]["outside"]:
        raise typer.Exit(VIOLATED)


def _print(report: dict[str, Any], stored: Path | None) -> None:
    from ..interp.probes.page import share

    arithmetic, decisions = report["arithmetic"], report["decisions"]
    tenth = decisions["certified_and_flipped_with_a_tenth_of_the_bound"]
    guarantee = report["margin_guarantee"]
    for line in (
        f"{report['run_a']} against {report['run_b']}, {decisions['tokens']:,} tokens of "
        f"{report['data']['n']:,} conversations",
        f"arithmetic: {arithmetic['outside']} of {arithmetic['scores']:,} scores outside their "
        f"bound, the largest at {arithmetic['largest_share_of_bound']:.3f} of it",
        f"certified: {share(decisions['certified'])} cannot have flipped, if "
        f"{'; '.join(report['premises'])}",
        f"flipped: {decisions['flipped']}, certified ones among them: "
        f"{decisions['certified_and_flipped']} (with a tenth of the bound {tenth})",
        f"margin: {report['margin']:.4g}; with {guarantee['confidence']:.0%} confidence at most "
        f"{guarantee['at_most']:.2%} of conversations have a decision outside it that differs",
    ):
        out.print(escape(line), soft_wrap=True)
    if stored is not None:
        out.print(escape(f"margin and golden scores stored in {stored}"), soft_wrap=True)
