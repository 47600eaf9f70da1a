"""Over-optimisation before anything is optimised: the best of n answers by the reward, judged by
the stand-in's rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ...model.transformer import HookedTransformer
from ..draws import digest_of, draw_seed
from ..prompt_rows import PromptRow
from ..revision.targets import as_prompt
from ..rewards import OverOptimisation, best_of_n, over_optimisation
from ..row_file import Row, RowFile
from ..sampled_texts import sampled_texts
from ..standin import verdict
from ..standin.planted import standin_of, wanted

COUNTS = (1, 2, 4, 8)
CHUNK = 8

Rewards = Callable[[Sequence[str], Sequence[str]], list[float]]
"""Returns the reward of each answer to its prompt."""


def best_of(
    model: HookedTransformer,
    prompts: Sequence[PromptRow],
    rewards: Rewards,
    output: Path,
    *,
    seed: int,
    max_new_tokens: int,
    temperature: float,
    chat: bool,
    ungated: bool,
) -> OverOptimisation:
    """Returns the path from one answer to the best of eight, to stand-in prompts.

    Answers are written to `output`, and are not sampled again.
    """
    most = max(COUNTS)
    identity = [model.fingerprint(), model.ops.policy.name, seed, max_new_tokens, temperature]
    run = digest_of(["best of", *identity, list(prompts)])
    file = RowFile(output, run, ungated=ungated)

    def answered(part: Sequence[PromptRow]) -> Iterator[Row]:
        asked = [(row, i) for row in part for i in range(most)]
        texts = sampled_texts(
            model,
            [as_prompt(row["text"], chat) for row, _ in asked],
            [draw_seed(seed, row["id"], "best of", i) for row, i in asked],
            max_new_tokens=max_new_tokens,
            temperature=temperature,
        )
        for i, row in enumerate(part):
            yield {"id": row["id"], "responses": texts[most * i : most * (i + 1)]}

    answers = [row["responses"] for row in file.fill(prompts, CHUNK, answered)]
    of_reward = [rewards([p["text"]] * most, own) for p, own in zip(prompts, answers, strict=True)]
    of_gold = [
        [float(verdict(text) == wanted(standin_of(row))) for text in own]
        for row, own in zip(prompts, answers, strict=True)
    ]
    return over_optimisation(*best_of_n(of_reward, of_gold, COUNTS))
