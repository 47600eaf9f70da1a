"""The figures at the top of the page."""

from __future__ import annotations

from dataclasses import dataclass

from ..result import AuditResult
from .charts import percent, used
from .words import enough_prompts


@dataclass(frozen=True)
class Tile:
    """A figure at the top of the page."""

    value: str
    label: str
    remark: str
    tone: str = ""


def tiles(result: AuditResult) -> list[Tile]:
    """The figures, coloured only where something is wrong, or where nothing at all is."""
    flips, worst = result.flips, result.worst
    low, high = flips.clustered_interval
    share = f"{percent(flips.rate)}; {percent(low)} to {percent(high)} (95%, prompts as clusters)"
    tiles = [
        Tile(
            f"{flips.flips:,} of {flips.positions:,}",
            "next tokens flip",
            "; ".join(filter(None, (share, enough_prompts(result)))),
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
                f"{worst.address}; up to 100% is normal, beyond it a violation is proven",
                "" if worst.ok else "bad",
            )
        )
    if result.depth == "operations":
        tiles.append(_divergence(result))
    return tiles


def _divergence(result: AuditResult) -> Tile:
    found = result.divergence
    if found.first is not None:
        remark, tone = _JUDGES[found.judge]
        label = "is the first to differ" if result.kept else "first divergent operation"
        return Tile(found.first, label, remark, tone)
    where = f"error adds up beyond it from {found.carried} on" if found.carried else ""
    more = "another bit" if found.judge == "bits" else "more than rounding explains"
    return Tile("none", f"of the operations creates {more}", where)


_JUDGES = {
    "contract": ("breaks its contract on A's inputs", "bad"),
    "bits": ("gives other bits on A's inputs", ""),
    "relative": ("differs on A's inputs by more than rounding to the coarser format", ""),
}
