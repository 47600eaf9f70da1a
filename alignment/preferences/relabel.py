"""A revised constitution: the labels that drew an edited principle are asked again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...model.transformer import HookedTransformer
from ..constitution import Constitution
from ..row_file import Row
from .judges import Judge
from .label import Labels, drawn_comparison, label
from .pairs import Pairs, read_pairs
from .summary import summarise


@dataclass(frozen=True)
class Relabelled:
    """Labels under an edited constitution.

    Attributes:
        labels: Of all pairs; those that drew no edited principle as they were.
        asked: The ids of the pairs that were asked again.
        flipped: Those of them whose label changed sides.
        principles: The number of pairs asked and flipped, by principle.
    """

    labels: Labels
    asked: list[str]
    flipped: list[str]
    principles: dict[str, tuple[int, int]]


def relabel(
    model: HookedTransformer,
    labels: Labels,
    pairs: Pairs,
    *,
    before: Constitution,
    after: Constitution,
    seed: int,
    judge: Judge | None = None,
) -> Relabelled:
    """Labels again what an edit of the constitution can have changed.

    Args:
        labels: Of `pairs` under `before`, with this seed; they keep their form.
        before, after: Constitutions whose comparisons have the same names in the same order.
        judge: As in `label`.

    Raises ValueError for comparisons that were added, removed or reordered, which would move every
    draw, and labels that are not of these pairs under `before`.
    """
    names = [[one.name for one in each.comparisons] for each in (before, after)]
    if names[0] != names[1]:
        raise ValueError("after: other comparisons, or another order; every draw would move")
    read = read_pairs(pairs, model.tokenizer)
    if [row["id"] for row in labels.rows] != [pair.id for pair in read] or {
        row["constitution"] for row in labels.rows
    } != {before.digest}:
        raise ValueError("labels: are not those of these pairs under the constitution before")
    moved = [
        pair
        for pair in read
        if drawn_comparison(before, pair, seed) != drawn_comparison(after, pair, seed)
    ]
    asked: dict[str, Row] = {}
    if moved:
        rows = [{**pair.row, "id": pair.id} for pair in moved]
        form = labels.form or None
        again = label(model, after, rows, seed=seed, form=form, judge=judge)
        asked = {row["id"]: row for row in again.rows}
    whole = [{**asked.get(row["id"], row), "constitution": after.digest} for row in labels.rows]
    flipped = changed_sides(labels.rows, whole)
    principles = {
        name: (
            sum(row["principle"] == name for row in asked.values()),
            sum(asked[id_]["principle"] == name for id_ in flipped),
        )
        for name in dict.fromkeys(row["principle"] for row in asked.values())
    }
    found = Labels(whole, summarise(whole, read), labels.form)
    return Relabelled(found, list(asked), flipped, principles)


def changed_sides(before: Sequence[Row], after: Sequence[Row]) -> list[str]:
    """Returns the ids of labels that prefer another answer than before."""
    pairs = zip(before, after, strict=True)
    return [b["id"] for a, b in pairs if (a["p_a"] - 0.5) * (b["p_a"] - 0.5) < 0]


def changed_verdicts(
    before: Sequence[Mapping[str, str]], after: Sequence[Mapping[str, str]]
) -> list[tuple[str, str, str]]:
    """Returns id, verdict before and verdict after of every prompt whose verdict changed.

    The rows are those of two runs' answers.jsonl. Raises ValueError for other prompts.
    """
    at = {row["id"]: row["verdict"] for row in before}
    if set(at) != {row["id"] for row in after}:
        raise ValueError("after: answers to other prompts")
    return [
        (row["id"], at[row["id"]], row["verdict"])
        for row in after
        if at[row["id"]] != row["verdict"]
    ]
