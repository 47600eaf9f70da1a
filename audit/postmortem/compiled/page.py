"""The findings on compiled blocks and samplers as a self-contained page."""

from __future__ import annotations

from collections.abc import Sequence

from ....precision.charts import Canvas, Figure, Scale, figure, template
from .blocks import BlockFindings
from .experiment import CompiledReport
from .samplers import SamplerFindings
from .words import cause, headline


def page(model: str, report: CompiledReport, made: Sequence[tuple[str, str]]) -> str:
    """Returns the page as HTML. `made` says how: names and what they were, such as the command."""
    blocks = report.blocks
    return template(__package__, "report.html.j2").render(
        model=model,
        report=report,
        headline=headline(report),
        tone=_tone(blocks),
        cause=cause(blocks),
        outside=_outside(blocks),
        restored=_restored(blocks),
        samplers=[_sampler(each) for each in report.samplers],
        made=made,
    )


def _tone(blocks: BlockFindings) -> str:
    if blocks.violated("strict"):
        return "bad"
    return "plain" if blocks.violated("excess") else "good"


def _outside(blocks: BlockFindings) -> Figure:
    """A bar for each operation and flag."""
    rows = [
        (address, strict, blocks.judged["excess"][address])
        for address, strict in blocks.judged["strict"].items()
    ]

    top = max(1.0, *(100 * found.outside / found.values for _, *both in rows for found in both))

    def draw(width: float) -> Canvas:
        left, row = 160.0, 30.0
        canvas = Canvas(width, row * len(rows) + 24, "Values outside the contract, by operation")
        x = Scale(0, top, left, width - 60)
        for i, (address, *flags) in enumerate(rows):
            canvas.text(left - 8, i * row + 17, address, anchor="end")
            for j, (flag, found) in enumerate(zip(("strict", "excess"), flags, strict=True)):
                share, y = 100 * found.outside / found.values, i * row + 4 + 11.0 * j
                title = f"{address}, {flag}: {found.outside:,} of {found.values:,} outside"
                class_ = "bar exact" if flag == "strict" else "bar"
                canvas.rect(left, y, max(x(share) - left, 1.5), 9.0, class_, title=title, radius=2)
                canvas.text(x(share) + 5, y + 8.5, f"{share:.1f}%" if found.outside else "none")
        return canvas

    return figure(
        "Which operations lie outside their contract",
        "Share of the values checked, for each operation with excess precision forbidden (above) "
        "and allowed (below). Each is held against its contract on the values that the program "
        "itself returned as its inputs.",
        draw,
        ("operation", "values", "outside, strict", "outside, excess"),
        [
            (address, f"{strict.values:,}", f"{strict.outside:,}", f"{excess.outside:,}")
            for address, strict, excess in rows
        ],
    )


def _restored(blocks: BlockFindings) -> list[tuple[str, str]]:
    """Every address whose rounding alone brings some position back, and the fewest together."""
    alone = [(a, f"{share:.1%}") for a, share in blocks.restored.items() if share > 0]
    together = (" and ".join(blocks.fewest), f"{blocks.together:.1%}")
    return [*alone, together] if len(blocks.fewest) > 1 else alone


def _sampler(found: SamplerFindings) -> tuple[str, ...]:
    best = max(found.restored, key=found.restored.__getitem__, default=None)
    return (
        found.flag,
        f"{found.other_values:,} of {found.values:,}",
        f"{found.best_lost} of {found.prompts}",
        f"{found.other_candidates} of {found.prompts}",
        f"{found.tokens_changed:,}",
        "–" if best is None else f"{best}: {found.restored[best]:.1%}",
    )
