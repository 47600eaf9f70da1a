"""Finds where A and B part, and the single operations that, computed A's way, restore a token."""

from __future__ import annotations

import torch

from ..precision.divergence import first_divergence
from .paths import ModelPath
from .result import Divergence, Flip, OpFinding

_SWAPS, _TOKENS = 100, 8_000
"""How many operations the search for a restoring one exchanges, and tokens it runs through B."""


def localise(
    a: ModelPath,
    b: ModelPath,
    tokens_NP: torch.Tensor,
    ops: tuple[OpFinding, ...],
    flips: tuple[Flip, ...],
) -> Divergence:
    """Compares the first prompt in lockstep, then exchanges operations at the earliest flip.

    Those that break their contract, then those that create the most error are exchanged first; a
    late flip leaves time for fewer.
    """
    found = first_divergence(a.model, b.model, tokens_NP[0], mode="lockstep")
    carried = next((row.address for row in found.table if row.exceeds(row.free)), None)
    broken = next((op.address for op in ops if not op.ok), None)
    created = max(ops, key=lambda op: op.created_error)
    amplified = None
    if found.amplified:
        row = found.row(found.amplified[0])
        amplified = (row.address, float(row.amplification or 0.0))
    part = Divergence(
        judge="contract" if broken else found.table[0].judge,
        first=broken or found.first,
        carried=carried,
        created=created.address if created.created_error > 0 else None,
        amplified=amplified,
    )
    if not flips:
        return part
    flip = min(flips, key=lambda flip: (flip.position, flip.prompt))
    suspects = sorted(ops, key=lambda op: (op.ok, -op.created_error))
    n = max(1, min(_SWAPS, _TOKENS // (flip.position + 1)))
    chosen = [op.address for op in suspects[:n]]
    tokens_P = tokens_NP[flip.prompt, : flip.position + 1]
    swapped = first_divergence(a.model, b.model, tokens_P, mode="swap", addresses=chosen)
    return Divergence(
        part.judge,
        part.first,
        part.carried,
        part.created,
        part.amplified,
        flip=(flip.prompt, flip.position),
        restores=swapped.restores,
        tried=len(swapped.table),
        opening=flip.opening,
    )
