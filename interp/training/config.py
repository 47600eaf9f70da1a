"""The settings of a training run, as data."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..activations import HarvestConfig, Packing

ARCHITECTURES = (
    "standard",
    "topk",
    "batchtopk",
    "matryoshka_batchtopk",
    "jumprelu",
    "gated",
    "transcoder",
    "skip_transcoder",
    "topk_transcoder",
    "topk_skip_transcoder",
    "jumprelu_transcoder",
    "jumprelu_skip_transcoder",
)
"""Those that can be trained. The BatchTopK ones are saved as jumprelu, with a threshold."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One dictionary and how it is trained. Checked when made; raises ValueError.

    Attributes:
        architecture: One of `ARCHITECTURES`.
        hook_name: The hook it reads.
        hook_name_out: The hook it predicts, for transcoders.
        d_sae: Number of features.
        k: Active features of a row (topk), or on average (batchtopk).
        n_tokens: Rows to train on; a text with fewer is gone through several times.
        unique_tokens: Tokens of text to harvest; None takes `n_tokens`.
        batch_size: Rows of a step.
        lr: The learning rate at its height, for activations scaled to a mean square norm of d.
        warm_up: Part of the steps in which the rate rises from 0.
        decay: Part of the steps, at the end, in which it falls to 0.
        seed: Fixes the initial weights and the order of rows.
        context_size: Tokens of the longest sequence the model sees.
        across_documents: Whether sequences run on from one document to the next.
        exclude_outliers: Whether rows of more than 3 times the median norm are left out.
        act_dtype: What rows are stored in, "float32" or "bfloat16".
        auxk_coefficient: Weight of the loss that revives dead features (TopK kinds); 0 is none.
        dead_after_tokens: A feature is dead that has not fired for so many rows.
        l0_target: Active features that JumpReLU's sparsity weight is steered to.
        l0_coefficient: What that weight is at first; it finds its own.
        l1_coefficient: Weight of the sparsity of standard and gated SAEs.
        bandwidth: Of JumpReLU's gradient estimator.
        prefixes: Widths of Matryoshka's nested dictionaries, the last being `d_sae`; None takes
            1/16, 1/8, 1/4, 1/2 and all.
        clip: Gradients of a larger norm are scaled down to it.
        checkpoint_every: Steps between checkpoints.
        log_every: Steps between lines of the log.
    """

    architecture: str = "topk"
    hook_name: str
    hook_name_out: str | None = None
    d_sae: int
    k: int | None = None
    n_tokens: int
    unique_tokens: int | None = None
    batch_size: int = 2048
    lr: float = 8e-4
    warm_up: float = 0.02
    decay: float = 0.3
    seed: int = 0
    context_size: int = 256
    across_documents: bool = False
    exclude_outliers: bool = True
    act_dtype: str = "float32"
    auxk_coefficient: float = 1 / 32
    dead_after_tokens: int = 250_000
    l0_target: float | None = None
    l0_coefficient: float = 0.0
    l1_coefficient: float = 3e-3
    bandwidth: float = 0.05
    prefixes: tuple[int, ...] | None = None
    clip: float = 1.0
    checkpoint_every: int = 250
    log_every: int = 10

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise ValueError(
                f"architecture = {self.architecture!r}: expected one of {', '.join(ARCHITECTURES)}"
            )
        for name in ("d_sae", "n_tokens", "batch_size", "checkpoint_every", "log_every"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} = {value!r}: expected a positive integer")
        for name in ("lr", "clip", "bandwidth"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} = {value!r}: expected a positive number")
        for name in ("warm_up", "decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} = {getattr(self, name)!r}: expected a part from 0 to 1")
        if self.n_tokens < self.batch_size:
            raise ValueError(f"n_tokens = {self.n_tokens} is below batch_size = {self.batch_size}")
        if self.selects_k and (self.k is None or not 1 <= self.k <= self.d_sae):
            raise ValueError(f"k = {self.k!r}: {self.architecture} needs one from 1 to d_sae")
        if self.is_transcoder and self.hook_name_out is None:
            raise ValueError(f"{self.architecture} needs hook_name_out, the hook it predicts")
        if not self.is_transcoder and self.hook_name_out not in (None, self.hook_name):
            raise ValueError(f"hook_name_out: {self.architecture} writes where it reads")
        if self.architecture.startswith("jumprelu") and self.l0_target is None:
            raise ValueError("l0_target: jumprelu needs the number of active features to aim at")
        if self.prefixes is not None and (
            list(self.prefixes) != sorted(set(self.prefixes)) or self.prefixes[-1] != self.d_sae
        ):
            raise ValueError("prefixes: expected ascending widths, the last of them d_sae")

    @property
    def selects_k(self) -> bool:
        return "topk" in self.architecture

    @property
    def is_transcoder(self) -> bool:
        return self.architecture.endswith("transcoder")

    @property
    def target_hook(self) -> str:
        """The hook that is predicted."""
        return self.hook_name_out or self.hook_name

    @property
    def n_steps(self) -> int:
        return self.n_tokens // self.batch_size

    def harvest_config(self, hook_names: tuple[str, ...]) -> HarvestConfig:
        """Returns what to harvest for dictionaries that share this one's text and contexts."""
        return HarvestConfig(
            hook_names=hook_names,
            n_tokens=self.unique_tokens or self.n_tokens,
            packing=Packing(self.context_size, self.across_documents),
            exclude_outliers=self.exclude_outliers,
            dtype=self.act_dtype,
        )

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> TrainConfig:
        """Reads a config. Raises ValueError naming a field that there is not."""
        known = {f.name: f for f in dataclasses.fields(cls)}
        for name in found:
            if name not in known:
                near = ", ".join(sorted(known))
                raise ValueError(f"unknown field {name!r}: expected some of {near}")
        for name in ("hook_name", "d_sae", "n_tokens"):
            if name not in found:
                raise ValueError(f"{name} is missing")
        values = dict(found)
        if isinstance(values.get("prefixes"), list):
            values["prefixes"] = tuple(values["prefixes"])
        return cls(**values)
