"""The charts of a run's page: revisions round by round, RL's path, and what moved inside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...precision.charts import Canvas, Figure, Scale, axes, figure
from .optimisation_path import Batch
from .result import CaiRun
from .rounds import Round

STAGES = {"before": "before", "sl": "SL-CAI", "rl": "RL-CAI"}
BEHIND = {"sl": "the first model", "rl": "the SL-CAI model"}
HEIGHT, BINS = 230.0, 10


def rounds_figure(found: CaiRun) -> Figure:
    """Returns how often the judge prefers each round to the answers, with critiques and without,
    over all kinds of prompts together; the table has each kind."""
    lines = [
        (_over_kinds(rounds), class_)
        for rounds, class_ in ((found.rounds, "series a"), (found.ablation, "series b"))
        if rounds
    ]

    def draw(width: float) -> Canvas:
        canvas = Canvas(width, HEIGHT, "how often the judge prefers a revision to the answer")
        last = max(each.number for each in found.rounds)
        x, y = Scale(0, last, 44, width - 14), Scale(0, 1, HEIGHT - 26, 10)
        axes(canvas, x, y, x_ticks=min(last, 8))
        for values, class_ in lines:
            canvas.polyline([(x(i), y(value)) for i, value in values], class_)
        return canvas

    critique = bool(found.manifest["config"]["critique"])
    names = "with critiques" if critique else "without critiques", "without critiques"
    rows = [
        _round_row(each, name)
        for rounds, name in zip((found.rounds, found.ablation), names, strict=True)
        for each in rounds
    ]
    columns = (
        "prompts", "how", "round", "n", "better than the answer", "refused", "answered",
        "nonsense", "characters", "the most frequent", "changed",
    )  # fmt: skip
    caption = (
        f"The probability, by the judge, that a revision is better than the answer of round 0. On "
        f"held-out pairs of known truth this judge is right in {_percent(found.gate.accuracy)}, at "
        f"least {_percent(found.gate.low)} by the 95% bound: believe the lines as far as that."
    )
    legend = [("", names[0])] + [("b", names[1])] * bool(found.ablation)
    return figure("Revisions, round by round", caption, draw, columns, rows, legend)


def _over_kinds(rounds: Sequence[Round]) -> list[tuple[int, float]]:
    """The mean preference of each round, an answer against itself a half."""
    found: list[tuple[int, float]] = [(0, 0.5)]
    for number in sorted({each.number for each in rounds} - {0}):
        own = [each for each in rounds if each.number == number and each.preferred is not None]
        n = sum(each.n_judged for each in own)
        if n:
            found.append((number, sum(e.n_judged * (e.preferred or 0.0) for e in own) / n))
    return found


def _round_row(each: Round, how: str) -> tuple[str, ...]:
    preferred = "–"
    if each.preferred is not None and each.low is not None and each.high is not None:
        interval = f"{_percent(each.low)} to {_percent(each.high)}"
        preferred = f"{_percent(each.preferred)} ({interval}, n = {each.n_judged})"
    shares = (each.refusal, each.answer, each.nonsense)
    return (
        each.kind.replace("_", " "), how if each.number else "the answer", str(each.number),
        str(each.n), preferred, *map(_percent, shares), f"{each.length:.0f}",
        _percent(each.boilerplate), _percent(each.changed),
    )  # fmt: skip


def path_figure(path: Sequence[Batch]) -> Figure | None:
    """Returns reward and gold score along RL, in `BINS` stretches; None without a path."""
    if not path:
        return None
    size = -(-len(path) // BINS)
    parts = [path[i : i + size] for i in range(0, len(path), size)]
    rewards = [_mean([b.reward for b in part]) for part in parts]
    golds = [_mean([b.gold for b in part if b.gold is not None]) for part in parts]
    has_gold = path[0].gold is not None

    def draw(width: float) -> Canvas:
        canvas = Canvas(width, HEIGHT, "reward and good answers along RL")
        x = Scale(0, max(1, len(parts) - 1), 44, width - 14)
        low, high = min(rewards), max(rewards)
        reward, y = Scale(low, high, HEIGHT - 26, 10), Scale(0, 1, HEIGHT - 26, 10)
        axes(canvas, None, y)
        canvas.polyline([(x(i), reward(v)) for i, v in enumerate(rewards)], "series a")
        if has_gold:
            canvas.polyline([(x(i), y(v)) for i, v in enumerate(golds)], "series b")
        return canvas

    rows = [
        (
            f"{part[0].step} to {part[-1].step}",
            "–" if part[0].kl is None else f"{_mean([b.kl or 0.0 for b in part]):.4f}",
            f"{rewards[i]:.3f}",
            _percent(golds[i]) if has_gold else "–",
            f"{_mean([b.length for b in part]):.0f}",
            _percent(_mean([b.boilerplate for b in part])),
        )
        for i, part in enumerate(parts)
    ]
    columns = (
        "steps", "KL in nats a token", "reward", "good answers", "characters", "the most frequent",
    )  # fmt: skip
    caption = (
        "The reward that is optimised, scaled from its least to its most, and the share of the "
        "same answers that are what the stand-in's rules want, which nothing was trained on. A "
        "reward that rises while good answers fall is over-optimised."
    )
    legend = [("", "reward"), ("b", "good answers")][: 1 + has_gold]
    return figure("Reward and good answers along RL", caption, draw, columns, rows, legend)


def insides_figure(row: dict[str, Any]) -> Figure:
    """Returns how far a stage moved each block's weights and stream, and what putting the old
    block back takes away."""
    layers = row["layers"]
    swaps = row["swaps"]["blocks"] if row["swaps"] else [None] * len(layers)
    most = max(max(each["weights"], each["stream"]) for each in layers) or 1.0

    def draw(width: float) -> Canvas:
        canvas = Canvas(width, HEIGHT, "how far each block moved")
        x = Scale(0, max(1, len(layers) - 1), 52, width - 14)
        y = Scale(0, most, HEIGHT - 26, 10)
        axes(canvas, x, y, x_ticks=min(8, len(layers)))
        for name, class_ in (("weights", "series a"), ("stream", "series b")):
            canvas.polyline([(x(each["layer"]), y(each[name])) for each in layers], class_)
        return canvas

    rows = [
        (
            str(each["layer"]),
            f"{each['weights']:.5f}",
            f"{each['stream']:.4f}",
            f"{each['cosine']:.4f}",
            "–" if swap is None else f"{swap['restored']:+.3f}",
        )
        for each, swap in zip(layers, swaps, strict=True)
    ]
    columns = (
        "block", "weights moved", "stream moved", "cosine of streams", "taken back by the old block"
    )  # fmt: skip
    caption = (
        f"{STAGES[row['stage']]} against {BEHIND[row['stage']]}: the distance of each block's "
        "weights and of the residual stream behind it, in units of their size before."
    )
    legend = [("", "weights"), ("b", "stream")]
    return figure(f"What {STAGES[row['stage']]} moved", caption, draw, columns, rows, legend)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%"
