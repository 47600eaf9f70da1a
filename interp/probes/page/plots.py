"""The charts of a probe's report, as inline SVG."""

from __future__ import annotations

from typing import Any, NamedTuple

from ....precision.charts import Canvas, Scale, axes

WIDTH, HEIGHT = 480.0, 300.0
LEFT, RIGHT, TOP, BOTTOM = 48.0, 14.0, 12.0, 30.0


class Chart(NamedTuple):
    """Attributes: legend: Pairs of a CSS class and its words."""

    title: str
    caption: str
    svg: str
    legend: tuple[tuple[str, str], ...] = ()


def charts(report: dict[str, Any]) -> list[Chart]:
    """Returns the charts that a report has figures for."""
    found = []
    if "roc" in report:
        found += [_roc(report), _reliability(report)]
    growth = report.get("benign_check") or report.get("alarms", [])
    if any(each.get("benign", {}).get("growth") for each in growth):
        found.append(_growth(growth))
    if "conversations" in report and "auroc" in report:
        found.append(_scores(report))
    return found


def _canvas(label: str) -> Canvas:
    return Canvas(WIDTH, HEIGHT, label)


def _x(low: float, high: float, *, log: bool = False) -> Scale:
    return Scale(low, high, LEFT, WIDTH - RIGHT, log)


def _y(low: float, high: float) -> Scale:
    return Scale(low, high, HEIGHT - BOTTOM, TOP)


def _roc(report: dict[str, Any]) -> Chart:
    canvas, x, y = _canvas("recall by false-positive rate"), _x(1e-3, 1, log=True), _y(0, 1)
    axes(canvas, x, y)
    canvas.polyline([(x(a), y(b)) for a, b in report["roc"]], "series a")
    legend = [("a", "this probe")]
    if "best_baseline" in report:
        best = report["best_baseline"]
        points = report["baselines"][best]["roc"]
        canvas.polyline([(x(a), y(b)) for a, b in points], "series b")
        legend.append(("b", best))
    return Chart(
        "Recall by false-positive rate",
        "On conversations that were neither fitted nor chosen on. The rate is logarithmic: a "
        "monitor works at its left end.",
        str(canvas),
        tuple(legend),
    )


def _reliability(report: dict[str, Any]) -> Chart:
    canvas, x, y = _canvas("share of positives by probability"), _x(0, 1), _y(0, 1)
    axes(canvas, x, y)
    canvas.line(x(0), y(0), x(1), y(1), "zero")
    points = [(x(b["p"]), y(b["share"])) for b in report["reliability"]]
    canvas.polyline(points, "series a")
    for at, each in zip(points, report["reliability"], strict=True):
        canvas.circle(*at, 3.5, "dot a", title=f"{each['n']} conversations")
    return Chart(
        "Calibration",
        f"Share of positives by the probability that the probe gives, in bins of equally many. "
        f"Brier {report['brier']:.3f}, expected calibration error {report['ece']:.3f}.",
        str(canvas),
    )


def _growth(alarms: list[dict[str, Any]]) -> Chart:
    rows = [(each["target_fpr"], each["benign"]["growth"]) for each in alarms if "benign" in each]
    longest = max((r["tokens"] for _, growth in rows for r in growth), default=2)
    largest = max((r["high"] for _, growth in rows for r in growth), default=1.0)
    canvas, x, y = _canvas("benign conversations with an alarm"), _x(1, longest), _y(0, largest)
    axes(canvas, x, y)
    legend = []
    for class_, (rate, growth) in zip(("a", "b", "c"), rows, strict=False):
        canvas.polyline([(x(r["tokens"]), y(r["value"])) for r in growth], f"series {class_}")
        for r in growth:
            canvas.line(x(r["tokens"]), y(r["low"]), x(r["tokens"]), y(r["high"]), f"bar {class_}")
        legend.append((class_, "own threshold" if rate is None else f"threshold at {rate:.1%}"))
    return Chart(
        "False alarms grow with length",
        "Benign conversations with an alarm up to a number of tokens, of those that are as long.",
        str(canvas),
        tuple(legend),
    )


def _scores(report: dict[str, Any]) -> Chart:
    of = {k: [c["score"] for c in report["conversations"] if c["label"] == k] for k in (0, 1)}
    both = sorted(of[0] + of[1])
    low, high = both[0], max(both[-1], both[0] + 1e-6)
    canvas, x = _canvas("scores by label"), _x(low, high)
    counts = {k: _histogram(v, low, high) for k, v in of.items()}
    y = _y(0, max(max(c) for c in counts.values()))
    axes(canvas, x, y)
    step = (x(high) - x(low)) / len(counts[0])
    for label, class_ in ((0, "bar soft"), (1, "bar positive")):
        for i, count in enumerate(counts[label]):
            at = x(low) + i * step + (step / 2 if label else 0)
            canvas.rect(at, y(count), step / 2 - 0.5, y(0) - y(count), class_)
    return Chart(
        "Scores",
        "Conversations by score: log-odds as the probe sees them.",
        str(canvas),
        (("soft", "label 0"), ("b", "label 1")),
    )


def _histogram(values: list[float], low: float, high: float, n: int = 30) -> list[int]:
    counts = [0] * n
    for v in values:
        counts[min(n - 1, int((v - low) / (high - low) * n))] += 1
    return counts
