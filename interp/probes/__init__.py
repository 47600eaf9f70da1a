"""Probes of activations: detectors whose scores have fixed bits, judged by one protocol.

from bitlens.interp.probes import LogisticProbe
probe = LogisticProbe("blocks.15.hook_resid_post").fit(X, y, mask=mask, groups=groups)
"""

from .aggregate import Aggregate
from .attention import AttentionProbe
from .causal import causal_check
from .linear import LogisticProbe, MassMeanProbe, MeanDifferenceProbe
from .probe import NotFittedError, Probe
from .probe_file import ProbeFileError
from .rows import TokenRows, token_rows
from .stream import ScoreStream

__all__ = [
    "Aggregate",
    "AttentionProbe",
    "LogisticProbe",
    "MassMeanProbe",
    "MeanDifferenceProbe",
    "NotFittedError",
    "Probe",
    "ProbeFileError",
    "ScoreStream",
    "TokenRows",
    "causal_check",
    "token_rows",
]
