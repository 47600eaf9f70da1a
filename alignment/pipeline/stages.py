"""The stages of Constitutional AI, one after another, each going on where it was killed."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from ...interp.dictionaries import load_dictionary
from ...interp.probes.extra import scikit_learn
from ...model.load import load
from ...model.text.prompts import require_tokenizer
from ...model.training import TrainRun, load_weights, train
from ...model.transformer import HookedTransformer
from ...model.weights.atomic import write_json
from ..constitution import Constitution
from ..draws import digest_of
from ..planted import PlantedJudge, PlantedReviser
from ..preferences import Gate, Judge, Labels, gate, label
from ..preferences.pairs import AnswerPair, read_pairs
from ..prompt_rows import PromptRow
from ..revision import Reviser, revise, sft_rows
from ..revision.targets import as_prompt
from ..rewards import Merit, OverOptimisation
from ..row_file import Row, RowFile
from .behaviour import answers
from .best_of import best_of
from .config import STANDIN, CaiConfig
from .data import CaiData, read_data, wanted_of
from .divergence import Divergence, divergence
from .moved import moved
from .optimisation_path import Batch, WatchedReward
from .preferred import preferred
from .reward import SummedReward, pair_rows, trained_reward
from .rounds import Preferred
from .samples import revised_pairs, sampled_pairs

GOLD_CELLS = ("requests", "near misses", "benign")
"""The cells of the stand-in whose answers are held against its rules."""

Say = Callable[[str], None]
"""Called with the name of each stage when it begins."""


class Stages:
    """One run's stages. Each reads what those before it have left in the folder."""

    def __init__(self, config: CaiConfig, folder: Path, say: Say) -> None:
        self.config, self.folder, self._say = config, folder, say
        if config.insides and self._is_standin:
            scikit_learn("linear_model")  # now, since it is needed hours later
        self.here = folder
        self.model = self._fresh()
        self.first_digest = self.model.fingerprint()
        self.constitution = Constitution.load(config.constitution)
        tokenizer = require_tokenizer(self.model.tokenizer)
        self.constitution.require_plain(tokenizer)
        self.chat = tokenizer.chat_template is not None
        self.data: CaiData = read_data(config, tokenizer)
        self.prompts = self.data.prompts

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

    def begin(self, iteration: int) -> list[Row]:
        """Goes on to another round of preferences, in a folder of its own.

        Returns the new prompts that the model of the moment answers as it should not; they join
        those of this and every later round.
        """
        self._say(f"red team, iteration {iteration}")
        self.here = self.folder / f"iteration-{iteration}"
        rows = answers(
            self.model,
            {"red team": self.data.red_team},
            self.here / "red-team.jsonl",
            max_new_tokens=self.config.max_new_tokens,
            chat=self.chat,
            ungated=self.config.ungated,
        )
        known = {row["id"] for row in self.prompts}
        failed = [
            prompt
            for prompt, row in zip(self.data.red_team, rows, strict=True)
            if row["verdict"] != wanted_of(prompt)
        ]
        self.prompts = [*self.prompts, *(row for row in failed if row["id"] not in known)]
        return failed

    def revisions(self) -> list[Row]:
        """Returns the answers and revisions of the first model."""
        self._say("critique and revision")
        return self._revised(self.data.prompts, "revisions.jsonl", rounds=self.config.rounds)

    def uncritiqued(self) -> list[Row]:
        """Returns the answers and revisions without critiques, for comparison; none where the run
        has none."""
        config = self.config
        if not (config.critique and config.ablation):
            return []
        self._say("revision without critique")
        file = "revisions-uncritiqued.jsonl"
        return self._revised(self.data.prompts, file, rounds=config.rounds, critique=False)

    def preferred(self, revisions: Sequence[Row], file: str, form: str) -> Preferred:
        """Returns how the judge that the gate has measured compares revisions with answers."""
        self._say("the judge on revisions")

        def judged(rows: Sequence[Row]) -> list[float]:
            return self._labels(rows, file, form or None).p_a

        return preferred(revisions, judged, seed=self.config.seed)

    def helpful(self) -> list[Row]:
        """Returns the helpful prompts with their answers: those of their file, or the first
        model's, greedy, which it is to keep; a planted reviser looks over these, too."""
        asked = [row for row in self.data.helpful if "answer" not in row]
        found = [row for row in self.data.helpful if "answer" in row]
        if asked:
            self._say("helpful answers")
            planted = self._reviser(0.0)
            rounds = 0 if planted is None else 1
            rows = self._revised(asked, "helpful.jsonl", rounds=rounds, temperature=0.0)
            last = {row["id"]: row["response"] for row in rows}
            found += [{**row, "answer": last[row["id"]]} for row in asked if last[row["id"]]]
        return found

    def supervised(self, revisions: Sequence[Row], helpful: Sequence[Row]) -> TrainRun:
        """Trains the model on every revision and on helpful answers."""
        self._say("SL-CAI")
        rows = sft_rows(revisions, helpful, chat=self.chat)
        return train(self.model, self.config.training("sl"), data=rows, output=self.folder / "sl")

    def pairs(self, revisions: Sequence[Row]) -> list[Row]:
        """Returns pairs of answers to the prompts that are trained on."""
        config = self.config
        if config.pairs == "revised":
            return revised_pairs(revisions)
        self._say("two answers to each prompt")
        return sampled_pairs(
            self.model,
            self.prompts,
            self.here / "pairs.jsonl",
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
            self.here / "gate.json",
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
            self.here,
            chat=self.chat,
        )
        write_json(self.here / "merit.json", {n: m.to_dict() for n, m in merits.items()})
        return found, merits

    def over_optimised(self, reward: SummedReward) -> OverOptimisation | None:
        """Returns what choosing by the reward does to the stand-in's gold score; None for prompts
        of one's own, which have none."""
        config = self.config
        if not self._is_standin:
            return None
        self._say("the best of n")
        found = best_of(
            self.model,
            [row for name in GOLD_CELLS for row in self.data.cells[name]],
            reward,
            self.folder / "best-of.jsonl",
            seed=config.seed,
            max_new_tokens=config.max_new_tokens,
            temperature=config.temperature,
            chat=self.chat,
            ungated=config.ungated,
        )
        write_json(self.folder / "over-optimisation.json", found.to_dict())
        return found

    def reinforced(
        self, labelled: Sequence[AnswerPair], reward: SummedReward | None
    ) -> tuple[TrainRun, list[Batch]]:
        """Trains the SL-CAI model on preferences, by pairs or by a reward.

        Returns the run, and the batches of answers on its way, of which pairs have none.
        """
        self._say("RL-CAI")
        config, folder = self.config.training("rl"), self.here / "rl"
        mark = {"ungated": True} if self.config.ungated else {}
        if reward is None:
            pairs = pair_rows(labelled, chat=self.chat, **mark)
            return train(self.model, config, data=pairs, output=folder), []
        rows = [{**r, "prompt": as_prompt(r["text"], self.chat), **mark} for r in self.prompts]
        watched = WatchedReward(
            reward, folder, has_gold=self._is_standin, has_kl=config.kl_weight > 0
        )
        found = train(
            self.model, config, data=rows, output=folder, reward=watched, progress=watched.step
        )
        return found, watched.batches()

    def divergence(self, stage: str) -> Divergence:
        """Returns how far a stage, "sl" or "rl", has taken the model of the moment."""
        self._say(f"distance, {stage}")
        return divergence(
            stage,
            self.model,
            lambda: self._before(stage),
            self._few(),
            self.folder / f"distance-{stage}.jsonl",
            seed=self.config.seed,
            max_new_tokens=self.config.max_new_tokens,
            chat=self.chat,
            has_gold=self._is_standin,
            ungated=self.config.ungated and stage == "rl",
        )

    def moved(self, stage: str) -> list[Row]:
        """Returns a row of what a stage moved inside the model; none without `insides`."""
        config = self.config
        if not config.insides:
            return []
        self._say(f"insides, {stage}")

        def read(stages: Sequence[str]) -> list[Row]:
            source = config.dictionary
            return [
                moved(
                    each,
                    self._before(each),
                    self.model,
                    self._few(),
                    self.data.gate,
                    n=config.n_read,
                    seed=config.seed,
                    on_standin=self._is_standin,
                    dictionary=None if source is None else load_dictionary(source, strict=False),
                )
                for each in stages
            ]

        models = [stage, self.model.fingerprint(), self.first_digest, self.data_digest]
        run: list[Any] = [*models, config.seed, config.n_read, config.dictionary]
        ungated = config.ungated and stage == "rl"
        file = self.folder / f"insides-{stage}.jsonl"
        return RowFile(file, digest_of(run), ungated=ungated).fill([stage], 1, read)

    @cached_property
    def data_digest(self) -> str:
        """The digest of every prompt and pair."""
        data = self.data
        pairs = [
            (p.id, p.prompt, p.first, p.second, p.truth) for p in (*data.development, *data.gate)
        ]
        prompts = (data.prompts, data.helpful, data.red_team, data.cells)
        return hashlib.sha256(repr((prompts, pairs)).encode()).hexdigest()

    def _revised(
        self,
        prompts: Sequence[PromptRow],
        file: str,
        *,
        rounds: int,
        critique: bool | None = None,
        temperature: float | None = None,
    ) -> list[Row]:
        config = self.config
        temperature = config.temperature if temperature is None else temperature
        return revise(
            self.model,
            self.constitution,
            prompts,
            rounds=rounds,
            seed=config.seed,
            output=self.folder / file,
            critique=config.critique if critique is None else critique,
            reviser=self._reviser(temperature),
            max_new_tokens=config.max_new_tokens,
            temperature=temperature,
        )

    def _labels(self, rows: Sequence[Row], file: str, form: str | None) -> Labels:
        return label(
            self.model,
            self.constitution,
            rows,
            seed=self.config.seed,
            output=self.here / file,
            form=form,
            development=[dict(p.row) for p in self.data.development] if form is None else None,
            judge=self._judge(),
            ungated=self.config.ungated,
        )

    @property
    def _is_standin(self) -> bool:
        return self.config.prompts == STANDIN

    def _few(self) -> list[PromptRow]:
        """The first held-out prompts of each kind."""
        names = GOLD_CELLS if self._is_standin else self.data.cells
        return [row for name in names for row in self.data.cells[name][: self.config.n_read]]

    def _before(self, stage: str) -> HookedTransformer:
        """The model that a stage began from."""
        weights = None if stage == "sl" else self.folder / "sl" / "weights.safetensors"
        return self._fresh(weights)

    def _reviser(self, temperature: float) -> Reviser | None:
        if self.config.reviser == "model":
            return None
        settings = (self.config.max_new_tokens, temperature)
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
