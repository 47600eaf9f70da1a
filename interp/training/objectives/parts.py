"""Parts of objectives: terms of a loss, and the flow of gradients through entries.

Shapes: B rows, F features, E entries, d width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

import torch

from ...dictionaries import kernels
from ..config import TrainConfig
from ..entries import Entries
from ..parameters import Parameters


@dataclass(eq=False)
class Outcome:
    """The loss and the gradients of one batch.

    Attributes:
        gradients: By parameter.
        squared_error: The reconstruction's, summed over the batch.
        l0: Mean number of active features.
        fired: Bool [F], the features that were active in any row.
        parts: Further terms of the loss, for the log.
    """

    gradients: dict[str, torch.Tensor]
    squared_error: float
    l0: float
    fired: torch.Tensor
    parts: dict[str, float] = field(default_factory=dict)


class Objective(Protocol):
    """One architecture's loss. What it keeps between steps is in `state`, plain numbers."""

    state: dict[str, float]

    def __call__(
        self, p: Parameters, x: torch.Tensor, y: torch.Tensor, dead: torch.Tensor
    ) -> Outcome: ...


def squared_sum(x: torch.Tensor) -> float:
    """Returns the sum of squares of a matrix, its rows' sums added exactly."""
    return math.fsum(kernels.sums_of_squares(x).tolist())


def centred(config: TrainConfig, p: Parameters, x: torch.Tensor) -> torch.Tensor:
    """Returns what the encoder reads: transcoders do not take b_dec from their input."""
    return x if config.is_transcoder else x - p["b_dec"]


def predicted(p: Parameters, x: torch.Tensor, decoded: torch.Tensor) -> torch.Tensor:
    """Returns the reconstruction: what was decoded, and the skip's part where there is one."""
    return decoded + kernels.dense(x, p["W_skip"], None) if "W_skip" in p.values else decoded


def encoder_gradients(
    config: TrainConfig,
    p: Parameters,
    entries: Entries,
    dpre: torch.Tensor,
    x_c: torch.Tensor,
    gradients: dict[str, torch.Tensor],
    bias: str | None = "b_enc",
) -> None:
    """Adds to `gradients` what flows through pre-activations at the entries.

    `bias` names the encoder's bias; None where what is added to the product has none of its own.
    """
    columns = entries.columns()
    db = entries.sums(dpre, columns)
    add_gradient(gradients, "W_enc", entries.outer(dpre, x_c, columns))
    if bias is not None:
        add_gradient(gradients, bias, db)
    if not config.is_transcoder:
        add_gradient(gradients, "b_dec", -kernels.column_sums(p["W_enc"], db))


def decoder_gradients(
    entries: Entries,
    values: torch.Tensor,
    g: torch.Tensor,
    x: torch.Tensor,
    p: Parameters,
    gradients: dict[str, torch.Tensor],
) -> None:
    """Adds to `gradients` what flows through the reconstruction, whose gradient g [B, d] is."""
    add_gradient(gradients, "W_dec", entries.outer(values, g, entries.columns()))
    add_gradient(gradients, "b_dec", kernels.column_sums(g))
    if "W_skip" in p.values:
        add_gradient(gradients, "W_skip", kernels.dense(g.T, x.T, None))


def l1_pull(config: TrainConfig, y: torch.Tensor) -> float:
    """Returns the gradient of the L1 term by an activation: W_dec's rows have norm 1, so an
    activation is what its feature adds."""
    return config.l1_coefficient / y.numel() * math.sqrt(y.shape[1])


def fired(entries: Entries, values: torch.Tensor) -> torch.Tensor:
    """Returns a bool [F]: the features with a value above 0."""
    out = torch.zeros(entries.n_features, dtype=torch.bool, device="cpu")
    out[entries.indices[(values > 0) & (entries.indices >= 0)].long()] = True
    return out


def auxiliary(
    config: TrainConfig,
    p: Parameters,
    pre: torch.Tensor,
    x_c: torch.Tensor,
    residual: torch.Tensor,
    dead: torch.Tensor,
    gradients: dict[str, torch.Tensor],
) -> float:
    """Adds AuxK's gradients (Gao et al., 2024, arXiv 2406.04093, A.2); returns its squared error.

    The k_aux = d / 2 largest dead features of each row predict what the live ones left over, which
    is not differentiated.
    """
    columns = dead.nonzero()[:, 0]
    k_aux = min(residual.shape[1] // 2, len(columns))
    if k_aux == 0 or config.auxk_coefficient == 0:
        return 0.0
    top = kernels.top_k(pre[:, columns], k_aux)
    features = columns.to(torch.int32)[top.indices.long()]
    entries = Entries.of_top_k(kernels.TopK(top.values, features), config.d_sae)
    values = top.values.reshape(-1).clamp(min=0)
    error = entries.decode(values, p["W_dec"]) - residual
    share = min(1.0, len(columns) / (residual.shape[1] // 2))
    g = error * (2 * config.auxk_coefficient * share / error.numel())
    da = entries.dots(g, p["W_dec"]).where(values > 0, 0.0)
    add_gradient(gradients, "W_dec", entries.outer(values, g, entries.columns()))
    encoder_gradients(config, p, entries, da, x_c, gradients)
    return squared_sum(error)


def add_gradient(gradients: dict[str, torch.Tensor], name: str, g: torch.Tensor) -> None:
    """Adds g to a gradient, in place, or begins it with g, which is the gradient from then on."""
    if name in gradients:
        gradients[name] += g
    else:
        gradients[name] = g
