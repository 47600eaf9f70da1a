"""The training loop: batches in, a dictionary out, interrupted or not with the same bits.

Shapes: B rows of a batch, F features, d width.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from ...model.training.log import TrainingLog
from ...model.training.state_file import StateFile
from ..activations.store import ActivationStore
from ..dictionaries import Dictionary, kernels
from .config import TrainConfig
from .finish import to_dictionary
from .objectives import Outcome, objective_of, squared_sum
from .parameters import Parameters

Report = Callable[[dict[str, Any]], None]
"""Called with each line of the log."""

CHECKPOINT = "checkpoint.safetensors"
HASHED_STEP = 100
_WATCHED_STEPS = 50
_FIRST_THRESHOLD = 0.1


class TrainingDiverged(ArithmeticError):
    """A loss that is no number, or far above where it began; says at which step and what to try."""


@dataclass
class Scaling:
    """Scales activations to a mean square norm of d, for transcoders on both sides.

    Attributes:
        x: Factor on the input.
        y: Factor on the target.
    """

    x: float
    y: float


class Trainer:
    """One dictionary under training."""

    def __init__(self, config: TrainConfig, store: ActivationStore, folder: Path) -> None:
        """Takes up the checkpoint in `folder`, if there is one.

        Raises ValueError for a checkpoint of another config.
        """
        self.config = config
        self.store = store
        self.step = 0
        self.objective = objective_of(config)
        self.last_fired = torch.zeros(config.d_sae, dtype=torch.int64, device="cpu")
        self._first_loss = math.nan
        self._checkpoint = StateFile(folder / CHECKPOINT, config.to_dict())
        self._log = TrainingLog(folder)
        sample = store.sample(1 << 15)
        x, y = sample[config.hook_name], sample[config.target_hook]
        self.scaling = Scaling(_scale(x), _scale(y))
        # What explained variance is measured against: the rows about their own mean.
        self._variance = squared_sum(y - row_mean(y)) / y.numel() * self.scaling.y**2
        # Weights are about 1 / sqrt(d) and thresholds about 1: so are Adam's steps.
        self.parameters = Parameters(
            initial_values(config, x * self.scaling.x, y * self.scaling.y),
            rates={"threshold": math.sqrt(x.shape[1])},
        )
        if (found := self._checkpoint.read()) is not None:
            self._restore(*found)

    def run(self, report: Report | None = None, *, until: int | None = None) -> None:
        """Trains from where the last checkpoint was to the end, or to step `until`."""
        last = self.config.n_steps if until is None else min(until, self.config.n_steps)
        batches = self.store.batches(self.config.batch_size, self.config.seed, self.step)
        self._log.begin(self.step)
        began, first = time.monotonic(), self.step
        while self.step < last:
            batch = next(batches)
            outcome, lr, norm = self._advance(batch)
            if self.step % self.config.log_every == 0 or self.step in (1, HASHED_STEP, last):
                line = self._line(outcome, lr, norm)
                line["rows_per_s"] = round(
                    (self.step - first) * self.config.batch_size / (time.monotonic() - began), 1
                )
                self._log.write(line)
                if report is not None:
                    report(line)
            if self.step % self.config.checkpoint_every == 0 or self.step == last:
                self.save()

    def save(self) -> None:
        """Writes a checkpoint."""
        tensors = self.parameters.tensors() | {"last_fired": self.last_fired}
        self._checkpoint.write(
            tensors,
            {
                "step": self.step,
                "objective": self.objective.state,
                "first_loss": self._first_loss,
            },
        )

    def dictionary(self, metadata: dict[str, Any]) -> Dictionary:
        """Returns the dictionary as it is now, for activations as they are, unscaled."""
        return to_dictionary(
            self.config,
            self.parameters,
            self.objective.state,
            self.scaling.x,
            self.scaling.y,
            metadata,
        )

    def digest(self) -> str:
        """Returns the SHA-256 of the weights."""
        digest = hashlib.sha256()
        for name in sorted(self.parameters.values):
            digest.update(self.parameters[name].numpy().data)
        return digest.hexdigest()

    def _advance(self, batch: dict[str, torch.Tensor]) -> tuple[Outcome, float, float]:
        x = batch[self.config.hook_name] * self.scaling.x
        y = batch[self.config.target_hook] * self.scaling.y
        seen = self.step * self.config.batch_size
        dead = seen - self.last_fired > self.config.dead_after_tokens
        outcome = self.objective(self.parameters, x, y, dead)
        lr = self.config.lr * schedule(self.config, self.step)
        loss = outcome.squared_error / y.numel()
        self._watch(loss)
        norm = self.parameters.step(outcome.gradients, lr, self.config.clip)
        outcome.gradients.clear()  # or they would be held during the next batch's
        self.step += 1
        self.last_fired[outcome.fired] = self.step * self.config.batch_size
        return outcome, lr, norm

    def _watch(self, loss: float) -> None:
        if self.step == 0:
            self._first_loss = loss
        if math.isfinite(loss) and (self.step < _WATCHED_STEPS or loss < 4 * self._first_loss):
            return
        raise TrainingDiverged(
            f"step {self.step}: the loss is {loss:.4g}, after {self._first_loss:.4g} at the first "
            f"step; lower lr (now {self.config.lr:g}) or raise warm_up; the last checkpoint is kept"
        )

    def _line(self, outcome: Outcome, lr: float, norm: float) -> dict[str, Any]:
        rows = self.config.batch_size
        width = self.parameters["b_dec"].numel()
        mse = outcome.squared_error / (rows * width)
        seen = self.step * rows
        dead = int((seen - self.last_fired > self.config.dead_after_tokens).sum())
        line: dict[str, Any] = {
            "step": self.step,
            "rows": seen,
            "loss": mse,
            "explained_variance": 1 - mse / self._variance,
            "l0": outcome.l0,
            "dead": dead,
            "lr": lr,
            "gradient_norm": norm,
            **outcome.parts,
        }
        if self.step == HASHED_STEP:
            line["weights_sha256"] = self.digest()
        return line

    def _restore(self, tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
        self.step = state["step"]
        self.parameters.restore(tensors, self.step)
        self.last_fired.copy_(tensors["last_fired"])
        self.objective.state.update(state["objective"])
        self._first_loss = state["first_loss"]


class Scheduled(Protocol):
    """The settings that a learning rate's course depends on."""

    @property
    def n_steps(self) -> int: ...

    @property
    def warm_up(self) -> float: ...

    @property
    def decay(self) -> float: ...


