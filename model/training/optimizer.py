"""AdamW on a model's fp32 weights (Loshchilov and Hutter 2019), with fixed bits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from ... import _core
from ..ops.kernels import empty
from ..weights.trained import TrainedWeights


@dataclass(frozen=True, kw_only=True)
class AdamWSettings:
    """The numbers of AdamW.

    Attributes:
        weight_decay: Of matrices; biases and norms have none.
        clip: Gradients of a larger norm are scaled down to it; infinity scales none.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip: float = 1.0


class AdamW:
    """The optimiser and its moments.

    Attributes:
        n_steps: Steps so far.
    """

    def __init__(self, weights: TrainedWeights, settings: AdamWSettings) -> None:
        self.n_steps = 0
        self._weights = weights
        self._settings = settings
        self._first = {name: torch.zeros_like(x) for name, x in weights.values.items()}
        self._second = {name: torch.zeros_like(x) for name, x in weights.values.items()}

    def step(self, gradients: Mapping[str, torch.Tensor], lr: float) -> float:
        """Moves the weights and brings the kernels' up to date; returns the gradients' norm.

        Raises FloatingPointError, with nothing moved, where a gradient is no finite number.
        """
        norm = gradient_norm(gradients.values())
        if not math.isfinite(norm):
            culprit = next(name for name, g in gradients.items() if not bool(g.isfinite().all()))
            raise FloatingPointError(f"the gradient of {culprit} is not finite; lower the rate")
        settings = self._settings
        scale = min(1.0, settings.clip / norm) if norm > 0 else 1.0
        self.n_steps += 1
        step = lr / (1 - settings.beta1**self.n_steps)
        v_scale = 1 / math.sqrt(1 - settings.beta2**self.n_steps)
        for name, gradient in gradients.items():
            decay = 1 - lr * settings.weight_decay if gradient.ndim > 1 else 1.0
            _core.adam(
                gradient, gradient.numel(), settings.beta1, 1 - settings.beta1, settings.beta2,
                1 - settings.beta2, step, v_scale, settings.eps, scale, decay,
                self._weights.values[name], self._first[name], self._second[name],
            )  # fmt: skip
        self._weights.rewrite()
        return norm

    def tensors(self) -> dict[str, torch.Tensor]:
        """Returns the moments by name."""
        first = {f"adam.first.{name}": x for name, x in self._first.items()}
        return first | {f"adam.second.{name}": x for name, x in self._second.items()}


def gradient_norm(gradients: Iterable[torch.Tensor]) -> float:
    """Returns the norm of all gradients together: fp32 sums of squares of rows, added exactly."""
    squares: list[float] = []
    for gradient in gradients:
        rows = gradient if gradient.ndim > 1 else gradient[None]
        sums = empty((len(rows),))
        _core.sums_of_squares(rows, len(rows), rows.shape[1], sums)
        squares += sums.tolist()
    return math.sqrt(math.fsum(squares))


def learning_rate(step: int, n_steps: int, *, peak: float, schedule: str, warm_up: float) -> float:
    """Returns the rate of a step, counted from 1.

    It rises linearly over the first `warm_up` of the steps, then stays ("constant"), or falls to 0
    after the last step ("linear", "cosine").
    """
    rising = math.ceil(warm_up * n_steps)
    if step <= rising:
        return peak * step / rising
    if schedule == "constant":
        return peak
    left = (n_steps - step + 1) / (n_steps - rising)
    return peak * left if schedule == "linear" else peak * 0.5 * (1 + _cosine(1 - left))


def _cosine(part: float) -> float:
    """cos(pi * part) for part in 0 .. 1, by the core's own sine: `math.cos` is the machine's."""
    cos, sin = empty((1, 1)), empty((1, 1))
    frequency = torch.tensor([math.pi * part], dtype=torch.float64, device="cpu")
    _core.rope_table(frequency, 1, 1, 1, cos, sin)
    return float(cos)
