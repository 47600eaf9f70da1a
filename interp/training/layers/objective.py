"""One step's loss over every layer, and its gradients, layer by layer.

Shapes: L layers, B rows, F features, E entries, d d_model; n the layers that a layer's features
write to.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from ....model.ops.kernels import tanh
from ...dictionaries import kernels
from ..entries import Entries
from ..parameters import Parameters
from .config import LayersTrainConfig


@dataclass(frozen=True, eq=False)
class Encoded:
    """The features of one layer in a step.

    Attributes:
        values: fp32 [E], 0 where an entry is not active.
        pre: fp32 [B, F], of JumpReLU alone, whose threshold's gradient needs it.
    """

    entries: Entries
    values: torch.Tensor
    pre: torch.Tensor | None = None


@dataclass(frozen=True, eq=False)
class Predicted:
    """The predictions of all layers.

    Attributes:
        gradient: [B, L * d], of the loss by the predictions.
        nmse: Of each layer: mean squared error over the variance, which the targets' scale makes 1.
    """

    encoded: list[Encoded]
    gradient: torch.Tensor
    nmse: list[float]


def encode(config: LayersTrainConfig, p: Parameters, x_Bd: torch.Tensor) -> Encoded:
    """Returns the active features of a layer's rows."""
    pre = kernels.dense(x_Bd, p["W_enc"], p["b_enc"])
    if config.activation == "topk":
        assert config.k is not None
        top = kernels.top_k(pre, config.k)
        return Encoded(Entries.of_top_k(top, config.d_sae), top.values.reshape(-1).clamp(min=0))
    entries = Entries.of_mask(pre > p["threshold"])
    return Encoded(entries, entries.take(pre), pre)


def predict(
    config: LayersTrainConfig,
    layers: Sequence[Parameters],
    b_dec: torch.Tensor,
    x: Sequence[torch.Tensor],
    y: torch.Tensor,
) -> Predicted:
    """Encodes every layer and predicts every output.

    Contributions are added in ascending order of the layers they come from, b_dec [L, d] first.
    """
    n_layers, d = b_dec.shape
    rows = len(y)
    total = b_dec.reshape(1, -1).repeat(rows, 1)
    encoded = []
    for i, p in enumerate(layers):
        found = encode(config, p, x[i])
        encoded.append(found)
        n = config.reach(i, n_layers)
        total[:, i * d : (i + n) * d] += found.entries.decode(found.values, p["W_dec"])
    error = total.sub_(y)
    squares = kernels.sums_of_squares(error.view(rows * n_layers, d)).view(rows, n_layers)
    nmse = [math.fsum(column) / (rows * d) for column in squares.T.tolist()]
    return Predicted(encoded, error.mul_(2 / (rows * d)), nmse)


def gradients(
    config: LayersTrainConfig,
    layers: Sequence[Parameters],
    predicted: Predicted,
    x: Sequence[torch.Tensor],
    sparsity: float,
) -> Iterator[dict[str, torch.Tensor]]:
    """Yields the gradients of each layer's parameters, one layer's at a time in memory.

    `sparsity` is the weight of JumpReLU's penalty at this step.
    """
    n_layers = len(layers)
    d = predicted.gradient.shape[1] // n_layers
    for i, (p, found) in enumerate(zip(layers, predicted.encoded, strict=True)):
        n = config.reach(i, n_layers)
        g = predicted.gradient[:, i * d : (i + n) * d].contiguous()
        entries, values = found.entries, found.values
        columns = entries.columns()
        out = {"W_dec": entries.outer(values, g, columns)}
        dvalues = entries.dots(g, p["W_dec"])
        if found.pre is not None:
            dvalues = _penalised(config, p, found, g, dvalues, sparsity, out)
        dpre = dvalues.where(values > 0, 0.0)
        out["W_enc"] = entries.outer(dpre, x[i], columns)
        out["b_enc"] = entries.sums(dpre, columns)
        yield out


def output_gradient(predicted: Predicted, n_layers: int) -> dict[str, torch.Tensor]:
    """Returns the gradient of b_dec [L, d]."""
    return {"b_dec": kernels.column_sums(predicted.gradient).view(n_layers, -1)}


def _penalised(
    config: LayersTrainConfig,
    p: Parameters,
    found: Encoded,
    g: torch.Tensor,
    dvalues: torch.Tensor,
    sparsity: float,
    out: dict[str, torch.Tensor],
) -> torch.Tensor:
    """Adds the tanh penalty; returns the gradient of the activations with it.

    The penalty is sparsity / B * sum of tanh(c |W_dec_f| a_f), as in Circuit Tracing; the
    decoders' norms are taken as they are. Thresholds get Rajamanoharan et al.'s estimate (2024,
    arXiv 2407.14435): a rectangle of width `bandwidth` about each stands for the jump.
    """
    assert found.pre is not None
    c = config.tanh_c * kernels.sums_of_squares(p["W_dec"]).sqrt()
    weight = sparsity / len(found.pre)
    of_entry = c[found.entries.indices.long()]
    bent = tanh(found.values * of_entry)
    threshold = p["threshold"]
    near = Entries.of_mask((found.pre - threshold).abs() < config.bandwidth / 2)
    at = near.indices.long()
    jump = near.dots(g, p["W_dec"]) * threshold[at] + weight * tanh(c * threshold)[at]
    out["threshold"] = near.sums(jump * (-1 / config.bandwidth), near.columns())
    return dvalues + weight * of_entry * (1 - bent * bent)
