"""The settings of a training run, as data."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .optimizer import AdamWSettings

METHODS = ("sft", "lm", "rm", "dpo", "ppo", "grpo", "rloo")
SCHEDULES = ("constant", "linear", "cosine")
PREFERENCES = ("sigmoid", "ipo")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A run of training. Checked when made; raises ValueError naming the field.

    Attributes:
        method: "sft" (assistant tokens), "lm" (every token), "rm" (a reward model, of pairs), "dpo"
            (pairs), "ppo", "grpo" or "rloo" (sampled answers and a reward).
        steps: Steps of the optimiser.
        batch_size: Examples of a step: texts, pairs, or prompts.
        microbatch_size: Examples that are run at a time; None takes the whole batch. No bit
            depends on it.
        lr: The learning rate at its height.
        schedule: "constant", "linear" or "cosine", behind `warm_up`, a part of the steps.
        weight_decay, beta1, beta2, eps, clip: AdamW's (`AdamWSettings`).
        seed: Fixes the order of examples and what is sampled.
        max_length: Tokens that a text may have; longer ones are refused, "lm" cuts them.
        held_out: Examples that are not trained on; their loss is reported before and after.
        recompute: Whether backward computes blocks again instead of keeping activations.
        beta: DPO's, and the weight of the KL divergence to the first policy in "grpo" and "ppo".
        preference: DPO's loss, "sigmoid" or "ipo" (of length-normalised log-ratios).
        by_length: Whether DPO divides log-ratios by lengths.
        centering: Weight of the term that keeps a reward model's rewards about zero.
        samples: Answers to each prompt.
        max_new_tokens, temperature: Of those.
        epsilon: How far a ratio may be from 1 before its gradient stops.
        updates: Steps that "ppo" takes on each batch of answers; None takes 4, as TRL.
        gae_lambda, value_weight: The smoothing of advantages and the weight of the critic's loss in
            "ppo".
        max_kl: Ends the run once the policy is this far from the first one, in nats a token as
            "grpo" or "ppo" with a `beta` estimate it.
        checkpoint_every: Steps between checkpoints, at least: "ppo" ends a batch of answers first.
    """

    method: str
    steps: int
    batch_size: int = 8
    microbatch_size: int | None = None
    lr: float = 1e-5
    schedule: str = "linear"
    warm_up: float = 0.0
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    clip: float = 1.0
    seed: int = 0
    max_length: int = 1024
    held_out: int = 0
    recompute: bool = False
    beta: float | None = None
    preference: str = "sigmoid"
    by_length: bool = False
    centering: float = 0.0
    samples: int = 8
    max_new_tokens: int = 64
    temperature: float = 1.0
    epsilon: float = 0.2
    updates: int | None = None
    gae_lambda: float = 0.95
    value_weight: float = 0.1
    max_kl: float | None = None
    checkpoint_every: int = 50

    def __post_init__(self) -> None:
        _choice("method", self.method, METHODS)
        _choice("schedule", self.schedule, SCHEDULES)
        _choice("preference", self.preference, PREFERENCES)
        for name in ("steps", "batch_size", "max_length", "max_new_tokens", "checkpoint_every"):
            _at_least(name, getattr(self, name), 1)
        _at_least("samples", self.samples, 1 if self.method == "ppo" else 2)
        _at_least("held_out", self.held_out, 0)
        for name in ("microbatch_size", "updates"):
            if getattr(self, name) is not None:
                _at_least(name, getattr(self, name), 1)
        if self.updates is not None and self.method != "ppo":
            raise ValueError(f"updates = {self.updates}: method {self.method!r} takes one")
        for name in ("lr", "temperature", "clip", "eps", "epsilon"):
            _positive(name, getattr(self, name))
        for name in ("beta", "max_kl"):
            if getattr(self, name) is not None and getattr(self, name) != 0:
                _positive(name, getattr(self, name))
        if not 0 <= self.gae_lambda <= 1:
            raise ValueError(f"gae_lambda = {self.gae_lambda!r}: expected a number from 0 to 1")
        for name, below in (("warm_up", 1.0), ("beta1", 1.0), ("beta2", 1.0)):
            value = getattr(self, name)
            if not 0 <= value < below:
                raise ValueError(f"{name} = {value!r}: expected a number from 0 to below 1")
        for name in ("weight_decay", "centering", "value_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} = {getattr(self, name)!r}: expected 0 or more")
        if self.max_kl is not None and not self.kl_weight:
            raise ValueError("max_kl: is watched by 'grpo' and 'ppo' with a beta above 0 alone")

    @property
    def samples_answers(self) -> bool:
        """Whether the method trains on what the model itself wrote."""
        return self.method in ("ppo", "grpo", "rloo")

    def begins_round(self, step: int) -> bool:
        """Whether a step is the first one on its batch."""
        return (step - 1) % self._updates == 0

    def round_of(self, step: int) -> int:
        """Returns the batch, from 1, that a step learns from."""
        return (step - 1) // self._updates + 1

    def writes_checkpoint(self, step: int) -> bool:
        """Whether the run is kept after a step; never in the middle of a batch, nor at the end."""
        n, every = self._updates, self.checkpoint_every
        return step % n == 0 and step // every > (step - n) // every and step < self.steps

    @property
    def _updates(self) -> int:
        return (self.updates or 4) if self.method == "ppo" else 1

    @property
    def kl_weight(self) -> float:
        """The weight of the KL divergence in "grpo" and "ppo"; 0 and 0.05 by default, as in TRL."""
        if self.method == "ppo":
            return 0.05 if self.beta is None else self.beta
        return (self.beta or 0.0) if self.method == "grpo" else 0.0

    @property
    def dpo_beta(self) -> float:
        """DPO's beta; 0.1 by default, as in TRL."""
        return 0.1 if self.beta is None else self.beta

    @property
    def needs_reference(self) -> bool:
        """Whether the loss looks at the first policy."""
        return self.method == "dpo" or self.kl_weight > 0

    @property
    def microbatch(self) -> int:
        """Examples that are run at a time."""
        return min(self.batch_size, self.microbatch_size or self.batch_size)

    @property
    def optimizer(self) -> AdamWSettings:
        """The settings that are AdamW's."""
        names = [field.name for field in dataclasses.fields(AdamWSettings)]
        return AdamWSettings(**{name: getattr(self, name) for name in names})

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields by name."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """Reads what `to_dict` wrote. Raises ValueError for a name that is none."""
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(values.keys() - known):
            raise ValueError(
                f"{', '.join(unknown)}: no settings; there are {', '.join(sorted(known))}"
            )
        if missing := sorted({"method", "steps"} - values.keys()):
            raise ValueError(f"{', '.join(missing)}: missing")
        return cls(**values)


def _choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} = {value!r}: expected one of {', '.join(choices)}")


def _at_least(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} = {value!r}: expected a whole number, {least} or more")


def _positive(name: str, value: Any) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not value > 0:
        raise ValueError(f"{name} = {value!r}: expected a number above 0")
