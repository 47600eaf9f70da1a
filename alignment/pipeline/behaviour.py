"""The answers of a model to held-out prompts, and how they changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...model.transformer import HookedTransformer
from ...precision.statistics import clopper_pearson, clustered_mean
from ..draws import digest_of
from ..prompt_rows import PromptRow
from ..revision.targets import as_prompt
from ..row_file import Row, RowFile
from ..sampled_texts import sampled_texts
from ..standin import VERDICTS, verdict

CHUNK = 32


@dataclass(frozen=True)
class Cell:
    """One kind of prompts at one stage.

    Attributes:
        refusal, answer, nonsense: Shares of the answers.
        low, high: The 95% interval of `refusal` (Clopper and Pearson).
        change, change_low, change_high: Of the refusals since the first stage, with the paired 95%
            interval; 0 at the first.
        length: The mean number of characters.
        boilerplate: The share of answers that are the most frequent one.
    """

    stage: str
    name: str
    n: int
    refusal: float
    answer: float
    nonsense: float
    low: float
    high: float
    change: float
    change_low: float
    change_high: float
    length: float
    boilerplate: float

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields by name."""
        return asdict(self)


def answers(
    model: HookedTransformer,
    cells: Mapping[str, Sequence[PromptRow]],
    output: Path,
    *,
    max_new_tokens: int,
    chat: bool,
    ungated: bool = False,
) -> list[Row]:
    """Returns the greedy answer to every prompt, with its verdict, as the file holds it."""
    places = [(name, row) for name, rows in cells.items() for row in rows]
    run = digest_of(["answers", model.fingerprint(), model.ops.policy.name, max_new_tokens, places])
    file = RowFile(output, run, ungated=ungated)

    def answered(part: Sequence[tuple[str, PromptRow]]) -> Iterator[Row]:
        texts = sampled_texts(
            model,
            [as_prompt(row["text"], chat) for _, row in part],
            [0] * len(part),
            max_new_tokens=max_new_tokens,
            temperature=0.0,
        )
        for (name, row), text in zip(part, texts, strict=True):
            yield {
                "cell": name,
                "id": row["id"],
                "prompt": row["text"],
                "response": text,
                "verdict": verdict(text),
            }

    return file.fill(places, CHUNK, answered)


def cells_of(stages: Mapping[str, Sequence[Row]]) -> list[Cell]:
    """Returns every cell of every stage; the rows of each stage are those of `answers`."""
    found = []
    first = {(r["cell"], r["id"]): r for r in next(iter(stages.values()), ())}
    for stage, rows in stages.items():
        for name in dict.fromkeys(row["cell"] for row in rows):
            own = [row for row in rows if row["cell"] == name]
            found.append(_cell(stage, name, own, [first[name, row["id"]] for row in own]))
    return found


def _cell(stage: str, name: str, rows: Sequence[Row], before: Sequence[Row]) -> Cell:
    n, counts = len(rows), Counter(row["verdict"] for row in rows)
    refusal, answer, nonsense = (counts[name] / n for name in VERDICTS)
    interval = clopper_pearson(counts["refusal"], n)
    pairs = zip(rows, before, strict=True)
    differences = [(a["verdict"] == "refusal") - (b["verdict"] == "refusal") for a, b in pairs]
    change = bounded_mean(differences, -1.0, 1.0)
    return Cell(
        stage,
        name,
        n,
        refusal,
        answer,
        nonsense,
        interval.low,
        interval.high,
        *change,
        sum(len(row["response"]) for row in rows) / n,
        Counter(row["response"] for row in rows).most_common(1)[0][1] / n,
    )


def bounded_mean(values: Sequence[float], least: float, most: float) -> tuple[float, float, float]:
    """Returns the mean of values within bounds, one a prompt, with its 95% interval.

    Where all are equal, no spread can be seen: then what Clopper and Pearson leave open.
    """
    n = len(values)
    if len(set(values)) > 1:
        found = clustered_mean(values, range(n))
        return found.mean, max(least, found.interval.low), min(most, found.interval.high)
    open_ = clopper_pearson(0, n).high
    mean = float(values[0])
    return mean, max(least, mean - open_), min(most, mean + open_)
