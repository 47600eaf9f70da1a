"""The stages of Constitutional AI, one after another, each going on where it was killed."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from ...model.load import load
from ...model.text.prompts import require_tokenizer
from ...model.training import TrainRun, load_weights, train
from ...model.transformer import HookedTransformer
from ...model.weights.atomic import write_json
from ..constitution import Constitution
from ..planted import PlantedJudge, PlantedReviser
from ..preferences import Gate, Judge, Labels, gate, label
from ..preferences.pairs import AnswerPair, read_pairs
from ..revision import Reviser, revise, sft_rows
from ..revision.targets import as_prompt
from ..rewards import Merit
from ..row_file import Row
from .behaviour import answers
from .config import CaiConfig
from .data import CaiData, read_data
from .reward import SummedReward, pair_rows, trained_reward
from .samples import revised_pairs, sampled_pairs

Say = Callable[[str], None]
"""Called with the name of each stage when it begins."""


class Stages:
    """One run's stages. Each reads what those before it have left in the folder."""

    def __init__(self, config: CaiConfig, folder: Path, say: Say) -> None:
        self.config, self.folder, self._say = config, folder, say
        self.model = self._fresh()
        self.first_digest = self.model.fingerprint()
        self.constitution = Constitution.load(config.constitution)
        tokenizer = require_tokenizer(self.model.tokenizer)
        self.constitution.require_plain(tokenizer)
        self.chat = tokenizer.chat_template is not None
        self.data: CaiData = read_data(config, tokenizer)

    def behaviour(self, stage: str) -> list[Row]:
        """Returns the answers of the model of the moment to all held-out prompts."""
        self._say(f"answers, {stage}")
        return answers(
            self.model,
            self.data.cells,
            self.folder / f"answers-{stage}.jsonl",
            max_new_tokens=self.config.max_new_tokens,
            chat=self.chat,
            ungated=self.config.ungated and stage == "rl",
        )

    def revisions(self) -> list[Row]:
        """Returns the answers and revisions of the first model."""
        self._say("critique and revision")
        config = self.config
        return revise(
            self.model,
            self.constitution,
            self.data.prompts,
            rounds=config.rounds,
            seed=config.seed,
            output=self.folder / "revisions.jsonl",
            critique=config.critique,
            reviser=self._reviser(),
            max_new_tokens=config.max_new_tokens,
            temperature=config.temperature,
        )

    def supervised(self, revisions: Sequence[Row]) -> TrainRun:
        """Trains the model on every revision."""
        self._say("SL-CAI")
        rows = sft_rows(revisions, chat=self.chat)
        return train(self.model, self.config.training("sl"), data=rows, output=self.folder / "sl")

    def pairs(self, revisions: Sequence[Row]) -> list[Row]:
        """Returns pairs of answers to the prompts that are trained on."""
        config = self.config
        if config.pairs == "revised":
            return revised_pairs(revisions)
        self._say("two answers to each prompt")
        return sampled_pairs(
            self.model,
            self.data.prompts,
            self.folder / "pairs.jsonl",
            seed=config.seed,
            max_new_tokens=config.max_new_tokens,
            temperature=config.temperature,
            chat=self.chat,
            ungated=config.ungated,
        )

    def gated(self) -> tuple[Labels, Gate]:
        """Returns the judge's labels of the gate's pairs, and whether they may be trained on."""
        self._say("the gate")
        labels = self._labels([dict(p.row) for p in self.data.gate], "gate-labels.jsonl", None)
        pairs = self.data.gate
        found = gate(
            labels,
            [float(p.truth) for p in pairs if p.truth is not None],
            clusters=[p.cluster for p in pairs],
        )
        write_json(
            self.folder / "gate.json",
            {**found.to_dict(), "form": labels.form, "ungated": self.config.ungated,
             "constitution": self.constitution.digest, "summary": labels.summary.to_dict()},
        )  # fmt: skip
        return labels, found

    def labelled(self, pairs: Sequence[Row], form: str) -> list[AnswerPair]:
        """Returns the pairs with the judge's labels as their truths."""
        self._say("AI labels")
        rows = [{**row, "id": f"{row['id']} sampled"} for row in pairs]
        if self.config.pairs == "revised":
            return [dataclasses.replace(pair, truth=1.0) for pair in read_pairs(rows)]
        labels = self._labels(rows, "labels.jsonl", form or None)
        return [
            dataclasses.replace(pair, truth=p)
            for pair, p in zip(read_pairs(rows), labels.p_a, strict=True)
        ]

    def rewards(self, labelled: Sequence[AnswerPair]) -> tuple[SummedReward, dict[str, Merit]]:
        """Trains the reward models of RL."""
        self._say("reward models")
        config = self.config
        pairs: dict[str, Any] = {"harmlessness": (labelled, self.data.gate)}
        for name, file in config.rewards.items():
            own = read_pairs(file, self.model.tokenizer)
            pairs[name] = own[len(own) // 4 :], own[: len(own) // 4]
        found, merits = trained_reward(
            lambda: self._fresh(self.folder / "sl" / "weights.safetensors"),
            pairs,
            config.weights,
            config.training("rm"),
            self.folder,
            chat=self.chat,
        )
        write_json(self.folder / "merit.json", {n: m.to_dict() for n, m in merits.items()})
        return found, merits

    def reinforced(self, labelled: Sequence[AnswerPair], reward: SummedReward | None) -> TrainRun:
        """Trains the SL-CAI model on preferences, by pairs or by a reward."""
        self._say("RL-CAI")
        config = self.config.training("rl")
        mark = {"ungated": True} if self.config.ungated else {}
        if reward is None:
            rows: list[dict[str, Any]] = pair_rows(labelled, chat=self.chat, **mark)
        else:
            rows = [{"prompt": as_prompt(r["text"], self.chat), **mark} for r in self.data.prompts]
        return train(self.model, config, data=rows, output=self.folder / "rl", reward=reward)

    @cached_property
    def data_digest(self) -> str:
        """The digest of every prompt and pair."""
        data = self.data
        pairs = [
            (p.id, p.prompt, p.first, p.second, p.truth) for p in (*data.development, *data.gate)
        ]
        return hashlib.sha256(repr((data.prompts, data.cells, pairs)).encode()).hexdigest()

    def _labels(self, rows: Sequence[Row], file: str, form: str | None) -> Labels:
        return label(
            self.model,
            self.constitution,
            rows,
            seed=self.config.seed,
            output=self.folder / file,
            form=form,
            development=[dict(p.row) for p in self.data.development] if form is None else None,
            judge=self._judge(),
            ungated=self.config.ungated,
        )

    def _reviser(self) -> Reviser | None:
        if self.config.reviser == "model":
            return None
        config = self.config
        settings = (config.max_new_tokens, config.temperature)
        return PlantedReviser(self.model, self.constitution, *settings)

    def _judge(self) -> Judge | None:
        return None if self.config.judge == "model" else PlantedJudge(seed=self.config.seed)

    def _fresh(self, weights: Path | None = None) -> HookedTransformer:
        """The first model again, perhaps with a run's weights."""
        options: dict[str, Any] = {} if self.config.dtype is None else {"dtype": self.config.dtype}
        model = load(self.config.model, trainable="full", **options)
        if weights is not None:
            assert model.trained is not None, "loaded so"
            load_weights(model.trained, weights)
        return model
