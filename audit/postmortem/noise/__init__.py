"""The time until faults are noticed: five faults, five ways of looking, real answers.

See docs/evaluation.md.
"""

from .deployments import FAULTS, Deployment
from .experiment import Finding, NoiseReport, run_noise
from .looking import LOOKS, Look, Seen
from .results import Results

__all__ = [
    "FAULTS",
    "LOOKS",
    "Deployment",
    "Finding",
    "Look",
    "NoiseReport",
    "Results",
    "Seen",
    "run_noise",
]
