"""An `AuditResult` as a self-contained page. Everything a model or a user wrote is escaped."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from importlib.resources import files

from ..result import AuditResult
from . import charts
from .charts import percent, short, used

TEMPLATE, STYLE = "report.html.j2", "report.css"


@dataclass(frozen=True)
class Tile:
    """A figure at the top of the page."""

    value: str
    label: str
    remark: str
    tone: str = ""


def render(result: AuditResult) -> str:
    """The page as HTML."""
    from jinja2 import Environment, StrictUndefined

    here = files(__package__)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters |= {"short": short, "percent": percent, "used": used}
    template = environment.from_string(here.joinpath(TEMPLATE).read_text(encoding="utf-8"))
    script = result.reproducer.script if result.reproducer else ""
    return template.render(
        result=result,
        style=here.joinpath(STYLE).read_text(encoding="utf-8"),
        headline=_headline(result),
        verdict=_verdict(result),
        tone=_tone(result),
        tiles=_tiles(result),
        growth=charts.growth(result),
        heatmap=charts.heatmap(result),
        utilisation=charts.utilisation(result),
        margins=charts.margins(result),
        histograms=[charts.histogram(found) for found in result.histograms],
        not_compared=[*result.setting.only_a, *result.setting.only_b],
        certificate=json.dumps(result.to_dict()["certificate"], indent=2),
        script_url=_data_url(script, "text/x-python"),
        json_url=_data_url(result.to_json(), "application/json"),
    )


def _headline(result: AuditResult) -> str:
    b, found = result.setting.b, result.checkpoints
    differ = found.headline if found is not None else ""
    if differ and not result.same_model:
        return f"{b} is another model: {differ}"
    if result.meaning:
        return f"{b} computes something else"
    if result.violated:
        return f"{b} broke its contract"
    if not result.ok:
        return "What was certified flipped"
    if not result.judged:
        return "Nothing was judged"
    return f"{b} kept its contract" + (f", with {differ}" if differ else "")


def _tone(result: AuditResult) -> str:
    """The colour of the verdict: green only for A's own weights, as B's policy stores them."""
    if not result.ok:
        return "bad"
    exact = result.checkpoints is None or not result.checkpoints.headline
    return "good" if exact and result.judged else "plain"


def _verdict(result: AuditResult) -> str:
    if result.same_model or result.checkpoints is None:
        return _contracts(result)
    found = result.checkpoints
    said = [*map(str, found.differing[:3])]
    if len(found.differing) > 3:
        said.append(f"and {len(found.differing) - 3:,} tensors more")
    for what, differences in found.settings.items():
        said += [f"{what}: {difference}" for difference in differences[:2]]
    return f"Before any run: {'; '.join(said)}. Apart from that: {_contracts(result)}"


def _contracts(result: AuditResult) -> str:
    values = sum(op.values for op in result.judged)
    if result.meaning:
        found = "; ".join(map(str, result.meaning))
        return f"Before any rounding, B and A do not mean the same: {found}."
    if result.violated:
        outside = sum(op.outside for op in result.violated)
        first = result.violated[0]
        places = len(result.violated)
        _, _, reason = first.reason.partition("; ")
        return (
            f"{outside:,} of {values:,} values checked lie outside what the contract permits, in "
            f"{places} operation{'s' * (places > 1)}, first in {first.address}: "
            f"{reason or first.reason}."
        )
    if not result.kept:
        return (
            "The certificate is wrong: a position it covers has another token or feature. "
            "Report this."
        )
    return (
        f"All {values:,} values checked, in {len(result.judged)} operations each fed A's own "
        "inputs, lie within what their contracts permit. That bounds rounding, operation by "
        "operation; what it does to tokens is counted below."
    )


def _tiles(result: AuditResult) -> list[Tile]:
    flips, worst = result.flips, result.worst
    low, high = flips.clustered_interval
    tiles = [
        Tile(
            f"{flips.flips:,} of {flips.positions:,}",
            "next tokens flip",
            f"{percent(flips.rate)}; {percent(low)} to {percent(high)} (95%, prompts as clusters)",
            "" if flips.flips or not result.ok else "good",
        ),
        Tile(
            percent(flips.certified / flips.positions if flips.positions else None),
            "of positions certified",
            "by their margin, cannot have flipped",
        ),
    ]
    if (changes := result.features) is not None:
        tiles.append(
            Tile(
                percent(changes.changed_share),
                "of active features differ",
                f"at {changes.hook_name}; {changes.lost:,} lost, {changes.gained:,} gained",
                "" if changes.changed_share or not result.ok else "good",
            )
        )
    if worst is not None:
        tiles.append(
            Tile(
                used(worst.utilisation),
                "of the bound used at most",
                worst.address,
                "" if worst.ok else "bad",
            )
        )
    found = result.divergence
    if found.first is not None:
        remark, tone = _JUDGES[found.judge]
        label = "is the first to differ" if result.kept else "first divergent operation"
        tiles.append(Tile(found.first, label, remark, tone))
    else:
        where = f"error adds up beyond it from {found.carried} on" if found.carried else ""
        more = "another bit" if found.judge == "bits" else "more than rounding explains"
        tiles.append(Tile("none", f"of the operations creates {more}", where))
    return tiles


_JUDGES = {
    "contract": ("breaks its contract on A's inputs", "bad"),
    "bits": ("gives other bits on A's inputs", "warn"),
    "relative": ("differs on A's inputs by more than rounding to the coarser format", ""),
}


def _data_url(text: str, kind: str) -> str:
    return f"data:{kind};charset=utf-8;base64," + base64.b64encode(text.encode()).decode()
