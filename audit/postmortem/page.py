"""The rates of `run_postmortem` as a self-contained page."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...precision.charts import Canvas, Figure, Scale, figure, template
from .experiment import DRAWS, EXACT_ON_ROUNDED, FAULTS, TOP_K, TOP_P, Rate
from .shares import PANELS


def page(model: str, rates: Sequence[Rate], made: Sequence[tuple[str, str]]) -> str:
    """Returns the page as HTML. `made` says how: names and what they were, such as the command."""
    prompts = rates[0].prompts
    return template(__package__, "report.html.j2").render(
        model=model,
        prompts=prompts,
        draws=DRAWS,
        top_p=TOP_P,
        top_k=TOP_K,
        headline=headline(rates),
        ok=not any(moved(rate) for rate in rates),
        figures=[_panel(name, share, rates) for name, share in PANELS.items()],
        made=made,
    )


def headline(rates: Sequence[Rate]) -> str:
    """Returns the finding in one sentence."""
    if any(moved(rate) for rate in rates):
        return "bitlens' sampler broke its promise"
    lost = max((_lost(rate) for rate in rates if rate.sampler in FAULTS), default=0.0)
    return f"bitlens moved no token; a known fault loses the best one of {lost:.1%} of prompts"


def moved(rate: Rate) -> bool:
    """Whether the exact sampler broke its promise."""
    found = rate.best_lost or rate.best_not_first or rate.tokens_changed
    return rate.sampler not in FAULTS and bool(found)


def _lost(rate: Rate) -> float:
    return rate.best_lost / rate.prompts


def _panel(name: str, share: Callable[[Rate], float], rates: Sequence[Rate]) -> Figure:
    """A bar for every sampler and shard count."""
    samplers = list(dict.fromkeys(rate.sampler for rate in rates))
    counts = list(dict.fromkeys(rate.shards for rate in rates))
    by_key = {(rate.sampler, rate.shards): share(rate) for rate in rates}
    top = max([*by_key.values(), 0.01])

    def draw(width: float) -> Canvas:
        row, bar = 24 + 11 * len(counts), 9.0
        canvas = Canvas(width, row * len(samplers) + 24, name)
        x = Scale(0, 100 * top, 4, width - 56)
        for i, sampler in enumerate(samplers):
            canvas.text(4, i * row + 13, sampler)
            for j, n in enumerate(counts):
                value, y = by_key[sampler, n], i * row + 19 + 11.0 * j
                title = f"{sampler}, {n} shard{'s' * (n > 1)}: {value:.2%}"
                class_ = "bar" if sampler in FAULTS else "bar exact"
                canvas.rect(4, y, max(x(100 * value) - 4, 1.5), bar, class_, title=title, radius=2)
                canvas.text(x(100 * value) + 5, y + 8.5, "never" if value == 0 else f"{value:.1%}")
        return canvas

    rows = [
        (sampler, *("never" if by_key[sampler, n] == 0 else f"{by_key[sampler, n]:.2%}"
                    for n in counts))
        for sampler in samplers
    ]  # fmt: skip
    of = "sampled tokens" if name.startswith("sampled") else "prompts"
    return figure(
        name[0].upper() + name[1:],
        f"Share of {of}; for each sampler a bar for {', '.join(map(str, counts))} shards of the "
        f"vocabulary. “{EXACT_ON_ROUNDED}” is held against itself on one shard of these logits.",
        draw,
        ("sampler", *(f"{n} shard{'s' * (n > 1)}" for n in counts)),
        rows,
    )
