"""The way of a policy through RL: its reward, a judge that is not optimised, and its distance."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...model.weights.atomic import write_atomically
from ..standin import verdict
from ..standin.planted import standin_of, wanted

Reward = Callable[..., Sequence[float]]
"""Called as training calls it."""


@dataclass(frozen=True)
class Batch:
    """The answers of the policy of one step.

    Attributes:
        kl: Its distance from the first policy in nats a token; None for a method that looks at
            none.
        reward: The mean reward.
        gold: The share of answers that are what the stand-in's rules want; None for prompts of
            one's own.
        length: The mean number of characters.
        boilerplate: The share of answers that are the most frequent one.
    """

    step: int
    kl: float | None
    reward: float
    gold: float | None
    length: float
    boilerplate: float


class WatchedReward:
    """A reward, with a row for each batch of answers that it has seen.

    A row is written before the step's checkpoint is; rows of steps that are run again after a kill
    are replaced, by the same ones.
    """

    def __init__(self, reward: Reward, folder: Path, *, has_gold: bool, has_kl: bool) -> None:
        self._reward, self._path = reward, folder / "path.jsonl"
        self._has_gold, self._has_kl = has_gold, has_kl
        self._seen: dict[str, Any] | None = None

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[str], **columns: Any
    ) -> list[float]:
        """Returns the reward of each completion."""
        rewards = [float(r) for r in self._reward(prompts, completions, **columns)]
        n = len(completions)
        hits = 0.0
        for i, text in enumerate(completions) if self._has_gold else ():
            hits += gold({name: values[i] for name, values in columns.items()}, text)
        self._seen = {
            "reward": sum(rewards) / n,
            "gold": hits / n if self._has_gold else None,
            "length": sum(map(len, completions)) / n,
            "boilerplate": Counter(completions).most_common(1)[0][1] / n,
        }
        return rewards

    def step(self, number: int, _: int, line: Mapping[str, Any]) -> None:
        """Writes the row of a step, as training's `progress`; none where no answers were asked."""
        if self._seen is None:
            return
        kl = line["kl"] if self._has_kl else None
        rows = [row for row in self._rows() if row["step"] < number]
        rows.append({"step": number, "kl": kl, **self._seen})
        with write_atomically(self._path) as scratch:
            scratch.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
        self._seen = None

    def batches(self) -> list[Batch]:
        """Returns the rows that were written."""
        return [Batch(**row) for row in self._rows()]

    def _rows(self) -> list[dict[str, Any]]:
        text = self._path.read_text(encoding="utf-8") if self._path.exists() else ""
        rows: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]
        return rows


def gold(row: Mapping[str, Any], text: str) -> float:
    """Returns 1 for an answer whose verdict is what the stand-in's rules want, 0 for any other."""
    return float(verdict(text) == wanted(standin_of(row)))
