"""Whether a judge calls revisions better than the answers that they began from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..draws import shuffled
from ..row_file import Row
from .rounds import Preferred

JUDGED = 40
"""Prompts whose revisions are judged, all rounds of them: each is a question in two orders."""

Judged = Callable[[Sequence[Row]], Sequence[float]]
"""Returns the probability that the first answer of each pair is the better one."""


def preferred(revisions: Sequence[Row], judged: Judged, *, seed: int) -> Preferred:
    """Returns the probability of each revision of `JUDGED` prompts, which the seed draws.

    A revision that is equal to its answer, or where either is empty, is neither better nor worse.
    """
    ids = sorted({row["id"] for row in revisions}, key=lambda id_: shuffled(seed, id_))[:JUDGED]
    answers = {row["id"]: row["response"] for row in revisions if row["round"] == 0}
    found: dict[tuple[str, int], float] = {}
    asked: list[Row] = []
    for row in revisions:
        if row["id"] not in ids or row["round"] == 0:
            continue
        found[row["id"], row["round"]] = 0.5
        texts = row["response"].strip(), answers[row["id"]].strip()
        if all(texts) and texts[0] != texts[1]:
            asked.append(_pair(row, *texts))
    labels = judged(asked) if asked else []
    for pair, p in zip(asked, labels, strict=True):
        found[pair["revised"], pair["round"]] = p
    return found


def _pair(row: Row, revision: str, answer: str) -> Row:
    id_ = f"{row['id']} round {row['round']}"
    columns = {**row["columns"], "text": row["prompt"], "revised": row["id"], "round": row["round"]}
    return {**columns, "id": id_, "prompt": row["prompt"], "first": revision, "second": answer}
