"""The compiled sampler on a model's own logits, with the flag on and off.

Tensor names: B prompts, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ....model.interop.jax_arrays import as_tensor, same_rows
from ....model.interop.jax_operations import as_it_is, require_jax
from ....model.interop.jax_roundings import addresses_of, compiled, observed, rounding_at
from ....model.transformer import HookedTransformer
from ..experiment import DRAWS, gumbel
from ..naive_sampler import Candidates
from .sampler import as_candidates, candidates_program

BATCH = 16
CONSUMED = "mass"
"""The address whose bits decide which tokens are left."""


@dataclass(frozen=True)
class SamplerFindings:
    """The effect of a flag on the sampler.

    Attributes:
        flag: "strict" or "excess".
        prompts: How many, a whole number of batches.
        values, other_values: Probabilities, and those of other bits than one by one.
        best_lost: Prompts whose best token was no candidate.
        other_candidates: Prompts whose candidates are not those of the program one by one.
        tokens_changed: Sampled tokens, of prompts times `DRAWS`, other than one by one.
        restored: By address, the share of prompts with other masses that are as one by one once
            this rounding alone is put back.
    """

    flag: str
    prompts: int
    values: int
    other_values: int
    best_lost: int
    other_candidates: int
    tokens_changed: int
    restored: dict[str, float]


def judge_samplers(
    model: HookedTransformer, prompts: Sequence[str], progress: Callable[[str, int, int], None]
) -> tuple[SamplerFindings, ...]:
    """Runs the program on the next token's logits of whole batches of prompts, one by one and
    compiled under both flags. Raises ValueError for fewer than a batch, RuntimeError without JAX.
    """
    jnp = require_jax().numpy
    whole = len(prompts) // BATCH * BATCH
    if not whole:
        raise ValueError(f"{len(prompts)} prompts: expected at least {BATCH}")
    batches = [
        jnp.asarray(model.forward_last(list(prompts[start : start + BATCH])).float().numpy())
        for start in range(0, whole, BATCH)
    ]
    with require_jax().disable_jit():
        alone = [observed(candidates_program)(batch, as_it_is) for batch in batches]
    found = []
    for i, (flag, excess) in enumerate((("strict", False), ("excess", True))):
        found.append(_judged(flag, excess, batches, alone))
        progress("compiled samplers", i + 1, 2)
    return tuple(found)


def _judged(flag: str, excess: bool, batches: list[Any], alone: list[Any]) -> SamplerFindings:
    run = compiled(observed(candidates_program), batches[0], excess=excess, at=as_it_is)
    counts = torch.zeros(4, dtype=torch.int64)
    moved = []
    for i, (batch, (expected, stated)) in enumerate(zip(batches, alone, strict=True)):
        result, values = run(batch)
        a, b = as_tensor(values["probabilities"]), as_tensor(stated["probabilities"])
        wrong = ~(a.view(torch.int16) == b.view(torch.int16))
        best_B = as_tensor(batch).argmax(1)
        there, here = as_candidates(expected), as_candidates(result)
        counts += torch.tensor(
            [
                int(wrong.sum()),
                int((~here.holds(best_B)).sum()),
                int((~_same_candidates(here, there)).sum()),
                _changed(here, there, batch.shape, i * BATCH),
            ]
        )
        moved.append(~same_rows(as_tensor(values[CONSUMED]), as_tensor(stated[CONSUMED])))
    values_in_all = sum(batch.size for batch in batches)
    other, lost, candidates, tokens = counts.tolist()
    return SamplerFindings(
        flag,
        len(batches) * BATCH,
        values_in_all,
        other,
        lost,
        candidates,
        tokens,
        _restored(excess, batches, alone, moved),
    )


def _restored(
    excess: bool, batches: list[Any], alone: list[Any], moved: list[torch.Tensor]
) -> dict[str, float]:
    n = sum(int(each.sum()) for each in moved)
    if not n:
        return {}
    shares = {}
    for address in addresses_of(candidates_program, batches[0]):
        at = rounding_at([address])
        run = compiled(observed(candidates_program), batches[0], excess=excess, at=at)
        back = 0
        for batch, (_, stated), was in zip(batches, alone, moved, strict=True):
            _, values = run(batch)
            same = same_rows(as_tensor(values[CONSUMED]), as_tensor(stated[CONSUMED]))
            back += int((same & was).sum())
        shares[address] = back / n
    return shares


def _same_candidates(a: Candidates, b: Candidates) -> torch.Tensor:
    kept = a.logits.isfinite() | b.logits.isfinite()
    return ((a.ids == b.ids) & (a.logits == b.logits) | ~kept).all(1)


def _changed(a: Candidates, b: Candidates, shape: tuple[int, ...], first: int) -> int:
    size = torch.Size(shape)
    return sum(
        int((a.draw(noise) != b.draw(noise)).sum())
        for noise in (gumbel(size, first, draw) for draw in range(DRAWS))
    )
