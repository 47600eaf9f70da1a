"""`train`: from a model, data and a config to trained weights on disk.

What is in the output folder: config.json, log.jsonl, checkpoint.safetensors (until the end), and
weights.safetensors with run.json at the end.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..load import load
from ..text.prompts import require_tokenizer
from ..transformer import HookedTransformer
from ..weights.atomic import write_json
from ..weights.low_rank import LowRankWeights
from ..weights.trained import TrainedWeights
from .answers import RewardFunction
from .checkpoint import RunCheckpoint
from .config import TrainConfig
from .dataset import Dataset
from .examples import ExampleReader, Row, read_rows
from .log import TrainingLog
from .method import Method
from .optimizer import AdamW, learning_rate
from .policy_gradient import PolicyGradient
from .preference import Preference
from .proximal import Proximal
from .reward_model import Reward
from .supervised import Supervised

CHECKPOINT, WEIGHTS, RUN = "checkpoint.safetensors", "weights.safetensors", "run.json"

Evaluate = Callable[[HookedTransformer], Mapping[str, float]]
Progress = Callable[[int, int, dict[str, Any]], None]
"""Called with the step, the number of steps, and the step's line of the log."""


@dataclass(frozen=True, eq=False)
class TrainRun:
    """A run that has ended.

    Attributes:
        checkpoint: The weights, fp32 safetensors under a checkpoint's names (`load_weights`).
        weights_digest: Their `model.fingerprint()`.
        metrics: The lines of log.jsonl, one a step.
        before, after: What held-out examples and `evaluate` say of the first and last weights.
        stopped: "steps", or "kl" where the policy went too far from the first one.
    """

    checkpoint: Path
    weights_digest: str
    metrics: list[dict[str, Any]]
    before: dict[str, float]
    after: dict[str, float]
    stopped: str


def train(
    model: HookedTransformer,
    config: TrainConfig,
    *,
    data: str | Path | Iterable[Row],
    output: str | Path,
    reward: RewardFunction | None = None,
    evaluate: Evaluate | None = None,
    resume: bool = True,
    progress: Progress | None = None,
) -> TrainRun:
    """Trains a model in place.

    A run that was interrupted, however it ended, goes on from its last checkpoint with the bits of
    a run that was not: load the model as before and call this with the same arguments.

    Args:
        model: Loaded with `trainable`.
        data: A JSONL file, or its rows (docs/training.md has the formats).
        output: The folder of this run; made here.
        reward: For methods that sample answers, as TRL's reward functions.
        evaluate: Called with the model before and after; returns numbers by name.
        resume: False begins anew.
        progress: Called after each step.

    Raises:
        ValueError: a model that cannot be trained, rows or settings that do not fit the method, a
            folder of another run, model or data, a reward that is no number.
        FloatingPointError: a loss or gradient that is not finite; no weight was moved by it.
        OSError: the disk is full; the last checkpoint is whole.
    """
    if model.trained is None:
        raise ValueError('train: load the model with trainable="full" or "lora"')
    if (reward is None) is config.samples_answers:
        needs = "needs a reward" if config.samples_answers else "takes no reward"
        raise ValueError(f"reward: method {config.method!r} {needs}")
    rows, folder = read_rows(data), Path(output)
    method = _method(model, config, reward)
    dataset = _dataset(model, config, method, rows)
    folder.mkdir(parents=True, exist_ok=True)
    if not resume:
        for name in (CHECKPOINT, WEIGHTS, RUN, "log.jsonl"):
            (folder / name).unlink(missing_ok=True)
    identity = {
        "config": config.to_dict(),
        "model": model.fingerprint(),
        "policy": model.ops.policy.name,
        "data": hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest(),
    }
    write_json(folder / "config.json", config.to_dict())
    run = _Run(model, model.trained, config, method, dataset, folder, identity, evaluate)
    return run.finished() or run.run(progress)


