"""The settings of a training on every layer at once, as data."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...activations import Packing

ACTIVATIONS = ("topk", "jumprelu")


@dataclass(frozen=True, kw_only=True)
class LayersTrainConfig:
    """Transcoders of every layer and how they are trained. Checked when made; raises ValueError.

    The features of a layer read one hook there and predict another one there and in later layers:
    y_l = sum over l' <= l of W_dec^{l'->l} a^{l'} + b_l (Ameisen et al., 2025, Circuit Tracing).

    Attributes:
        d_sae: Features of a layer.
        activation: "topk", or "jumprelu" with a tanh penalty.
        k: Active features of a layer and row, for "topk".
        max_reach: Layers that a feature writes to, its own first: 1 makes a set of per-layer
            transcoders, None a cross-layer transcoder that writes to every later layer.
        hook_in: What features read, without the block: "mlp.hook_in" is what the MLP itself reads,
            "hook_mlp_in" the residual stream before its norm.
        hook_out: What they predict.
        n_tokens: Tokens of text to train on; a shorter text is gone through several times.
        batch_tokens: Tokens of a step, rounded up to whole sequences.
        lr: The learning rate at its height, for inputs and outputs scaled to a variance of 1.
        warm_up: Part of the steps in which the rate rises from 0.
        decay: Part of the steps, at the end, in which it falls to 0.
        l0_coefficient: Weight of JumpReLU's penalty, sum of tanh(c |W_dec_f| a_f), which rises to
            it over all steps.
        tanh_c: c of this penalty.
        bandwidth: Of JumpReLU's gradient estimator.
        seed: Fixes the initial weights.
        context_size: Tokens of the longest sequence the model sees.
        exclude_outliers: Whether tokens are left out whose norm exceeds 3 times the median at any
            of these hooks, found on the first 2,048.
        clip: A layer's gradients of a larger norm are scaled down to it.
        checkpoint_every: Steps between checkpoints.
        log_every: Steps between lines of the log.
    """

    d_sae: int
    n_tokens: int
    activation: str = "topk"
    k: int | None = None
    max_reach: int | None = None
    hook_in: str = "mlp.hook_in"
    hook_out: str = "hook_mlp_out"
    batch_tokens: int = 1024
    lr: float = 2e-3
    warm_up: float = 0.05
    decay: float = 0.4
    l0_coefficient: float = 2.0
    tanh_c: float = 4.0
    bandwidth: float = 0.1
    seed: int = 0
    context_size: int = 256
    exclude_outliers: bool = True
    clip: float = 1.0
    checkpoint_every: int = 50
    log_every: int = 5

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation = {self.activation!r}: expected 'topk' or 'jumprelu'")
        names = ["d_sae", "n_tokens", "batch_tokens", "checkpoint_every", "log_every"]
        for name in names + ([] if self.max_reach is None else ["max_reach"]):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} = {value!r}: expected a positive integer")
        for name in ("lr", "clip", "bandwidth", "tanh_c"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} = {value!r}: expected a positive number")
        for name in ("warm_up", "decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} = {getattr(self, name)!r}: expected a part from 0 to 1")
        if self.activation == "topk" and (self.k is None or not 1 <= self.k <= self.d_sae):
            raise ValueError(f"k = {self.k!r}: topk needs one from 1 to d_sae = {self.d_sae}")

    @property
    def n_steps(self) -> int:
        return max(1, self.n_tokens // self.batch_tokens)

    @property
    def packing(self) -> Packing:
        """The rule by which text becomes sequences."""
        return Packing(self.context_size)

    def reach(self, layer: int, n_layers: int) -> int:
        """Returns the number of layers that features of this one write to."""
        left = n_layers - layer
        return left if self.max_reach is None else min(left, self.max_reach)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> LayersTrainConfig:
        """Reads a config. Raises ValueError naming a field that there is not, or is missing."""
        known = {f.name for f in dataclasses.fields(cls)}
        for name in found:
            if name not in known:
                raise ValueError(f"unknown field {name!r}: expected some of {sorted(known)}")
        for name in ("d_sae", "n_tokens"):
            if name not in found:
                raise ValueError(f"{name} is missing")
        return cls(**found)
