"""Accuracy over tokens spent, so that methods compare at equal cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ...precision.statistics import Estimate, clustered_mean
from ..serving import Engine
from ..serving.intake import ServedModel
from ..text.prompts import Prompt
from .estimators import best_of_n, maj_at_k, pass_at_k
from .layout import ThinkingLayout
from .scorers import Scorer
from .selection import weighted_vote
from .think import Reader, Thoughts, think, whole_text


@dataclass(frozen=True)
class Problem:
    """A problem with its answer.

    Attributes:
        truth: The answer, as the reader gives it; may be empty beside a verifier.
        cluster: Problems with equal clusters may resemble each other; None for one of its own.
        task: What `bitlens compare` calls the kind of problem.
        verify: Says whether an answer is right, where equality with the truth does not.
    """

    prompt: Prompt
    truth: str
    cluster: str | None = None
    task: str | None = None
    verify: Callable[[str], bool] | None = None

    def is_right(self, answer: str | None) -> bool:
        """Whether an answer is right; none never is."""
        if answer is None:
            return False
        return answer == self.truth if self.verify is None else self.verify(answer)


@dataclass(frozen=True)
class Point:
    """Accuracies at one budget; intervals are clustered by problem.

    Attributes:
        min_thinking, max_thinking: The budget.
        thinking, tokens: Mean tokens of thinking, and of thinking and text, a sample.
        single: mean@1.
        passed: pass@n, which an oracle that knows the answer would reach: no method.
        majority: maj@n.
        chosen: Best of n by the scorer, and `weighted` the vote weighted by its exponential; None
            without a scorer.
        forced: The share of samples whose thinking was cut.
    """

    min_thinking: int
    max_thinking: int
    n: int
    thinking: float
    tokens: float
    single: Estimate
    passed: Estimate
    majority: Estimate
    chosen: Estimate | None
    weighted: Estimate | None
    forced: float

    def as_dict(self) -> dict[str, Any]:
        """Returns the same as JSON-ready data."""
        return asdict(self)


@dataclass(frozen=True)
class Curve:
    """Points by budget, and what every sample said."""

    points: tuple[Point, ...]
    rows: tuple[dict[str, Any], ...]


def measure(
    model: ServedModel,
    problems: Sequence[Problem],
    budgets: Iterable[tuple[int, int]],
    *,
    n: int = 8,
    scorer: Scorer | None = None,
    max_new_tokens: int = 16,
    temperature: float = 1.0,
    seed: int = 0,
    layout: ThinkingLayout | None = None,
    read: Reader = whole_text,
    progress: Callable[[int, int], object] | None = None,
) -> Curve:
    """Answers every problem n times at every budget of (min_thinking, max_thinking).

    Args:
        progress: Called with the number of problems done and in all.

    Raises:
        ValueError: for fewer than two problems (an interval needs two), one without a truth, no
            budget, and as `think`.
    """
    budgets = list(budgets)
    if len(problems) < 2 or not budgets:
        raise ValueError(f"{len(problems)} problems, {len(budgets)} budgets: expected 2 and 1")
    for i, problem in enumerate(problems):
        if not problem.truth and problem.verify is None:
            raise ValueError(f"problem {i} has no truth and no verifier: nothing can be judged")
    points, rows, done = [], [], 0
    with Engine(model) as engine:
        for least, most in budgets:
            found: list[Thoughts] = []
            for i, problem in enumerate(problems):
                thoughts = think(
                    model, problem.prompt, min_thinking=least, max_thinking=most, n=n,
                    scorer=scorer, max_new_tokens=max_new_tokens, temperature=temperature,
                    seed=seed + i, layout=layout, read=read, engine=engine,
                )  # fmt: skip
                found.append(thoughts)
                rows += _rows(i, problem, least, most, thoughts)
                done += 1
                if progress is not None:
                    progress(done, len(problems) * len(budgets))
            points.append(_point(least, most, n, problems, found))
    return Curve(tuple(points), tuple(rows))


def _rows(
    i: int, problem: Problem, least: int, most: int, thoughts: Thoughts
) -> list[dict[str, Any]]:
    """Returns a row a sample, as `bitlens compare` reads them."""
    kind = "" if problem.task is None else f"{problem.task}, "
    return [
        {
            "task": f"{kind}thinking {least} to {most}",
            "id": f"{i}.{sample}",
            "cluster": i if problem.cluster is None else problem.cluster,
            "prompt": str(problem.prompt),
            "score": problem.is_right(answer),
            "answer": answer,
            "text": thoughts.text[sample],
            "thinking": thoughts.thinking[sample],
            "n_thinking": thoughts.n_thinking[sample],
            "n_answer": thoughts.n_answer[sample],
        }
        for sample, answer in enumerate(thoughts.answer)
    ]


def _point(
    least: int, most: int, n: int, problems: Sequence[Problem], found: Sequence[Thoughts]
) -> Point:
    clusters = [i if p.cluster is None else p.cluster for i, p in enumerate(problems)]
    right = [
        [problem.is_right(answer) for answer in thoughts.answer]
        for problem, thoughts in zip(problems, found, strict=True)
    ]

    def over_problems(values: Iterable[float]) -> Estimate:
        return clustered_mean(list(values), clusters)

    chosen = weighted = None
    if all(thoughts.scores is not None for thoughts in found):
        scores = [thoughts.scores or [] for thoughts in found]
        chosen = over_problems(best_of_n(s, r, n) for s, r in zip(scores, right, strict=True))
        weighted = over_problems(
            p.is_right(weighted_vote(t.answer, [math.exp(min(s, 700.0)) for s in own]))
            for t, own, p in zip(found, scores, problems, strict=True)
        )
    spent = [t for thoughts in found for t in thoughts.n_thinking]
    texts = [t for thoughts in found for t in thoughts.n_answer]
    forced = [f for thoughts in found for f in thoughts.forced]
    return Point(
        least,
        most,
        n,
        sum(spent) / len(spent),
        (sum(spent) + sum(texts)) / len(spent),
        single=over_problems(sum(own) / n for own in right),
        passed=over_problems(pass_at_k(n, sum(own), n) for own in right),
        majority=over_problems(
            _majority(problem, thoughts.answer, n)
            for problem, thoughts in zip(problems, found, strict=True)
        ),
        chosen=chosen,
        weighted=weighted,
        forced=sum(forced) / len(forced),
    )


def _majority(problem: Problem, answers: Sequence[str | None], n: int) -> float:
    """Returns the chance that a vote of n is right."""
    shares = maj_at_k(answers, n)
    return math.fsum(
        shares[a] for a in dict.fromkeys(answers) if a is not None and problem.is_right(a)
    )
