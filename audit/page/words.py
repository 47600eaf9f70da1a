"""The findings of an audit in sentences."""

from __future__ import annotations

from ...precision.contract import PrecisionContract
from ...precision.operations import operation_called
from ...precision.statistics import prompts_to_see_an_event
from ..result import AuditResult


def headline(result: AuditResult) -> str:
    """The verdict in a few words."""
    b, found = result.setting.b, result.checkpoints
    if result.depth == "logits":
        rest = "" if result.kept else " is not shown"
        return f"{'' if result.kept else 'That '}{b} keeps A's tokens{rest}"
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


def tone(result: AuditResult) -> str:
    """The colour of the verdict: green only for A's own weights, as B's policy stores them."""
    if result.depth == "logits":
        return "good" if result.ok else "plain"
    if not result.ok:
        return "bad"
    exact = result.checkpoints is None or not result.checkpoints.headline
    return "good" if exact and result.judged else "plain"


def verdict(result: AuditResult) -> str:
    """Says what was found, where, and how much of it."""
    if result.same_model or result.checkpoints is None:
        return _contracts(result)
    found = result.checkpoints
    said = [*map(str, found.differing[:3])]
    if len(found.differing) > 3:
        said.append(f"and {len(found.differing) - 3:,} tensors more")
    for what, differences in found.settings.items():
        said += [f"{what}: {difference}" for difference in differences[:2]]
    return f"Before any run: {'; '.join(said)}. Apart from that: {_contracts(result)}"


def _logits(result: AuditResult) -> str:
    flips, shown = result.flips, result.flips.equivalence
    return (
        f"Judged by its logits alone, on A's texts. {result.why_logits}. {flips.flips:,} of "
        f"{flips.positions:,} next tokens flip; that fewer than {shown.margin:.2g} do is "
        f"{'shown' if shown.equivalent else 'not shown'}, p = {shown.p_value:.2g}."
    )


def _contracts(result: AuditResult) -> str:
    if result.depth == "logits":
        return _logits(result)
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
            f"{places} operation{'s' * (places > 1)}, first in {first.name}: "
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


def contract_sentence(result: AuditResult) -> str:
    """Says what B's contract is, such as "bf16 storage, fp32 sums, one rounding at each output"."""
    contracts = list(dict.fromkeys(op.contract for op in result.judged))
    if not contracts:
        return "no operation has a contract that judges it"
    sums = [c.accumulate for c in contracts if operation_called(c.op).reduces]
    return ", ".join(
        [
            f"{_listed([c.storage for c in contracts])} storage",
            *([f"{_listed(sums)} sums"] if sums else []),
            _roundings(contracts),
        ]
    )


def _listed(names: list[str]) -> str:
    return " and ".join(sorted(set(names), key=names.index))


def _roundings(contracts: list[PrecisionContract]) -> str:
    inside = [point for c in contracts for point in c.casts if point != "output"]
    if not inside:
        return "one rounding at each output"
    return f"roundings at each output and, inside operations, at {_listed(inside)}"


def enough_prompts(result: AuditResult) -> str:
    """Whether the prompts were enough for the margin, and how many are; "" where they were."""
    flips, shown = result.flips, result.flips.equivalence
    needed = prompts_to_see_an_event(shown.margin)
    if shown.equivalent or flips.rate >= shown.margin:
        return ""
    if flips.prompts < needed:
        least = "" if flips.flips == 0 else "at least "
        return (
            f"{flips.prompts} prompts are too few to show that fewer than {shown.margin:.2g} flip: "
            f"{least}{needed} are enough"
        )
    return f"that fewer than {shown.margin:.2g} flip is not shown: flips cluster, take more prompts"
