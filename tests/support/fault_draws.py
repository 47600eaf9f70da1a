"""A fault at a random operation of a model, and whether the search for it finds it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from bitlens.model.transformer import HookedTransformer
from bitlens.precision.divergence import first_divergence
from bitlens.precision.faults import FAULTS
from bitlens.precision.inject import inject_fault


@dataclass(frozen=True)
class Draw:
    """One fault that changed bits.

    Attributes:
        created: What lockstep named.
        flipped: The first position whose most likely token the fault changed; None: no token.
        restored: Whether exchanging the operation brought that token back; None where none changed.
    """

    address: str
    fault: str
    created: tuple[str, ...]
    flipped: int | None
    restored: bool | None


def draws(
    clean: HookedTransformer, faulty: HookedTransformer, tokens: torch.Tensor, seed: int
) -> Iterator[Draw | None]:
    """Endless draws of an operation and a fault that its contract has a rule for; None for one
    that changed nothing, which lockstep must say too."""
    chooser = random.Random(seed)
    expected = clean(tokens).argmax(-1)[0]
    while True:
        address = chooser.choice(clean.op_addresses)
        contract = clean.site(address).contract
        name = chooser.choice([f.name for f in FAULTS.values() if f.applies_to(contract)])
        with inject_fault(faulty, name, at=address):
            lockstep = first_divergence(clean, faulty, tokens, "lockstep")
            row = lockstep.row(address).created
            assert row is not None
            if row.identical:
                assert lockstep.created == ()
                yield None
                continue
            yield _drawn(clean, faulty, tokens, expected, address, name, lockstep.created)


def _drawn(
    clean: HookedTransformer,
    faulty: HookedTransformer,
    tokens: torch.Tensor,
    expected: torch.Tensor,
    address: str,
    name: str,
    created: tuple[str, ...],
) -> Draw:
    moved = (faulty(tokens).argmax(-1)[0] != expected).nonzero().flatten().tolist()
    if not moved:
        return Draw(address, name, created, None, None)
    swap = first_divergence(clean, faulty, tokens, "swap", position=moved[0])
    return Draw(address, name, created, moved[0], swap.restores == (address,))
