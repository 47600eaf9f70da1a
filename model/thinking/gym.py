"""Problems of reasoning-gym (Apache-2.0): more than a hundred generators, each with its verifier.

The extra `tasks`.
"""

from __future__ import annotations

from typing import Any

from ...names import did_you_mean
from .measure import Problem

INSTRUCTION = "Answer with the result alone."


def require_gym() -> Any:
    """Returns reasoning_gym. Raises RuntimeError naming the extra where it is not installed."""
    try:
        import reasoning_gym
    except ModuleNotFoundError as error:
        raise RuntimeError(
            "tasks gym:NAME need reasoning-gym: pip install 'bitlens[tasks]'"
        ) from error
    return reasoning_gym


def gym_problems(name: str, n: int, *, seed: int = 0, chat: bool = True) -> list[Problem]:
    """Returns n problems of one generator, judged by its verifier: right is its full score.

    Args:
        name: As reasoning-gym has it, such as "chain_sum".
        chat: As a conversation; otherwise as plain text, which the model continues.

    Raises ValueError for a name that is none, a generator that needs a configuration, and one
    without a verifier; RuntimeError without reasoning-gym.
    """
    gym = require_gym()
    known = sorted(gym.factory.DATASETS)
    if name not in known:
        near = (
            did_you_mean(name, known) or f"; there are {len(known)}, such as {', '.join(known[:5])}"
        )
        raise ValueError(f"gym:{name}: reasoning-gym has no such task{near}")
    try:
        entries = gym.create_dataset(name, size=n, seed=seed)
        drawn = [entries[i] for i in range(n)]
    except Exception as error:  # generators raise whatever their code meets
        raise ValueError(
            f"gym:{name}: gives no problems by itself: {type(error).__name__}: {error}"
        ) from error
    verify = getattr(entries, "score_answer", None)
    if not callable(verify):
        raise ValueError(f"gym:{name}: it has no verifier, so nothing can be judged")
    return [_problem(name, entry, verify, chat) for entry in drawn]


def _problem(name: str, entry: dict[str, Any], verify: Any, chat: bool) -> Problem:
    question = f"{entry['question']}\n{INSTRUCTION}"
    truth = entry.get("answer")
    return Problem(
        [{"role": "user", "content": question}] if chat else f"{question}\n",
        "" if truth is None else str(truth),
        task=f"gym:{name}",
        verify=lambda answer: float(verify(answer, entry)) >= 1,
    )