def schedule(config: Scheduled, step: int) -> float:
    """Returns the part of the learning rate at a step: a linear rise, level, a linear fall."""
    n = config.n_steps
    rise = max(1, round(config.warm_up * n))
    fall = max(1, round(config.decay * n))
    return min(1.0, (step + 1) / rise, (n - step) / fall)


def _scale(x: torch.Tensor) -> float:
    """The factor that makes the mean square norm of rows their width."""
    mean_square = squared_sum(x) / x.numel()
    if not math.isfinite(mean_square) or mean_square == 0:
        raise ValueError("the activations are all zero, or not finite")
    return 1 / math.sqrt(mean_square)


def row_mean(x: torch.Tensor) -> torch.Tensor:
    """Returns the mean of the rows of x, [d], summed in the kernels' order."""
    return kernels.column_sums(x) / len(x)


def initial_values(
    config: TrainConfig, x: torch.Tensor, y: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Returns what a run begins with, for scaled rows x and targets y.

    The decoder has random rows of norm 1, the encoder the same (a transcoder's its own), and b_dec
    is the mean of the target.
    """
    generator = torch.Generator().manual_seed(config.seed)
    n, d_in, d_out = config.d_sae, x.shape[1], y.shape[1]
    decoder = torch.randn(n, d_out, generator=generator, dtype=torch.float32, device="cpu")
    kernels.unit_rows_(decoder)
    if config.is_transcoder:
        encoder = torch.randn(n, d_in, generator=generator, dtype=torch.float32, device="cpu")
        kernels.unit_rows_(encoder)
    else:
        encoder = decoder.clone()
    values = {"W_enc": encoder, "W_dec": decoder, "b_dec": row_mean(y)}
    if config.architecture == "gated":
        values |= {
            name: torch.zeros(n, dtype=torch.float32, device="cpu")
            for name in ("b_gate", "b_mag", "r_mag")
        }
    else:
        values["b_enc"] = torch.zeros(n, dtype=torch.float32, device="cpu")
    if config.architecture.startswith("jumprelu"):
        values["threshold"] = torch.full((n,), _FIRST_THRESHOLD, dtype=torch.float32, device="cpu")
    if config.architecture.endswith("skip_transcoder"):
        values["W_skip"] = torch.zeros(d_out, d_in, dtype=torch.float32, device="cpu")
    return values
