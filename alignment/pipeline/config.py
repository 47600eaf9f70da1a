"""The settings of a run of Constitutional AI, as data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...model.sources.settings_file import read_table
from ...model.training import TrainConfig
from ..rewards import WEIGHTS

STANDIN = "standin"
SOURCES = ("model", "planted")
PAIRS = ("samples", "revised")


@dataclass(frozen=True, kw_only=True)
class CaiConfig:
    """A run of all stages. Checked when made; raises ValueError naming the field.

    Attributes:
        model: As `bitlens.load` takes it.
        dtype: A precision policy that has native kernels; None takes the default.
        seed: Fixes every draw, sample and order.
        constitution: As `Constitution.load` takes it.
        prompts: "standin", or a JSONL file of prompts to train on.
        held_out: With a file of prompts: a JSONL file of other ones, with "kind", whose answers
            are judged before and after.
        gate: With a file of prompts: a JSONL file of pairs whose better answer is known.
        helpful: With a file of prompts: a JSONL file of helpful ones, which SL-CAI is trained on
            beside the revisions: with their "answer", or with what the first model answers them.
        reviser, judge: "model", or "planted", which knows the stand-in's rules.
        n_prompts, n_helpful, n_gate, n_held_out: Of the stand-in: prompts to train on, helpful ones
            beside them, pairs of the gate, and prompts of each cell.
        rounds, critique: Of the revision.
        ablation: Whether answers are also revised without a critique, to compare; nothing is
            trained on these.
        n_read: Held-out prompts of each kind that each stage's distance is measured on and, with
            `insides`, the model is read on before and after.
        insides: Whether it is read.
        dictionary: One of the model's sparse dictionaries, as `load_dictionary` takes it, whose
            features are compared between better and worse answers, with `insides`.
        max_new_tokens, temperature: Of answers, critiques and revisions.
        pairs: "samples" compares two answers of the SL-CAI model; "revised" calls the last revision
            better than the answer, unasked, which is Hugging Face's shortcut.
        iterations: Rounds of preferences. Before each further one the model is asked new prompts to
            train on; those that it answers as it should not join the round's, whose pairs, labels,
            gate and reward models are made anew. Held-out prompts never do.
        n_red_team: Of the stand-in: new prompts before each of these rounds.
        red_team: With a file of prompts: a JSONL file of new ones, with "kind".
        ungated: Trains on labels that the gate stops, and says so everywhere.
        sl, rl: Settings of `TrainConfig`; `rl` has a method, "dpo", "ppo", "grpo" or "rloo".
        rm: Settings of the reward models, which every method but "dpo" has.
        rewards: JSONL files of pairs, by "helpfulness", "honesty" or "coherence", which become
            rewards beside harmlessness.
        weights: Of the normalised rewards.
    """

    model: str
    dtype: str | None = None
    seed: int = 0
    constitution: str = "default"
    prompts: str = STANDIN
    held_out: str | None = None
    gate: str | None = None
    helpful: str | None = None
    reviser: str = "model"
    judge: str = "model"
    n_prompts: int = 240
    n_helpful: int = 160
    n_gate: int = 150
    n_held_out: int = 100
    rounds: int = 4
    critique: bool = True
    ablation: bool = True
    n_read: int = 8
    insides: bool = True
    dictionary: str | None = None
    max_new_tokens: int = 64
    temperature: float = 1.0
    pairs: str = "samples"
    iterations: int = 1
    n_red_team: int = 120
    red_team: str | None = None
    ungated: bool = False
    sl: Mapping[str, Any] = field(default_factory=lambda: {"steps": 100, "lr": 1e-5})
    rl: Mapping[str, Any] = field(
        default_factory=lambda: {"method": "dpo", "steps": 60, "lr": 1e-6}
    )
    rm: Mapping[str, Any] = field(default_factory=lambda: {"steps": 60, "lr": 1e-5})
    rewards: Mapping[str, str] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=lambda: dict(WEIGHTS))

    def __post_init__(self) -> None:
        for name in ("reviser", "judge"):
            _choice(name, getattr(self, name), SOURCES)
        _choice("pairs", self.pairs, PAIRS)
        for name in ("n_prompts", "n_red_team", "n_gate", "n_held_out", "max_new_tokens"):
            if getattr(self, name) < 4:
                raise ValueError(f"{name} = {getattr(self, name)!r}: expected 4 or more")
        for name, least in (("rounds", 1), ("n_helpful", 0), ("n_read", 2), ("iterations", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} = {getattr(self, name)}: expected {least} or more")
        if self.prompts != STANDIN:
            for name in ("held_out", "gate"):
                if getattr(self, name) is None:
                    raise ValueError(f"{name}: missing; prompts of one's own need a file of them")
            if "planted" in (self.reviser, self.judge):
                raise ValueError("planted: knows the stand-in's rules alone; take 'model'")
        for name in ("helpful", "red_team"):
            if self.prompts == STANDIN and getattr(self, name) is not None:
                raise ValueError(f"{name}: goes with a file of prompts; the stand-in has n_{name}")
        if self.iterations > 1 and self.pairs == "revised":
            raise ValueError('iterations: go on from answers of the model; take pairs = "samples"')
        if self.dictionary is not None and not self.insides:
            raise ValueError("dictionary: is read with insides alone; take insides = true")
        if unknown := sorted(
            set(self.rewards) - set(WEIGHTS) | set(self.rewards) & {"harmlessness"}
        ):
            raise ValueError(f"rewards: {unknown[0]!r} is none of helpfulness, honesty, coherence")
        _choice("rl, method", self.rl.get("method"), ("dpo", "ppo", "grpo", "rloo"))
        for name in ("sl", "rl", "rm"):
            self.training(name)

    def training(self, name: str) -> TrainConfig:
        """Returns the settings of a stage of training, "sl", "rl" or "rm"."""
        method = {"sl": {"method": "sft"}, "rl": {}, "rm": {"method": "rm"}}[name]
        try:
            return TrainConfig.from_dict({"seed": self.seed, **getattr(self, name), **method})
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name}: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields by name."""
        return asdict(self)

    @classmethod
    def read(cls, config: str | Path | Mapping[str, Any] | CaiConfig) -> CaiConfig:
        """Reads a TOML or JSON file, or settings by name.

        Raises ValueError naming a field that is none, is missing or wrong.
        """
        if isinstance(config, CaiConfig):
            return config
        if isinstance(config, Mapping):
            return cls._of(config)
        path = Path(config)
        found = read_table(path)
        try:
            return cls._of(found)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error

    @classmethod
    def _of(cls, values: Mapping[str, Any]) -> CaiConfig:
        known = [each.name for each in dataclasses.fields(cls)]
        if unknown := sorted(values.keys() - set(known)):
            raise ValueError(f"{unknown[0]}: no setting; there are {', '.join(known)}")
        if "model" not in values:
            raise ValueError("model: missing")
        return cls(**values)


def _choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} = {value!r}: expected one of {', '.join(choices)}")
