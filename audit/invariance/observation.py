"""Observations of a run, row by row, and their comparison with another run's, by their bits.

Shapes: B batch, P padded positions, p a row's own positions, K key positions, H heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ...model.hooks.registry import bits

if TYPE_CHECKING:
    from ...model.cache.kv_cache import KVCache
    from ...model.transformer import HookedTransformer

Observation = Mapping[str, torch.Tensor]
"""Everything seen of one row: "logits" [p, V] and, for each hook name, its values without padding.
Positions come first, but for scores and patterns [H, p, K]."""


@dataclass
class Tally:
    """Counts values compared, values that differ in their bits, and hooks that fired."""

    values: int = 0
    different: int = 0
    firings: int = 0

    def compare(self, found: Observation, expected: Observation) -> None:
        """Counts what was found, and how much of it has other bits than expected."""
        for name, x in found.items():
            self.values += x.numel()
            self.different += n_different(x, expected[name])


def n_different(x: torch.Tensor, y: torch.Tensor) -> int:
    """Returns the number of values with other bits; all of them if shape or dtype differ."""
    if x.shape != y.shape or x.dtype != y.dtype:
        return max(x.numel(), y.numel())
    return int(torch.count_nonzero(bits(x.contiguous()) != bits(y.contiguous())))


def observe(
    model: HookedTransformer,
    tokens_BP: torch.Tensor,
    names: Sequence[str],
    attention_mask_BP: torch.Tensor | None = None,
    kv_cache: KVCache | None = None,
    tally: Tally | None = None,
) -> list[dict[str, torch.Tensor]]:
    """Runs the model once, reading every hook in `names`; one Observation a row, on the CPU.

    With no names the model runs fused. Raises RuntimeError if a name did not fire exactly once: an
    unread hook must not look like an unchanged one.
    """
    seen: dict[str, torch.Tensor] = {}
    firings = 0

    def read(tensor: torch.Tensor, hook: Any) -> None:
        nonlocal firings
        firings += 1
        seen[hook.name] = tensor.detach().to("cpu", copy=True)

    with torch.no_grad(), model.hooks(fwd_hooks=[(name, read) for name in names]):
        logits = model(tokens_BP, attention_mask=attention_mask_BP, kv_cache=kv_cache)
    seen["logits"] = logits.cpu()
    if firings != len(names) or len(seen) != len(names) + 1:
        silent = sorted(set(names) - set(seen))
        raise RuntimeError(f"{firings} hook firings for {len(names)} names; silent: {silent[:5]}")
    if tally is not None:
        tally.firings += firings
    key_spans = [
        _real(attention_mask_BP, row, tokens_BP.shape[1])
        if kv_cache is None
        else (kv_cache.key_offsets[row], kv_cache.key_offsets[row] + kv_cache.lengths[row])
        for row in range(tokens_BP.shape[0])
    ]
    return [
        _own(seen, row, _real(attention_mask_BP, row, tokens_BP.shape[1]), keys)
        for row, keys in enumerate(key_spans)
    ]


def cut(observation: Observation, start: int, stop: int) -> dict[str, torch.Tensor]:
    """The part of an observation that belongs to positions start..stop-1."""
    return {
        name: x[:, start:stop, :stop] if _has_key_axis(name) else x[start:stop]
        for name, x in observation.items()
    }


def _real(attention_mask_BP: torch.Tensor | None, row: int, n_columns: int) -> tuple[int, int]:
    """The columns of a row's tokens: the first, and the one after the last."""
    if attention_mask_BP is None:
        return 0, n_columns
    real = attention_mask_BP[row].nonzero().flatten()
    return int(real[0]), int(real[-1]) + 1


def _own(
    seen: Observation, row: int, queries: tuple[int, int], keys: tuple[int, int]
) -> dict[str, torch.Tensor]:
    """Row `row` without its padding, on the query and on the key axis."""
    q, k = slice(*queries), slice(*keys)
    return {name: x[row, :, q, k] if _has_key_axis(name) else x[row, q] for name, x in seen.items()}


def _has_key_axis(name: str) -> bool:
    return name.endswith(("hook_attn_scores", "hook_pattern"))
