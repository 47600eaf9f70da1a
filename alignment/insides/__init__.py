"""A model's insides before and after training: what moved, where a behaviour sits, what went stale.

from bitlens.alignment.insides import movement, swap_blocks
print(movement(before, after, prompts), swap_blocks(before, after, rows))
"""

from .direction import Ablation, ablate, cosine, refusal_direction, without_direction
from .movement import LayerMovement, movement
from .preference import Swap, Swaps, refusal_lead, swap_blocks
from .stale import Staleness, staleness

__all__ = [
    "Ablation",
    "LayerMovement",
    "Staleness",
    "Swap",
    "Swaps",
    "ablate",
    "cosine",
    "movement",
    "refusal_direction",
    "refusal_lead",
    "staleness",
    "swap_blocks",
    "without_direction",
]
