"""TopK (Gao et al., 2024, arXiv 2406.04093): the k largest pre-activations of each row."""

from __future__ import annotations

import torch

from ...dictionaries import kernels
from ..config import TrainConfig
from ..entries import Entries
from ..parameters import Parameters
from .parts import (
    Outcome,
    auxiliary,
    centred,
    decoder_gradients,
    encoder_gradients,
    fired,
    predicted,
    squared_sum,
)


class TopKObjective:
    """The k largest pre-activations of each row, where they are positive, with AuxK."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.state: dict[str, float] = {}

    def __call__(
        self, p: Parameters, x: torch.Tensor, y: torch.Tensor, dead: torch.Tensor
    ) -> Outcome:
        x_c = centred(self.config, p, x)
        pre = kernels.dense(x_c, p["W_enc"], p["b_enc"])
        assert self.config.k is not None
        top = kernels.top_k(pre, self.config.k)
        entries = Entries.of_top_k(top, self.config.d_sae)
        values = top.values.reshape(-1).clamp(min=0)
        error = predicted(p, x, entries.decode(values, p["W_dec"], p["b_dec"])) - y
        g = error * (2 / error.numel())
        gradients: dict[str, torch.Tensor] = {}
        decoder_gradients(entries, values, g, x, p, gradients)
        dpre = entries.dots(g, p["W_dec"]).where(values > 0, 0.0)
        encoder_gradients(self.config, p, entries, dpre, x_c, gradients)
        aux = auxiliary(self.config, p, pre, x_c, -error, dead, gradients)
        active = int((values > 0).sum())
        return Outcome(
            gradients,
            squared_sum(error),
            active / len(x),
            fired(entries, values),
            {"auxk": aux / error.numel()} if aux else {},
        )
