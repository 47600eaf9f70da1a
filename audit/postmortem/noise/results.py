"""The answers of a deployment, item by item.

An item is a prompt without its last token, which is the answer that counts as right. Each is
answered by `DRAWS` seeds; draw i of an item has the same noise whatever the deployment.

Tensor names: N items, D draws, B items of a batch, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ....model.transformer import HookedTransformer
from ..experiment import DRAWS, gumbel
from ..naive_sampler import Candidates
from .deployments import Deployment

_BATCH = 16
LEAST_LOGPROB = -30.0
"""The log-probability of a token that cannot come, which has none."""


@dataclass(frozen=True)
class Results:
    """The answers of a deployment.

    Attributes:
        right: bool [N, D]: whether each draw is the right answer.
        logprob: fp64 [N]: of the right answer, as the model gives it, before any filter.
        canary: uint8 [N, bytes]: the bits of the first draw and of its log-probability.
    """

    right: npt.NDArray[np.bool_]
    logprob: npt.NDArray[np.float64]
    canary: npt.NDArray[np.uint8]


@torch.no_grad()
def answers(
    model: HookedTransformer,
    deployments: Sequence[Deployment],
    prompts: Sequence[str],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Results]:
    """Asks each deployment all prompts, in one pass of each model that serves some of them.

    Raises ValueError for a prompt of fewer than two tokens, or for none.
    """
    rows = [model.to_tokens(prompt)[0] for prompt in prompts]
    if not rows or min(map(len, rows)) < 2:
        raise ValueError("prompts: expected at least one, each of two tokens or more")
    parts: list[list[Results]] = [[] for _ in deployments]
    for start in range(0, len(rows), _BATCH):
        batch = rows[start : start + _BATCH]
        target_B = torch.stack([row[-1] for row in batch])
        shape = torch.Size((len(batch), model.config.d_vocab))
        noise = [gumbel(shape, start, draw) for draw in range(DRAWS)]
        for serve in dict.fromkeys(each.serve for each in deployments):
            with serve(model) as served:
                logits_BV = torch.cat([served.forward_last(row[None, :-1]) for row in batch])
            log_p_BV = torch.log_softmax(logits_BV.float(), dim=1)
            for part, each in zip(parts, deployments, strict=True):
                if each.serve is serve:
                    candidates = each.sampler([logits_BV.float()])
                    part.append(_judged(candidates, log_p_BV, target_B, noise))
        progress(start + len(batch), len(rows))
    return [_joined(part) for part in parts]


def _judged(
    candidates: Candidates,
    log_p_BV: torch.Tensor,
    target_B: torch.Tensor,
    noise: Sequence[torch.Tensor],
) -> Results:
    drawn_BD = torch.stack([candidates.draw(one_BV) for one_BV in noise], dim=1)
    right_BD = drawn_BD == target_B[:, None]
    logprob_B = log_p_BV.double().gather(1, target_B[:, None])[:, 0].clamp_min(LEAST_LOGPROB)
    first_B1 = drawn_BD[:, :1]
    said_B1 = log_p_BV.gather(1, first_B1.clamp_min(0))
    bits = [first_B1.numpy().view(np.uint8), said_B1.numpy().view(np.uint8)]
    return Results(right_BD.numpy(), logprob_B.numpy(), np.concatenate(bits, axis=1))


def _joined(parts: Sequence[Results]) -> Results:
    columns = ([getattr(part, name) for part in parts] for name in Results.__annotations__)
    return Results(*map(np.concatenate, columns))
