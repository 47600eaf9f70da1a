"""Rows of activations from one stopped pass, and which of them are outliers.

Shapes: B sequences, P positions, N real tokens, d width of a hook.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch

from ...model.hooks.registry import layer_of, select_names
from ...model.hooks.widths import hook_width
from ...model.transformer import HookedTransformer
from .sequences import Batch

OUTLIER_FACTOR = 3.0
"""A row is an outlier where its norm exceeds this many times the median norm of its hook."""

CALIBRATION_TOKENS = 8192
"""Tokens that the median is found on."""


def read_rows(
    model: HookedTransformer, batch: Batch, hook_names: Sequence[str]
) -> dict[str, torch.Tensor]:
    """Returns the rows [N, d] of each hook at the batch's real tokens, sequence after sequence.

    The pass stops behind the last block that any of the hooks needs. Heads are flattened.

    Raises KeyError for a name that is no hook, with near matches.
    """
    with torch.no_grad():
        _, cache = model.run_with_cache(
            batch.tokens,
            names_filter=list(hook_names),
            attention_mask=batch.mask.to(torch.int64),
            return_type=None,
            stop_at_layer=_stop(model, hook_names),
        )
    return {name: cache[name][batch.mask].flatten(1) for name in hook_names}


def hook_widths(model: HookedTransformer, hook_names: Sequence[str]) -> dict[str, int]:
    """Returns the width d of each hook's rows, heads flattened.

    Raises KeyError for a name that is no hook, and ValueError for a hook that holds token ids, or a
    value for every key.
    """
    names = select_names(list(hook_names), model.hook_names)
    return {name: hook_width(model.config, name) for name in names}


def row_norms(x: torch.Tensor) -> torch.Tensor:
    """Returns the Euclidean norm of each row, computed in fp64 and rounded to fp32."""
    # Single rows are summed by one thread, so the bits do not depend on their number.
    norms: torch.Tensor = torch.linalg.vector_norm(x, dim=1, dtype=torch.float64)
    return norms.float()


def norm_limits(
    model: HookedTransformer, batches: Iterable[Batch], hook_names: Sequence[str]
) -> dict[str, float]:
    """Returns the largest norm of a hook's rows that is no outlier's: 3 times the median of the
    first 8,192 tokens, by hook."""
    norms: dict[str, list[torch.Tensor]] = {name: [] for name in hook_names}
    seen = 0
    for batch in batches:
        for name, rows in read_rows(model, batch, hook_names).items():
            norms[name].append(row_norms(rows))
        seen += batch.n_tokens
        if seen >= CALIBRATION_TOKENS:
            break
    return {name: OUTLIER_FACTOR * float(torch.cat(n).median()) for name, n in norms.items()}


def outliers(rows: Mapping[str, torch.Tensor], limits: Mapping[str, float]) -> torch.Tensor:
    """Returns a bool [N]: whether a token's row exceeds the limit on its norm at any hook.

    A hook without a limit excludes nothing. NaN exceeds every limit.
    """
    found = torch.zeros(len(next(iter(rows.values()))), dtype=torch.bool, device="cpu")
    for name, limit in limits.items():
        found |= ~(row_norms(rows[name]) <= limit)
    return found


def _stop(model: HookedTransformer, hook_names: Sequence[str]) -> int | None:
    layers = [layer_of(name) for name in hook_names]
    inner = [layer for layer in layers if layer is not None]
    if len(inner) < len([name for name in hook_names if name not in ("hook_tokens", "hook_embed")]):
        return None
    return max(inner, default=-1) + 1
