"""The model's loss when rows are replaced: by reconstructions, by 0, by their mean.

Shapes: B sequences, P positions, N rows, d width, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ...model.hooks.registry import HookFunction, HookPoint
from ...model.transformer import HookedTransformer
from ..activations.read import outliers
from ..activations.sequences import Batch
from ..dictionaries import Dictionary
from .evaluated_text import padded_batches
from .reconstruct import hooks_of, reconstruct
from .survey import Count
from .token_losses import divergences, next_token_losses

_LOGITS = 1 << 26
_POSITIONS = 2048


@dataclass(frozen=True)
class Behaviour:
    """Means over every next token; `kl` over every position.

    Attributes:
        plain: Loss of the model as it is.
        spliced: With reconstructions, except at outliers.
        spliced_all: With reconstructions at outliers, too.
        zero: With 0, except at outliers.
        mean: With the mean row, except at outliers.
        kl: KL(plain || spliced).
    """

    plain: float
    spliced: float
    spliced_all: float
    zero: float
    mean: float
    kl: float


def behaviour(
    model: HookedTransformer,
    dictionary: Dictionary,
    sequences: list[list[int]],
    limits: dict[str, float],
    mean_d: torch.Tensor,
    count: Count,
) -> Behaviour:
    """Runs the model five times on each batch.

    Memory: the logits of two runs, 256 MiB each where one sequence has no more of them.
    """
    target = dictionary.cfg.hook_name_out
    found: dict[str, list[float]] = {}
    n_positions = min(_POSITIONS, max(1, _LOGITS // model.config.d_vocab))
    done = 0
    for batch in padded_batches(sequences, n_positions):
        plain, rows = _plain(model, batch, hooks_of(dictionary))
        kept = ~outliers(rows, limits)
        x_hat = torch.cat([part.x_hat for part in reconstruct(dictionary, rows, kept)])
        everywhere = torch.ones_like(kept)
        _extend(found, "plain", next_token_losses(plain, batch))
        runs = {
            "spliced": (x_hat, kept),
            "spliced_all": (x_hat, everywhere),
            "zero": (torch.zeros_like(x_hat), kept),
            "mean": (mean_d.float().expand_as(x_hat), kept),
        }
        for name, (values, where) in runs.items():
            logits = _replaced(model, batch, target, values, where)
            _extend(found, name, next_token_losses(logits, batch))
            if name == "spliced":
                _extend(found, "kl", divergences(plain, logits, batch))
            del logits
        count(done := done + batch.n_tokens)
    return Behaviour(**{name: math.fsum(x) / len(x) for name, x in found.items()})


def replacing(values_Nd: torch.Tensor, where_N: torch.Tensor, batch: Batch) -> HookFunction:
    """Returns a hook that writes rows over a batch's real tokens, where the mask is true."""
    at_BP = batch.mask.clone()
    at_BP[batch.mask] = where_N

    def fn(tensor: torch.Tensor, *, hook: HookPoint) -> torch.Tensor:
        rows = values_Nd[where_N].to(tensor.device, tensor.dtype)
        tensor[at_BP.to(tensor.device)] = rows.view(len(rows), *tensor.shape[2:])
        return tensor

    return fn


def _plain(
    model: HookedTransformer, batch: Batch, names: list[str]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The logits as they are, and the rows [N, d] of the hooks."""
    with torch.no_grad():
        logits, cache = model.run_with_cache(
            batch.tokens, names, attention_mask=batch.mask.to(torch.int64)
        )
    return logits, {name: cache[name][batch.mask].flatten(1) for name in names}


def _replaced(
    model: HookedTransformer,
    batch: Batch,
    name: str,
    values: torch.Tensor,
    where: torch.Tensor,
) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model.run_with_hooks(
            batch.tokens,
            [(name, replacing(values, where, batch))],
            attention_mask=batch.mask.to(torch.int64),
        )
    return logits


def _extend(found: dict[str, list[float]], name: str, values: list[float]) -> None:
    found.setdefault(name, []).extend(values)
