"""The misrouted requests of a published postmortem, injected into two pools of a real model.

See docs/pools.md.
"""

from .detection import Detection, Effect, canaries, paired, unpaired
from .experiment import RoutingReport, run_routing
from .incident import PUBLISHED, Incident, conversations_until, users_touched
from .movement import Movement, PositionRange

__all__ = [
    "PUBLISHED",
    "Detection",
    "Effect",
    "Incident",
    "Movement",
    "PositionRange",
    "RoutingReport",
    "canaries",
    "conversations_until",
    "paired",
    "run_routing",
    "unpaired",
    "users_touched",
]
