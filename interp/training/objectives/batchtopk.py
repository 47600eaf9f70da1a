"""BatchTopK (Bussmann et al., 2024, arXiv 2412.06410): the B * k largest of a whole batch; and
Matryoshka (Bussmann et al., 2025, arXiv 2503.17547): the same, with nested dictionaries.

Shapes: B rows, F features, E entries, d width, M nested widths.
"""

from __future__ import annotations

import torch

from ...dictionaries import kernels
from ..config import TrainConfig
from ..entries import Entries
from ..parameters import Parameters
from .parts import (
    Outcome,
    add_gradient,
    auxiliary,
    centred,
    decoder_gradients,
    encoder_gradients,
    fired,
    predicted,
    squared_sum,
)

_THRESHOLD_RATE = 0.01


class BatchTopKObjective:
    """The largest pre-activations of the batch, k a row on average.

    The dictionary is used with a threshold: a running mean of the least value selected.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.state: dict[str, float] = {"threshold": 0.0}

    def __call__(
        self, p: Parameters, x: torch.Tensor, y: torch.Tensor, dead: torch.Tensor
    ) -> Outcome:
        x_c = centred(self.config, p, x)
        pre = kernels.dense(x_c, p["W_enc"], p["b_enc"])
        entries, values = self._select(pre)
        gradients: dict[str, torch.Tensor] = {}
        error, da = self._reconstruct(p, x, y, entries, values, gradients)
        encoder_gradients(self.config, p, entries, da, x_c, gradients)
        aux = auxiliary(self.config, p, pre, x_c, -error, dead, gradients)
        parts = {"threshold": self.state["threshold"]}
        return Outcome(
            gradients,
            squared_sum(error),
            len(values) / len(x),
            fired(entries, values),
            parts | ({"auxk": aux / error.numel()} if aux else {}),
        )

    def _select(self, pre: torch.Tensor) -> tuple[Entries, torch.Tensor]:
        rows, n = pre.shape
        assert self.config.k is not None
        top = kernels.top_k(pre.view(1, -1), rows * self.config.k)
        kept = top.values[0] > 0
        flat, values = top.indices[0][kept].long(), top.values[0][kept]
        if len(values):
            least = float(values.min())
            before = self.state["threshold"]
            rate = _THRESHOLD_RATE if before else 1.0
            self.state["threshold"] = before + rate * (least - before)
        starts = torch.searchsorted(flat, torch.arange(rows + 1, device="cpu") * n)
        return Entries(starts, (flat % n).to(torch.int32), n), values

    def _reconstruct(
        self,
        p: Parameters,
        x: torch.Tensor,
        y: torch.Tensor,
        entries: Entries,
        values: torch.Tensor,
        gradients: dict[str, torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The error of the reconstruction, and the gradients of the entries."""
        error = predicted(p, x, entries.decode(values, p["W_dec"], p["b_dec"])) - y
        g = error * (2 / error.numel())
        decoder_gradients(entries, values, g, x, p, gradients)
        return error, entries.dots(g, p["W_dec"])


class MatryoshkaObjective(BatchTopKObjective):
    """BatchTopK whose first features must reconstruct by themselves, at every nested width."""

    def _reconstruct(
        self,
        p: Parameters,
        x: torch.Tensor,
        y: torch.Tensor,
        entries: Entries,
        values: torch.Tensor,
        gradients: dict[str, torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        widths = prefixes(self.config)
        bands = [_band(entries, low, high) for low, high in zip([0, *widths], widths, strict=False)]
        decoded, errors = p["b_dec"].expand(y.shape).contiguous(), []
        for band in bands:
            decoded = decoded + band.decode(values, p["W_dec"])
            errors.append(decoded - y)
        da = torch.zeros_like(values)
        g = torch.zeros_like(y)
        # A feature takes part in its own width and in all larger ones.
        for band, error in zip(reversed(bands), reversed(errors), strict=True):
            g = g + error * (2 / (len(widths) * error.numel()))
            add_gradient(gradients, "W_dec", band.outer(values, g, band.columns()))
            da = da + band.dots(g, p["W_dec"])
        add_gradient(gradients, "b_dec", kernels.column_sums(g))
        return errors[-1], da


def prefixes(config: TrainConfig) -> list[int]:
    """Returns the nested widths, ascending, the last being all features."""
    if config.prefixes is not None:
        return list(config.prefixes)
    return sorted({max(1, config.d_sae // part) for part in (16, 8, 4, 2, 1)})


def _band(entries: Entries, low: int, high: int) -> Entries:
    """The entries of features low to high - 1; the others become -1."""
    inside = (entries.indices >= low) & (entries.indices < high)
    return Entries(entries.starts, entries.indices.where(inside, -1), entries.n_features)
