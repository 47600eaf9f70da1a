"""Standard SAEs (ReLU and an L1 penalty) and gated ones (Rajamanoharan et al., 2024, arXiv
2404.16014).

Shapes: B rows, F features, E entries, d width.
"""

from __future__ import annotations

import math

import torch

from ....model.ops.kernels import exp
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
    l1_pull,
    predicted,
    squared_sum,
)


class StandardObjective:
    """Reconstruction plus l1_coefficient times the mean of the activations' sum."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.state: dict[str, float] = {}

    def __call__(
        self, p: Parameters, x: torch.Tensor, y: torch.Tensor, dead: torch.Tensor
    ) -> Outcome:
        x_c = centred(self.config, p, x)
        pre = kernels.dense(x_c, p["W_enc"], p["b_enc"])
        entries = Entries.of_mask(pre > 0)
        values = entries.take(pre)
        error = predicted(p, x, entries.decode(values, p["W_dec"], p["b_dec"])) - y
        g = error * (2 / error.numel())
        gradients: dict[str, torch.Tensor] = {}
        decoder_gradients(entries, values, g, x, p, gradients)
        dpre = entries.dots(g, p["W_dec"]) + l1_pull(self.config, y)
        encoder_gradients(self.config, p, entries, dpre, x_c, gradients)
        return Outcome(
            gradients,
            squared_sum(error),
            len(values) / len(x),
            fired(entries, values),
            {"l1": math.fsum(values.tolist()) / len(x)},
        )


class GatedObjective:
    """A gate decides which features are active, a magnitude how much; both read one product.

    The gate learns from the L1 penalty on its positive part and from reconstructing with it
    through the decoder as it is, which that term does not move.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.state: dict[str, float] = {}

    def __call__(
        self, p: Parameters, x: torch.Tensor, y: torch.Tensor, dead: torch.Tensor
    ) -> Outcome:
        x_c = centred(self.config, p, x)
        product = kernels.dense(x_c, p["W_enc"], None)
        gates = product + p["b_gate"]
        entries = Entries.of_mask(gates > 0)
        features = entries.indices.long()
        scale = exp(p["r_mag"])[features]
        raw, gate = entries.take(product), entries.take(gates)
        magnitude = raw * scale + p["b_mag"][features]
        values = magnitude.clamp(min=0)
        error = entries.decode(values, p["W_dec"], p["b_dec"]) - y
        g = error * (2 / error.numel())
        gradients: dict[str, torch.Tensor] = {}
        decoder_gradients(entries, values, g, x, p, gradients)
        dmagnitude = entries.dots(g, p["W_dec"]).where(magnitude > 0, 0.0)
        columns = entries.columns()
        dproduct = dmagnitude * scale
        gradients["b_mag"] = entries.sums(dmagnitude, columns)
        gradients["r_mag"] = entries.sums(dproduct * raw, columns)

        via_gate = entries.decode(gate, p["W_dec"], p["b_dec"]) - y
        g_gate = via_gate * (2 / via_gate.numel())
        dgate = entries.dots(g_gate, p["W_dec"]) + l1_pull(self.config, y)
        gradients["b_gate"] = entries.sums(dgate, columns)
        encoder_gradients(self.config, p, entries, dproduct + dgate, x_c, gradients, bias=None)
        active = int((values > 0).sum())
        return Outcome(
            gradients,
            squared_sum(error),
            active / len(x),
            fired(entries, values),
            {"l1": math.fsum(gate.tolist()) / len(x)},
        )
