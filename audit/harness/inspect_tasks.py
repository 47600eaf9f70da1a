"""Problems with verifiers as a task of Inspect: `inspect eval bitlens/problems -T tasks=formats`.

Registered where the provider is, so that Inspect imports it whatever it runs: bitlens itself is
imported when the task is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ChatMessageAssistant, ChatMessageSystem, ChatMessageUser
from inspect_ai.scorer import CORRECT, INCORRECT, Score, Scorer, Target, accuracy, scorer, stderr
from inspect_ai.solver import TaskState, generate

if TYPE_CHECKING:
    from ...model.thinking import Problem
    from ...model.thinking.think import Reader

TURNS = {"user": ChatMessageUser, "assistant": ChatMessageAssistant, "system": ChatMessageSystem}


@task(name="problems")  # type: ignore[untyped-decorator]
def problems(
    tasks: str = "sums", n: int = 24, seed: int = 0, tokenizer_of: str | None = None
) -> Task:
    """Returns n problems of a task, judged as `bitlens think` judges them.

    Args:
        tasks: As `bitlens think --tasks`.
        tokenizer_of: The model whose tokens measure needles' texts.
    """
    from ...model.sources.resolve import open_checkpoint
    from ...model.thinking import problems_named

    tokenizer = None if tokenizer_of is None else open_checkpoint(tokenizer_of).tokenizer
    asked, read = problems_named(tasks, n, seed=seed, tokenizer=tokenizer, chat=True)
    samples = [
        Sample(id=f"{tasks} {i}", input=_turns(each), target=each.truth, metadata={"problem": i})
        for i, each in enumerate(asked)
    ]
    return Task(MemoryDataset(samples, name=tasks), solver=generate(), scorer=verifier(asked, read))


def _turns(problem: Problem) -> Any:
    if isinstance(problem.prompt, str):
        return problem.prompt
    turns: Any = problem.prompt
    return [TURNS[turn["role"]](content=turn["content"]) for turn in turns]


@scorer(metrics=[accuracy(), stderr()])  # type: ignore[untyped-decorator]
def verifier(asked: list[Problem], read: Reader) -> Scorer:
    """Returns a scorer that asks each problem's own verifier."""

    async def score(state: TaskState, target: Target) -> Score:
        answer = read(state.output.completion)
        is_right = asked[state.metadata["problem"]].is_right(answer)
        return Score(value=CORRECT if is_right else INCORRECT, answer=answer)

    return score
