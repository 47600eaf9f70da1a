"""JumpReLU (Rajamanoharan et al., 2024, arXiv 2407.14435): a learned threshold for each feature.

Shapes: B rows, F features, E entries, d width.
"""

from __future__ import annotations

import math

import torch

from ...dictionaries import kernels
from ..config import TrainConfig
from ..entries import Entries
from ..parameters import Parameters
from .parts import (
    Outcome,
    centred,
    decoder_gradients,
    encoder_gradients,
    fired,
    predicted,
    squared_sum,
)

_RATE = 0.02
_AT_ONCE = 5.0
_MEMORY = 0.9
_DEAD_COEFFICIENT = 3e-6


class JumpReLUObjective:
    """Reconstruction plus a weight on the number of active features, which a controller steers.

    Thresholds get the paper's estimate of a gradient: a rectangle of width `bandwidth` about each
    threshold stands for the jump. The weight follows the logarithm of L0 over its target, in units
    of what the reconstruction pulls at thresholds with: at once, with a negative sign where L0 is
    too low, and lastingly, a little each step. So L0 arrives wherever it starts. Features that have
    not fired for long have their pre-activations raised, as in Conerly et al. (2025).
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.state: dict[str, float] = {"l0_coefficient": config.l0_coefficient, "l0": 0.0}

    def __call__(
        self, p: Parameters, x: torch.Tensor, y: torch.Tensor, dead: torch.Tensor
    ) -> Outcome:
        config, width = self.config, self.config.bandwidth
        x_c = centred(config, p, x)
        pre = kernels.dense(x_c, p["W_enc"], p["b_enc"])
        threshold = p["threshold"]
        mask = (pre > threshold) & (pre > 0)
        entries = Entries.of_mask(mask)
        values = entries.take(pre)
        l0 = len(values) / len(x)
        error = predicted(p, x, entries.decode(values, p["W_dec"], p["b_dec"])) - y
        g = error * (2 / error.numel())
        gradients: dict[str, torch.Tensor] = {}
        decoder_gradients(entries, values, g, x, p, gradients)
        encoder_gradients(config, p, entries, entries.dots(g, p["W_dec"]), x_c, gradients)
        self._revive(p, pre, dead, x_c, gradients)

        near = Entries.of_mask((pre - threshold).abs() < width / 2)
        gain = near.dots(g, p["W_dec"]) * threshold[near.indices.long()]
        scale = math.fsum(gain.abs().tolist()) / max(1, len(gain)) * len(x)
        jump = gain + self._weight(l0, scale) / len(x)
        gradients["threshold"] = near.sums(jump * (-1 / width), near.columns())
        return Outcome(
            gradients,
            squared_sum(error),
            l0,
            fired(entries, values),
            {"l0_coefficient": self.state["l0_coefficient"]},
        )

    def _revive(
        self,
        p: Parameters,
        pre: torch.Tensor,
        dead: torch.Tensor,
        x_c: torch.Tensor,
        gradients: dict[str, torch.Tensor],
    ) -> None:
        if not bool(dead.any()):
            return
        entries = Entries.of_mask((pre < p["threshold"]) & dead)
        push = torch.full(
            (len(entries.indices),),
            -_DEAD_COEFFICIENT / len(pre),
            dtype=torch.float32,
            device="cpu",
        )
        encoder_gradients(self.config, p, entries, push, x_c, gradients)

    def _weight(self, l0: float, scale: float) -> float:
        """The weight of this step, in units of `scale`, after which its lasting part moves."""
        before = self.state["l0"] or l0
        self.state["l0"] = _MEMORY * before + (1 - _MEMORY) * l0
        assert self.config.l0_target is not None
        excess = math.log(max(self.state["l0"], 1e-3) / self.config.l0_target)
        excess = max(-1.0, min(1.0, excess))
        lasting = self.state["l0_coefficient"]
        weight = lasting + _AT_ONCE * excess * scale
        grown = _RATE * max(0.0, excess) * scale
        self.state["l0_coefficient"] = lasting * math.exp(_RATE * min(0.0, excess)) + grown
        return weight
