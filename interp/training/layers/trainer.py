"""The training loop over every layer: interrupted or not with the same bits.

Shapes: L layers, B rows of a step, F features, d d_model.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ....model.training.log import TrainingLog
from ...dictionaries import kernels
from ..parameters import Parameters
from ..trainer import TrainingDiverged, schedule
from .calibration import Calibration, calibrate
from .checkpoint import LayersCheckpoint
from .config import LayersTrainConfig
from .objective import Predicted, gradients, output_gradient, predict
from .stream import LayerRows, RowStream

Report = Callable[[dict[str, Any]], None]
"""Called with each line of the log."""

_WATCHED_STEPS = 20
_FIRST_THRESHOLD = 0.1


class LayersTrainer:
    """Transcoders of every layer under training.

    Memory: 12 bytes a weight (the weight and Adam's two moments), the gradients of one layer, and
    for each row of a step about 12 * L * d bytes of inputs, targets and errors.

    Attributes:
        layers: W_enc [F, d], b_enc [F], W_dec [F, n * d] of each layer, n the layers it writes to.
        outputs: b_dec [L, d].
    """

    def __init__(self, config: LayersTrainConfig, stream: RowStream, folder: Path) -> None:
        """Takes up the checkpoint in `folder`, if there is one.

        Raises ValueError for a checkpoint of another config.
        """
        self.config, self.stream = config, stream
        self.step = 0
        self.n_tokens = self.n_excluded = 0
        self.calibration: Calibration = calibrate(stream, folder)
        self.layers = initial_layers(config, self.calibration)
        mean = self.calibration.y_mean * self.calibration.y_scale[:, None]
        self.outputs = Parameters({"b_dec": mean}, unit_decoder=False)
        self.last_fired = torch.zeros(
            len(self.layers), config.d_sae, dtype=torch.int64, device="cpu"
        )
        self._first_loss = math.nan
        self._log = TrainingLog(folder)
        self._checkpoint = LayersCheckpoint(folder, config)
        if (found := self._checkpoint.read([*self.layers, self.outputs])) is not None:
            more, state = found
            self.last_fired.copy_(more["last_fired"])
            self.step, self._first_loss = state["step"], state["first_loss"]
            self.n_tokens, self.n_excluded = state["n_tokens"], state["n_excluded"]

    def run(self, report: Report | None = None, *, until: int | None = None) -> None:
        """Trains from where the last checkpoint was to the end, or to step `until`."""
        last = self.config.n_steps if until is None else min(until, self.config.n_steps)
        self._log.begin(self.step)
        batches = self.stream.batches(self.step)
        while self.step < last:
            began = time.monotonic()
            batch = next(batches)
            rows = self.stream.read(batch, self.calibration.limits)
            line = self._advance(rows, batch.n_tokens)
            line["tokens_per_s"] = round(batch.n_tokens / (time.monotonic() - began), 1)
            if self.step % self.config.log_every == 0 or self.step in (1, last):
                self._log.write(line)
                if report is not None:
                    report(line)
            if self.step % self.config.checkpoint_every == 0 or self.step == last:
                self.save()

    def save(self) -> None:
        """Writes a checkpoint."""
        state = {
            "step": self.step,
            "first_loss": self._first_loss,
            "n_tokens": self.n_tokens,
            "n_excluded": self.n_excluded,
        }
        parts = [*self.layers, self.outputs]
        self._checkpoint.write(parts, {"last_fired": self.last_fired}, state)

    def end(self) -> None:
        """Removes the checkpoint of a run that has ended."""
        self._checkpoint.remove()

    def digest(self) -> str:
        """Returns the SHA-256 of the weights."""
        digest = hashlib.sha256()
        for part in (*self.layers, self.outputs):
            for name in sorted(part.values):
                digest.update(part[name].numpy().data)
        return digest.hexdigest()

    def _advance(self, rows: LayerRows, n_tokens: int) -> dict[str, Any]:
        config, scales = self.config, self.calibration
        if not len(rows.y):
            raise ValueError("a batch holds outliers alone; exclude_outliers=False keeps them")
        x = [each.mul_(float(scales.x_scale[i])) for i, each in enumerate(rows.x)]
        y = rows.y.view(len(rows.y), len(x), -1).mul_(scales.y_scale[None, :, None])
        predicted = predict(config, self.layers, self.outputs["b_dec"], x, y.flatten(1))
        loss = math.fsum(predicted.nmse) / len(x)
        self._watch(loss)
        rate = schedule(config, self.step)
        sparsity = config.l0_coefficient * (self.step + 1) / config.n_steps
        norms = []
        found = gradients(config, self.layers, predicted, x, sparsity)
        for layer, each in zip(self.layers, found, strict=True):
            norms.append(layer.step(each, config.lr * rate, config.clip))
        bias = output_gradient(predicted, len(x))
        norms.append(self.outputs.step(bias, config.lr * rate, config.clip))
        self.step += 1
        self.n_tokens += n_tokens
        self.n_excluded += rows.n_excluded
        return self._line(predicted, loss, rate, norms, len(rows.y))

    def _line(
        self, predicted: Predicted, loss: float, rate: float, norms: list[float], n_rows: int
    ) -> dict[str, Any]:
        active = 0
        for i, each in enumerate(predicted.encoded):
            fired = each.entries.indices[each.values > 0].long()
            active += len(fired)
            self.last_fired[i, fired] = self.step
        return {
            "step": self.step,
            "tokens": self.n_tokens,
            "excluded": self.n_excluded,
            "loss": loss,
            "nmse": [round(each, 5) for each in predicted.nmse],
            "explained_variance": 1 - loss,
            "l0": active / (n_rows * len(self.layers)),
            "dead": int((self.last_fired == 0).sum()),
            "lr": self.config.lr * rate,
            "gradient_norm": math.fsum(norms) / len(norms),
        }

    def _watch(self, loss: float) -> None:
        if self.step == 0:
            self._first_loss = loss
        if math.isfinite(loss) and (self.step < _WATCHED_STEPS or loss < 4 * self._first_loss):
            return
        raise TrainingDiverged(
            f"step {self.step}: the loss is {loss:.4g}, after {self._first_loss:.4g} at the first "
            f"step; lower lr (now {self.config.lr:g}) or raise warm_up; the last checkpoint is kept"
        )


def initial_layers(config: LayersTrainConfig, scales: Calibration) -> list[Parameters]:
    """Returns what a run begins with: encoders of random directions, which are 0 at the mean of
    what they read, and decoders of 0."""
    generator = torch.Generator().manual_seed(config.seed)
    n_layers, d = scales.x_mean.shape
    layers = []
    for i in range(n_layers):
        encoder = torch.randn(
            config.d_sae, d, generator=generator, dtype=torch.float32, device="cpu"
        )
        kernels.unit_rows_(encoder)
        mean = scales.x_mean[i : i + 1] * scales.x_scale[i]
        values = {
            "W_enc": encoder,
            "b_enc": -kernels.dense(mean, encoder, None)[0],
            "W_dec": torch.zeros(
                config.d_sae, config.reach(i, n_layers) * d, dtype=torch.float32, device="cpu"
            ),
        }
        if config.activation == "jumprelu":
            values["threshold"] = torch.full(
                (config.d_sae,), _FIRST_THRESHOLD, dtype=torch.float32, device="cpu"
            )
        layers.append(Parameters(values, unit_decoder=False))
    return layers
