"""The best tokens that a platform lists, held against its own logits.

Tensor names: P positions, V vocabulary, K listed tokens.
"""

from __future__ import annotations

import torch


def wrong_top_k(logits_PV: torch.Tensor, ids_PK: torch.Tensor) -> torch.Tensor:
    """Returns for each position whether the list is not the exact one: bool [P].

    The exact list has the k best tokens, the best first, the smaller id first among equals.
    """
    listed_PK = logits_PV.gather(1, ids_PK)
    before, after = listed_PK[:, :-1], listed_PK[:, 1:]
    ordered_P = ((before > after) | ((before == after) & (ids_PK[:, :-1] < ids_PK[:, 1:]))).all(1)
    worst_P1, last_P1 = listed_PK[:, -1:], ids_PK[:, -1:]
    place_V = torch.arange(logits_PV.shape[1])
    as_good_PV = (logits_PV > worst_P1) | ((logits_PV == worst_P1) & (place_V <= last_P1))
    return ~(ordered_P & (as_good_PV.sum(1) == ids_PK.shape[1]))
