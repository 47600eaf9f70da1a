"""Critique and revision: rounds that each draw a principle and work on the last revision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...model.text.prompts import require_tokenizer
from ...model.transformer import HookedTransformer
from ..constitution import Constitution, Critique
from ..draws import digest_of, draw_seed
from ..prompt_rows import PromptRow, Prompts, read_prompts
from ..row_file import Row, RowFile
from .drafts import Draft, Reviser
from .model_reviser import ModelReviser

CHUNK = 32
"""Prompts that go through a round together; no bit depends on it."""

Progress = Callable[[int, int], None]


def revise(
    model: HookedTransformer,
    constitution: Constitution,
    prompts: Prompts,
    *,
    rounds: int = 4,
    seed: int,
    output: str | Path,
    critique: bool = True,
    reviser: Reviser | None = None,
    max_new_tokens: int = 96,
    temperature: float = 1.0,
    progress: Progress | None = None,
) -> list[Row]:
    """Returns the rows of an answer to each prompt and of its revisions, a row a round.

    Round 0 is the answer. Every later one draws a pair of requests, criticises the revision before
    it, and writes it again. What is drawn and sampled is keyed by seed, prompt and round, so a row
    can be made again alone (`replay`), and a run that was killed goes on with the same bits.

    Args:
        constitution: Needs critiques.
        prompts: A JSONL file or rows, with "text" or "prompt".
        output: The JSONL file: id, prompt, round, principle, critique, response, and the digests
            of constitution and run.
        critique: False revises without a critique, the ablation of the paper.
        reviser: Writes in the model's place, such as one that is planted.
        max_new_tokens, temperature: Of the model's answers, critiques and revisions.
        progress: Called with rows and how many there will be.

    Raises:
        ValueError: prompts or principles that could open a turn, a constitution without critiques,
            a file of another run.
    """
    rows = read_prompts(prompts, model.tokenizer)
    own = ModelReviser(model, constitution, max_new_tokens, temperature)
    run = Revision.of(model, constitution, reviser or own, rounds, seed, critique)
    file = RowFile(output, run.digest(rows))
    done = len(file.rows)
    total, place = len(rows) * (rounds + 1), 0
    for first in range(0, len(rows), CHUNK):
        chunk = rows[first : first + CHUNK]
        last: list[Row] = []
        for number in range(rounds + 1):
            known = file.rows[place : min(done, place + len(chunk))]
            left = chunk[len(known) :]
            made = run.round(left, number, [row["response"] for row in last[len(known) :]])
            last = [*known, *file.append(made)]
            place += len(chunk)
            if progress is not None:
                progress(place, total)
    return file.rows


def replay(
    model: HookedTransformer,
    constitution: Constitution,
    rows: Sequence[Row],
    row: Row,
    *,
    seed: int,
    reviser: Reviser | None = None,
    critique: bool = True,
    max_new_tokens: int = 96,
    temperature: float = 1.0,
) -> Row:
    """Makes one row of a run again, alone, from the row of the round before it.

    Settings as in `revise`; `rows` are the run's. Raises ValueError where the round before it is
    not among them.
    """
    number, key = row["round"], row["id"]
    own = ModelReviser(model, constitution, max_new_tokens, temperature)
    run = Revision.of(model, constitution, reviser or own, number, seed, critique)
    before = [r["response"] for r in rows if r["id"] == key and r["round"] == number - 1]
    if number and not before:
        raise ValueError(f"round {number} of {key}: round {number - 1} is not among the rows")
    (made,) = run.round([{**row["columns"], "id": key, "text": row["prompt"]}], number, before)
    return {**made, "run": row["run"]}


@dataclass(frozen=True)
class Revision:
    """One run of revisions: everything that decides its rows but the prompts."""

    reviser: Reviser
    constitution: Constitution
    rounds: int
    seed: int
    with_critique: bool

    @classmethod
    def of(
        cls,
        model: HookedTransformer,
        constitution: Constitution,
        reviser: Reviser,
        rounds: int,
        seed: int,
        with_critique: bool,
    ) -> Revision:
        """Checks the settings of `revise`; raises ValueError naming one."""
        if rounds < 0:
            raise ValueError(f"rounds = {rounds}: expected 0 or more")
        if rounds and not constitution.critiques:
            raise ValueError("constitution: has no critiques, which a revision draws from")
        constitution.require_plain(require_tokenizer(model.tokenizer))
        return cls(reviser, constitution, rounds, seed, with_critique)

    def digest(self, prompts: Sequence[PromptRow]) -> str:
        """Returns the digest of all that decides the rows."""
        return digest_of(
            {
                "kind": "revision",
                "reviser": self.reviser.identity,
                "constitution": self.constitution.digest,
                "rounds": self.rounds,
                "seed": self.seed,
                "critique": self.with_critique,
                "prompts": prompts,
            }
        )

    def round(
        self, prompts: Sequence[PromptRow], number: int, responses: Sequence[str]
    ) -> list[Row]:
        """Returns the rows of one round of some prompts, from the responses of the one before."""
        if not prompts:
            return []
        if number == 0:
            drafts = [Draft(row, self._seed(row, 0, "answer")) for row in prompts]
            return self._rows(drafts, 0, self.reviser.answers(drafts))
        drafts = [
            Draft(row, self._seed(row, number, "critique"), response, self._pair(row, number))
            for row, response in zip(prompts, responses, strict=True)
        ]
        if self.with_critique:
            found = self.reviser.critiques(drafts)
            drafts = [replace(d, critique=text) for d, text in zip(drafts, found, strict=True)]
        drafts = [replace(d, seed=self._seed(d.row, number, "revision")) for d in drafts]
        return self._rows(drafts, number, self.reviser.revisions(drafts))

    def _rows(self, drafts: Sequence[Draft], number: int, texts: Sequence[str]) -> list[Row]:
        return [
            {
                "id": draft.row["id"],
                "round": number,
                "prompt": draft.prompt,
                "principle": draft.pair.name if draft.pair else None,
                "critique": draft.critique,
                "response": text,
                "columns": {k: v for k, v in draft.row.items() if k not in ("id", "text")},
                "constitution": self.constitution.digest,
            }
            for draft, text in zip(drafts, texts, strict=True)
        ]

    def _pair(self, row: dict[str, Any], number: int) -> Critique:
        critiques = self.constitution.critiques
        return critiques[self._seed(row, number, "principle") % len(critiques)]

    def _seed(self, row: dict[str, Any], number: int, what: str) -> int:
        return draw_seed(self.seed, row["id"], number, what)
