"""An `AuditResult` as a self-contained page. Everything a model or a user wrote is escaped."""

from __future__ import annotations

import base64
import json
import os
import time

from ...precision.charts import template
from ..result import AuditResult
from . import charts
from .charts import percent, short, used
from .histograms import histograms
from .tiles import tiles
from .words import contract_sentence, headline, tone, verdict


def render(result: AuditResult, command: str = "") -> str:
    """Returns the page as HTML.

    Args:
        command: What was typed, to be typed again; "" where it was Python.
    """
    page = template(
        __package__, "report.html.j2", {"short": short, "percent": percent, "used": used}
    )
    script = result.reproducer.script if result.reproducer else ""
    return page.render(
        result=result,
        headline=headline(result),
        tone=tone(result),
        verdict=verdict(result),
        contract=contract_sentence(result),
        tiles=tiles(result),
        sections=_sections(result),
        growth=charts.growth(result),
        heatmap=charts.heatmap(result),
        utilisation=charts.utilisation(result),
        margins=charts.margins(result),
        histograms=histograms(result),
        not_compared=[*result.setting.only_a, *result.setting.only_b],
        certificate=json.dumps(result.to_dict()["certificate"], indent=2),
        script_url=_data_url(script, "text/x-python"),
        json_url=_data_url(result.to_json(), "application/json"),
        command=command or "bitlens.audit.run_audit, from Python",
        date=page_date(),
    )


def page_date() -> str:
    """The time in UTC, or that of SOURCE_DATE_EPOCH where it is set, so that pages can be rebuilt
    byte for byte (https://reproducible-builds.org/specs/source-date-epoch/)."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    seconds = time.time() if epoch is None else int(epoch)
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def _sections(result: AuditResult) -> list[tuple[str, str]]:
    """Anchors and names of the sections that the page has."""
    by_operation = result.depth == "operations"
    found = {
        "checkpoints": ("Same model?", result.checkpoints is not None),
        "violations": ("Violations", bool(result.violated)),
        "growth": ("Error growth", by_operation),
        "divergence": ("Divergence", by_operation),
        "tokens": ("Tokens", True),
        "features": ("Features", result.features is not None),
        "contracts": ("Contracts", by_operation),
        "ulp": ("Rounding", bool(result.histograms)),
        "certificate": ("Certificate", True),
        "made": ("How it was made", True),
    }
    return [(anchor, words) for anchor, (words, there) in found.items() if there]


def _data_url(text: str, kind: str) -> str:
    return f"data:{kind};charset=utf-8;base64," + base64.b64encode(text.encode()).decode()
