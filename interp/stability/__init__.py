"""Whether features survive a change of precision: which flip between two runs, and which cannot."""

from .certificate import CertifiedPairs, certify
from .limits import Rank, Thresholds, limit_of
from .movement import Movement
from .result import FeatureFlip, StabilityResult
from .stability import stability
from .tally import Tally

__all__ = [
    "CertifiedPairs",
    "FeatureFlip",
    "Movement",
    "Rank",
    "StabilityResult",
    "Tally",
    "Thresholds",
    "certify",
    "limit_of",
    "stability",
]
