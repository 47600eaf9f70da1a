"""Two answers of one model to each prompt, for a judge to compare."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ...model.transformer import HookedTransformer
from ..draws import digest_of, draw_seed
from ..prompt_rows import PromptRow
from ..revision.targets import as_prompt
from ..row_file import Row, RowFile
from ..sampled_texts import sampled_texts

CHUNK = 32


def sampled_pairs(
    model: HookedTransformer,
    prompts: Sequence[PromptRow],
    output: Path,
    *,
    seed: int,
    max_new_tokens: int,
    temperature: float,
    chat: bool,
    ungated: bool = False,
) -> list[Row]:
    """Returns pairs of different answers to each prompt, which its id and the seed fix.

    Prompts whose answers are equal or empty have a row that says so, under "equal".
    """
    settings: dict[str, Any] = {"max_new_tokens": max_new_tokens, "temperature": temperature}
    identity = ["samples", model.fingerprint(), model.ops.policy.name, settings, seed]
    file = RowFile(output, digest_of([*identity, list(prompts)]), ungated=ungated)

    def answered(part: Sequence[PromptRow]) -> Iterator[Row]:
        asked = [(row, i) for row in part for i in (0, 1)]
        texts = sampled_texts(
            model,
            [as_prompt(row["text"], chat) for row, _ in asked],
            [draw_seed(seed, row["id"], "sample", i) for row, i in asked],
            **settings,
        )
        for i, row in enumerate(part):
            yield _row(row, *texts[2 * i : 2 * i + 2])

    rows = file.fill(prompts, CHUNK, answered)
    return [row for row in rows if not row["equal"]]


def revised_pairs(revisions: Sequence[Row]) -> list[Row]:
    """Returns pairs of each prompt's last revision and its answer, of which the revision is called
    the better one; without those that are equal or empty."""
    last = max(row["round"] for row in revisions)
    answers = {row["id"]: row for row in revisions if row["round"] == 0}
    pairs = [
        _row({**row["columns"], "id": row["id"], "text": row["prompt"]}, row["response"],
             answers[row["id"]]["response"])
        for row in revisions
        if row["round"] == last
    ]  # fmt: skip
    return [row for row in pairs if not row["equal"]]


def _row(row: PromptRow, first: str, second: str) -> Row:
    equal = first.strip() == second.strip() or not first.strip() or not second.strip()
    return {**row, "prompt": row["text"], "first": first, "second": second, "equal": equal}
