"""A model's insides before and after training: what moved, where a behaviour sits, what went stale.

from bitlens.alignment.insides import movement, swap_blocks
print(movement(before, after, prompts), swap_blocks(before, after, rows))
"""

from .direction import Ablation, ablate, cosine, refusal_direction, without_direction
from .features import ChangedFeature, ChangedFeatures, changed_features
from .movement import LayerMovement, movement
from .preference import Swap, Swaps, refusal_lead, swap_blocks
from .stale import Staleness, staleness

__all__ = [
    "Ablation",
    "ChangedFeature",
    "ChangedFeatures",
    "LayerMovement",
    "Staleness",
    "Swap",
    "Swaps",
    "ablate",
    "changed_features",
    "cosine",
    "movement",
    "refusal_direction",
    "refusal_lead",
    "staleness",
    "swap_blocks",
    "without_direction",
]
