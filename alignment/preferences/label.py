"""AI labels: which answer a judge calls the better one, asked in both orders."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...model.text.prompts import require_tokenizer
from ...model.transformer import HookedTransformer
from ..constitution import Comparison, Constitution
from ..draws import digest_of, draw_seed
from ..row_file import Row, RowFile
from .judges import FORMS, Choice, Judge, ModelJudge, Question, share_of_a
from .pairs import AnswerPair, Pairs, read_pairs
from .summary import LabelSummary, summarise

CHUNK = 16
"""Pairs that are labelled between two writes."""

LEAST_MASS = 0.01
"""A judge that gives less than this to A and B together, over all pairs, answers something else."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Labels:
    """Soft labels of pairs.

    Attributes:
        rows: A row a pair: id, principle, p_a (the probability that the first answer is better,
            averaged over orders), order_bias, mass, and the digests of constitution and run.
        summary: Accuracy, calibration and biases of all of them.
        form: The form that the judge was asked in; empty where it has none.
    """

    rows: list[Row]
    summary: LabelSummary
    form: str

    @property
    def p_a(self) -> list[float]:
        """The probability of each pair's first answer."""
        return [row["p_a"] for row in self.rows]

    @property
    def order_bias(self) -> float:
        """The mean probability that (A) gets beyond a half, whichever answer it is."""
        return self.summary.order_bias

    @property
    def mass(self) -> float:
        """The mean probability of "A" and "B" together."""
        return self.summary.mass


def label(
    model: HookedTransformer,
    constitution: Constitution,
    pairs: Pairs,
    *,
    seed: int,
    output: str | Path | None = None,
    form: str | None = None,
    development: Pairs | None = None,
    reasoning: bool = False,
    judge: Judge | None = None,
    ungated: bool = False,
    progress: Progress | None = None,
) -> Labels:
    """Labels pairs of answers by a constitution.

    Each pair draws one instruction, keyed by seed and id. The judge is asked twice, with each
    answer as (A) once; the label is the mean. With reasoning it is kept within 0.4 and 0.6
    (Bai et al. 2022, section 4.1).

    Args:
        constitution: Needs comparisons.
        output: A JSONL file of the rows, which a run that was killed goes on with.
        form: "chat" or "plain". None takes the one that is more accurate on `development`, or
            "plain" where there is none.
        development: Pairs whose truth is known, none of which is among `pairs`.
        reasoning: Lets the model write down what it thinks before it chooses.
        judge: Chooses in the model's place.
        ungated: Written into every row: no gate was passed, or asked.

    Raises:
        ValueError: pairs with equal answers or with special tokens, a pair in both sets, a judge
            that answers neither A nor B, a constitution without comparisons, a file of another
            run.
    """
    tokenizer = require_tokenizer(model.tokenizer)
    if not constitution.comparisons:
        raise ValueError("constitution: has no comparisons, which a label draws from")
    constitution.require_plain(tokenizer)
    read = read_pairs(pairs, tokenizer)
    if judge is None:
        judge = ModelJudge(model, form or "plain", reasoning)
        if form is None and development is not None:
            tried = read_pairs(development, tokenizer)
            if shared := sorted({pair.id for pair in read} & {pair.id for pair in tried}):
                raise ValueError(f"development: pair {shared[0]!r} is among the pairs to label")
            judge = choose_form(judge, constitution, tried, seed=seed)
    file = None
    if output is not None:
        run = _digest(judge, constitution, read, seed)
        file = RowFile(output, run, ungated=ungated)
    found = _labelled(judge, constitution, read, seed, reasoning, file, progress)
    summary = summarise(found, read)
    if not summary.mass >= LEAST_MASS:
        raise ValueError(
            f"judge: gives A and B {summary.mass:.2g} of its probability, so it answers something "
            "else; ask in another form, or another model"
        )
    return Labels(found, summary, getattr(judge, "form", ""))


def choose_form(
    judge: ModelJudge, constitution: Constitution, development: Sequence[AnswerPair], *, seed: int
) -> ModelJudge:
    """Returns the judge in the form that is right more often on pairs whose truth is known, of
    equals the first of `FORMS`. Raises ValueError where no truth is known."""
    if not any(pair.truth is not None for pair in development):
        raise ValueError("development: no pair has a truth, so no form can be chosen")
    chat = require_tokenizer(judge.model.tokenizer).chat_template is not None
    tried = {}
    for form in FORMS if chat else ("plain",):
        rows = _labelled(judge.with_form(form), constitution, development, seed, judge.reasoning)
        tried[form] = summarise(rows, development).accuracy or 0.0
    return judge.with_form(max(tried, key=lambda form: tried[form]))


def _labelled(
    judge: Judge,
    constitution: Constitution,
    pairs: Sequence[AnswerPair],
    seed: int,
    clamp: bool,
    file: RowFile | None = None,
    progress: Progress | None = None,
) -> list[Row]:
    rows: list[Row] = [] if file is None else list(file.rows)
    for first in range(len(rows), len(pairs), CHUNK):
        chunk = pairs[first : first + CHUNK]
        drawn = [drawn_comparison(constitution, pair, seed) for pair in chunk]
        asked = [
            Question(pair, instruction, swapped, draw_seed(seed, pair.id, swapped, "reasoning"))
            for pair, instruction in zip(chunk, drawn, strict=True)
            for swapped in (False, True)
        ]
        choices = judge.choices(asked)
        made = [
            label_row(pair, instruction, choices[2 * i], choices[2 * i + 1], clamp=clamp)
            | {"constitution": constitution.digest}
            for i, (pair, instruction) in enumerate(zip(chunk, drawn, strict=True))
        ]
        rows += made if file is None else file.append(made)
        if progress is not None:
            progress(len(rows), len(pairs))
    return rows


def _digest(
    judge: Judge, constitution: Constitution, pairs: Sequence[AnswerPair], seed: int
) -> str:
    return digest_of(
        {
            "kind": "labels",
            "judge": judge.identity,
            "constitution": constitution.digest,
            "seed": seed,
            "pairs": [[p.id, p.prompt, p.first, p.second, p.truth] for p in pairs],
        }
    )


def drawn_comparison(constitution: Constitution, pair: AnswerPair, seed: int) -> Comparison:
    """Returns the instruction that a pair draws."""
    instructions = constitution.comparisons
    return instructions[draw_seed(seed, pair.id, "comparison") % len(instructions)]


def label_row(
    pair: AnswerPair,
    instruction: Comparison,
    straight: Choice,
    swapped: Choice,
    *,
    clamp: bool = False,
) -> Row:
    """Returns the label of a pair, from the choices in both orders."""
    one, other = share_of_a(straight), 1.0 - share_of_a(swapped)
    p_a = (one + other) / 2
    masses = [math.exp(a) + math.exp(b) for a, b in (straight, swapped)]
    return {
        "id": pair.id,
        "principle": instruction.name,
        "p_a": min(0.6, max(0.4, p_a)) if clamp else p_a,
        "p_straight": one,
        "p_swapped": other,
        "order_bias": (one - other) / 2,
        "mass": sum(masses) / 2,
        "truth": pair.truth,
        "cluster": pair.cluster,
    }
