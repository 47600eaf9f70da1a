"""The weights of a dictionary under training, with Adam's moments, in fp32.

Both matrices are kept feature by feature, [F, d], which is how their gradients arise. Shapes:
F features, d width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch

from ... import _core
from ..dictionaries import kernels

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


class Parameters:
    """Named tensors that Adam moves.

    Attributes:
        values: The tensors: W_enc [F, d_in] and W_dec [F, d_out] among them.
        unit_decoder: Whether W_dec's rows are kept at norm 1.
        rates: Factors on the learning rate, by tensor; 1 where there is none.
        n_steps: Steps of Adam so far.
    """

    def __init__(
        self,
        values: Mapping[str, torch.Tensor],
        *,
        unit_decoder: bool = True,
        rates: Mapping[str, float] | None = None,
    ) -> None:
        self.unit_decoder = unit_decoder
        self.rates = dict(rates or {})
        self.values = {name: x.float().contiguous() for name, x in values.items()}
        self._first = {name: torch.zeros_like(x) for name, x in self.values.items()}
        self._second = {name: torch.zeros_like(x) for name, x in self.values.items()}
        self.n_steps = 0

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.values[name]

    def step(self, gradients: Mapping[str, torch.Tensor], lr: float, clip: float) -> float:
        """Moves the tensors by one step of Adam (Kingma and Ba, 2015); returns the gradients' norm.

        A unit decoder's gradient is taken across its rows, whose norm is 1 again after the step.
        Gradients of a norm above `clip` are scaled to it first.
        """
        if self.unit_decoder:
            project(gradients["W_dec"], self.values["W_dec"])
        norm = gradient_norm(gradients.values())
        scale = min(1.0, clip / norm) if norm > 0 else 1.0
        self.n_steps += 1
        step = lr / (1 - BETA1**self.n_steps)
        v_scale = 1 / math.sqrt(1 - BETA2**self.n_steps)
        for name, gradient in gradients.items():
            moments = self._first[name], self._second[name]
            rate = step * self.rates.get(name, 1.0)
            _adam(gradient, scale, rate, v_scale, self.values[name], *moments)
        if self.unit_decoder:
            kernels.unit_rows_(self.values["W_dec"])
        return norm

    def tensors(self) -> dict[str, torch.Tensor]:
        """Returns everything that a checkpoint needs, by name."""
        found = dict(self.values)
        for name in self.values:
            found[f"adam.first.{name}"] = self._first[name]
            found[f"adam.second.{name}"] = self._second[name]
        return found

    def restore(self, tensors: Mapping[str, torch.Tensor], n_steps: int) -> None:
        """Takes what `tensors` returned. Raises ValueError for a tensor that is missing."""
        for name, x in self.tensors().items():
            if name not in tensors or tensors[name].shape != x.shape:
                raise ValueError(f"the checkpoint's {name} is missing or of another shape")
            x.copy_(tensors[name])
        self.n_steps = n_steps


def project(gradient: torch.Tensor, rows: torch.Tensor) -> None:
    """Takes from each row of a gradient what lies along that row of norm 1, in place."""
    kernels.project_rows_(gradient, rows)


def gradient_norm(gradients: Iterable[torch.Tensor]) -> float:
    """Returns the norm of all gradients together, their squares added exactly."""
    squares: list[float] = []
    for g in gradients:
        squares += kernels.sums_of_squares(g.view(len(g), -1) if g.ndim > 1 else g[None]).tolist()
    return math.sqrt(math.fsum(squares))


def _adam(
    g: torch.Tensor,
    clip: float,
    step: float,
    v_scale: float,
    p: torch.Tensor,
    first: torch.Tensor,
    second: torch.Tensor,
) -> None:
    g = g.contiguous()
    _core.adam(
        g, g.numel(), BETA1, 1 - BETA1, BETA2, 1 - BETA2, step, v_scale, EPSILON,
        clip, 1.0, p, first, second,
    )  # fmt: skip
