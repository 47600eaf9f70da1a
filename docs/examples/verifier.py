"""Best of 8 by a learned verifier: a probe that reads whether an answer to a sum is right.

It is fitted on samples of some sums and judged on others. A verifier that draws lots gives the mean
of one sample; the answer key gives pass@8, which is no method. Needs `bitlens[probes]`.

    python docs/examples/verifier.py
"""

from __future__ import annotations

import random

import bitlens
import torch
from bitlens.interp.probes import LogisticProbe
from bitlens.model.thinking import (
    Problem,
    ThinkingLayout,
    Thought,
    measure,
    read_number,
    sums,
    think,
)
from bitlens.model.transformer import HookedTransformer

HOOK = "blocks.20.hook_resid_post"
N = 8
ASKED = {"n": N, "max_new_tokens": 8, "temperature": 1.0, "read": read_number}
LAYOUT = ThinkingLayout(start="The answer", end=" is", wait=" is")
"""No thinking: what stands between is empty."""


def last_row(model: HookedTransformer, thought: Thought) -> torch.Tensor:
    """Returns the residual stream at the answer's last token, [1, d]."""
    ids = thought.prompt_ids + thought.thinking_ids + thought.answer_ids
    stop = int(HOOK.split(".")[1]) + 1
    tokens = torch.tensor([ids])
    _, cache = model.run_with_cache(tokens, HOOK, return_type=None, stop_at_layer=stop)
    row: torch.Tensor = cache[HOOK][0, -1:]
    return row


def fit(model: HookedTransformer, problems: list[Problem]) -> LogisticProbe:
    """Fits a probe of right answers on samples of these problems."""
    rows, right = [], []
    for i, problem in enumerate(problems):
        thoughts = think(
            model, problem.prompt, max_thinking=0, seed=1000 + i, layout=LAYOUT, **ASKED
        )
        for thought in thoughts.samples:
            rows.append(last_row(model, thought))
            right.append(thought.answer == problem.truth)
    return LogisticProbe(HOOK, C=1e-3).fit(torch.cat(rows)[:, None], torch.tensor(right).long())


def main() -> None:
    model = bitlens.load("smollm2-135m-instruct")
    problems = sums(100)
    # 3 + 4 and 4 + 3 are on one side.
    clusters = sorted({problem.cluster for problem in problems}, key=str)
    random.Random(0).shuffle(clusters)
    held_out = set(clusters[: len(clusters) // 2])
    probe = fit(model, [problem for problem in problems if problem.cluster not in held_out])
    lots = random.Random(0)
    scorers = {
        "the probe": lambda t: float(probe.decision_function(last_row(model, t)[:, None])),
        "lots": lambda t: lots.random(),
    }
    judged = [problem for problem in problems if problem.cluster in held_out]
    print(f"{len(judged)} sums, {N} samples each, mean and 95% interval")
    for name, scorer in scorers.items():
        curve = measure(model, judged, [(0, 0)], scorer=scorer, layout=LAYOUT, **ASKED)
        (point,) = curve.points
        if name == "the probe":
            for label, found in (
                ("one sample", point.single),
                ("majority of 8", point.majority),
                ("any of 8 (oracle)", point.passed),
            ):
                print(f"{label}: {found.mean:.3f} {found.interval}")
        print(f"best of 8 by {name}: {point.chosen.mean:.3f} {point.chosen.interval}")


if __name__ == "__main__":
    main()
