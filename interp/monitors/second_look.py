"""The score of a sequence by the fp32 model, where the running model's was too near."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..activations.read import read_rows
from ..activations.sequences import padded
from .watched import Watched


def fp32_score(monitor: Watched, tokens: Sequence[int]) -> float:
    """Returns a probe's score of a whole sequence on the monitor's `fp32_model`."""
    assert monitor.fp32_model is not None
    probe = monitor.probe
    rows = read_rows(monitor.fp32_model, padded([list(tokens)]), probe.hook_names)
    x_1PD = torch.cat([rows[name] for name in probe.hook_names], -1)[None]
    if monitor.reads_features:
        assert monitor.dictionary is not None
        return float(probe.decision_function(monitor.dictionary.encode_sparse(x_1PD)))
    return float(probe.decision_function(x_1PD))