class _Run:
    """One run, from its last checkpoint to its end."""

    def __init__(
        self,
        model: HookedTransformer,
        weights: TrainedWeights,
        config: TrainConfig,
        method: Method,
        dataset: Dataset[Any],
        folder: Path,
        identity: Mapping[str, Any],
        evaluate: Evaluate | None,
    ) -> None:
        self._model, self._weights, self._config = model, weights, config
        self._method, self._dataset, self._folder = method, dataset, folder
        self._evaluate = evaluate
        self._log = TrainingLog(folder)
        self._checkpoint = RunCheckpoint(folder / CHECKPOINT, identity)
        self._end = RunCheckpoint(folder / WEIGHTS, identity)

    def finished(self) -> TrainRun | None:
        """The result of a run that has ended, if this is its folder; its weights are in place."""
        if not (self._folder / RUN).exists() or self._end.read(self._weights) is None:
            return None
        found = json.loads((self._folder / RUN).read_text(encoding="utf-8"))
        return self._result(found["before"], found["after"], found["stopped"])

    def run(self, progress: Progress | None) -> TrainRun:
        config, optimizer = self._config, AdamW(self._weights, self._config.optimizer)
        state = self._checkpoint.read(self._weights, optimizer)
        if state is None:
            state = {"step": 0, "n_steps": 0, "before": self._measured()}
        optimizer.n_steps, before = state["n_steps"], state["before"]
        self._log.begin(state["step"])
        recomputed = self._model.forward_pass.recomputes
        self._model.forward_pass.recomputes = config.recompute
        stopped = "steps"
        try:
            for step in range(state["step"] + 1, config.steps + 1):
                line = self._advance(step, optimizer)
                self._log.write(line)
                if progress is not None:
                    progress(step, config.steps, line)
                if config.max_kl is not None and line["kl"] > config.max_kl:
                    stopped = "kl"
                    break
                if config.writes_checkpoint(step):
                    kept = {"step": step, "n_steps": optimizer.n_steps, "before": before}
                    self._checkpoint.write(self._weights, kept, optimizer)
        finally:
            self._model.forward_pass.recomputes = recomputed
            self._weights.clear_gradients()
        return self._ended(before, stopped)

    def _advance(self, step: int, optimizer: AdamW) -> dict[str, Any]:
        """Takes one step; returns its line of the log."""
        began, config = time.monotonic(), self._config
        self._weights.clear_gradients()
        batch = self._dataset.batch(config.round_of(step), config.batch_size)
        metrics, learns = self._method.backward(batch, step)
        rate = learning_rate(
            step, config.steps, peak=config.lr, schedule=config.schedule, warm_up=config.warm_up
        )
        norm = optimizer.step(self._weights.gradients(), rate) if learns else 0.0
        seconds = time.monotonic() - began
        return {
            "step": step,
            **metrics,
            "lr": rate,
            "grad_norm": norm,
            "skipped": not learns,
            "seconds": round(seconds, 3),
            "tokens_per_s": round(metrics["tokens"] / max(seconds, 1e-9), 1),
        }

    def _measured(self) -> dict[str, float]:
        found: dict[str, float] = {}
        if self._dataset.held_out:
            found |= self._method.held_out(self._dataset.held_out)
        if self._evaluate is not None:
            found |= self._evaluate(self._model)
        return found

    def _ended(self, before: dict[str, float], stopped: str) -> TrainRun:
        after = self._measured()
        self._end.write(self._weights, {})
        found = {"before": before, "after": after, "stopped": stopped}
        write_json(self._folder / RUN, {**found, "weights_digest": self._model.fingerprint()})
        (self._folder / CHECKPOINT).unlink(missing_ok=True)
        return self._result(before, after, stopped)

    def _result(self, before: dict[str, float], after: dict[str, float], stopped: str) -> TrainRun:
        digest, path = self._model.fingerprint(), self._folder / WEIGHTS
        return TrainRun(path, digest, self._log.read(), before, after, stopped)


def _method(model: HookedTransformer, config: TrainConfig, reward: RewardFunction | None) -> Method:
    reference = None
    if config.needs_reference:  # made now, from weights that are the first ones still
        reference = _copy(model)
    if config.method == "dpo":
        assert reference is not None, "DPO looks at the first policy"
        return Preference(model, reference, config)
    if config.method == "rm":
        return Reward(model, config)
    if config.samples_answers:
        assert reward is not None, "checked before"
        kind = Proximal if config.method == "ppo" else PolicyGradient
        return kind(model, reference, config, reward)
    return Supervised(model, config)


def _copy(model: HookedTransformer) -> HookedTransformer:
    """A model of the weights of the moment, which this one's training does not reach."""
    weights, dtype = model.trained, model.ops.policy.name
    assert weights is not None, "checked before"
    if not isinstance(weights, LowRankWeights):
        return load(weights.checkpoint(), dtype=dtype)
    copied = load(weights.base, dtype=dtype, trainable=weights.settings)
    assert copied.trained is not None, "loaded so"
    for name, x in copied.trained.values.items():
        x.copy_(weights.values[name])
    copied.trained.rewrite()
    return copied


def _dataset(
    model: HookedTransformer, config: TrainConfig, method: Method, rows: Sequence[Row]
) -> Dataset[Any]:
    longest = min(config.max_length, model.config.n_ctx)
    if config.samples_answers:
        longest = min(longest, model.config.n_ctx - config.max_new_tokens + 1)
    reader = ExampleReader(require_tokenizer(model.tokenizer), longest)
    examples: list[Any] = []
    for number, row in enumerate(rows, start=1):
        try:
            examples += method.examples(row, reader)
        except (TypeError, ValueError) as error:
            raise ValueError(f"data, row {number}: {error}") from error
    return Dataset(examples, held_out=config.held_out, seed=config.seed)
