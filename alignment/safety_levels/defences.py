"""Defences around a model: a filter of what it wrote, a probe that watches it write."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ...interp.monitors import Monitor
from ...interp.probes.data import Dataset, Example
from ...interp.probes.protocol.scoring import score_texts
from ...interp.probes.protocol.thresholds import threshold_of
from ...model.transformer import HookedTransformer
from .. import standin
from ..draws import digest_of
from ..red_team.ngrams import NgramClassifier
from ..red_team.respondents import Answer, ModelRespondent
from ..text_probe import fitted_probe, probe_identity

BLOCKED = "I cannot help with that, because it is forbidden."
"""Said in the place of an answer that a defence held back."""

Scores = Callable[[Sequence[str]], Sequence[float]]
TARGET_FPR = 0.01
"""The share of harmless training exchanges that a threshold may flag."""


class FilteredModel:
    """A model whose answers are read, with their prompts, once they are whole.

    Nothing is shown before: the time to the first token is that of the whole answer.
    """

    def __init__(
        self, inner: ModelRespondent, name: str, scores: Scores, threshold: float, digest: str
    ) -> None:
        """Takes what scores texts of a prompt and its answer, and a digest of it; an exchange whose
        score is above the threshold is held back."""
        self.inner, self.name = inner, name
        self._scores, self._threshold, self._digest = scores, threshold, digest

    def digest(self) -> str:
        """Returns a digest of the model and the filter."""
        return digest_of([self.inner.digest(), self.name, self._digest, self._threshold])

    def fits(self, prompt: str, max_new_tokens: int) -> bool:
        """Returns whether prompt and answer fit into the model's context."""
        return self.inner.fits(prompt, max_new_tokens)

    def answers(self, prompts: Sequence[str], **settings: Any) -> list[Answer]:
        """Returns the model's answers, those that the filter flags replaced."""
        return self._passed(prompts, self.inner.answers(prompts, **settings))

    def timed(self, prompt: str, *, max_new_tokens: int) -> Answer:
        """Returns the answer with its times: all of it comes at once, after the filter."""
        began = time.perf_counter()
        (answer,) = self._passed(
            [prompt], [self.inner.timed(prompt, max_new_tokens=max_new_tokens)]
        )
        return replace(answer, ttft_ms=1e3 * (time.perf_counter() - began), token_ms=0.0)

    def _passed(self, prompts: Sequence[str], answers: Sequence[Answer]) -> list[Answer]:
        texts = [exchange(p, a.text) for p, a in zip(prompts, answers, strict=True)]
        flagged = [score > self._threshold for score in self._scores(texts)]
        return [
            replace(answer, text=BLOCKED) if bad else answer
            for answer, bad in zip(answers, flagged, strict=True)
        ]


class MonitoredModel(ModelRespondent):
    """A model that a probe watches token by token; an alarm ends the answer, and replaces it."""

    def __init__(self, inner: ModelRespondent, monitor: Monitor, name: str = "monitor") -> None:
        super().__init__(inner.model, name)
        self._monitor = monitor

    def digest(self) -> str:
        """Returns a digest of the model and the monitor."""
        watched = [probe_identity(self._monitor.probe), self._monitor.threshold]
        return digest_of([super().digest(), *watched])

    def generate(self, prompts: Sequence[str], **settings: Any) -> list[Answer]:
        """Returns answers written under watch."""
        found = self.model.generate(
            [self.form(prompt) for prompt in prompts], monitors=[self._monitor], **settings
        )
        return [
            Answer(BLOCKED if why == "alarm" else text, n)
            for text, n, why in zip(found.text, found.n_new, found.finish_reason, strict=True)
        ]


def ngram_filter(inner: ModelRespondent, training: Dataset) -> FilteredModel:
    """Returns a filter by an n-gram classifier of exchanges, 1 for those to hold back."""
    classifier = NgramClassifier().fit(training.texts, [e.label for e in training])
    return FilteredModel(inner, "n-gram filter", classifier.scores, 0.0, classifier.digest())


def probe_filter(
    inner: ModelRespondent, training: Dataset, hook_name: str | None = None, max_tokens: int = 128
) -> FilteredModel:
    """Returns a filter by a probe that reads the exchange as plain text, in a pass of its own.

    Raises ValueError for a name that is no hook, or one class alone.
    """
    probe = fitted_probe(inner.model, training, hook_name, max_tokens, skip_first=1)

    def scores(texts: Sequence[str]) -> list[float]:
        data = Dataset("exchanges", tuple(_example(i, t) for i, t in enumerate(texts)))
        (running,) = score_texts(inner.model, data, [probe], max_tokens)
        return [float(each[-1]) for each in running]

    digest = digest_of([probe_identity(probe), max_tokens])
    return FilteredModel(inner, "probe filter", scores, 0.0, digest)


def probe_monitor(
    inner: ModelRespondent, training: Dataset, hook_name: str | None = None, max_tokens: int = 128
) -> MonitoredModel:
    """Returns a model watched by a probe of its own activations, prompt included.

    Args:
        training: Exchanges as the model sees them (`standin_exchanges(..., model)`), 1 for those
            to stop; its harmless ones set the threshold, anywhere in the text.

    Raises ValueError for a name that is no hook, or one class alone.
    """
    probe = fitted_probe(inner.model, training, hook_name, max_tokens, skip_first=1)
    harmless = training.where(lambda e: not e.label)
    (running,) = score_texts(inner.model, harmless, [probe], max_tokens)
    probe.threshold_ = threshold_of(running, TARGET_FPR)
    return MonitoredModel(inner, Monitor(probe, on_alarm="stop"))


def standin_exchanges(n: int, *, seed: int, model: HookedTransformer | None = None) -> Dataset:
    """Returns n of each kind of the stand-in's training prompts with their answers, 1 for those
    that should have been refused; no wording or template of them is in an evaluation.

    Args:
        model: Writes them in its chat form; None as plain text.
    """
    examples = []
    for kind in standin.KINDS:
        for row in standin.prompts(kind, n, seed=seed):
            text = exchange(row.text, standin.answer(row))
            if model is not None and model.tokenizer is not None and model.tokenizer.chat_template:
                turn = [{"role": "user", "content": row.text}]
                text = model.tokenizer.apply_chat_template(turn) + standin.answer(row)
            examples.append(Example(row.id, text, int(kind == "standin"), row.id, kind))
    return Dataset("standin-exchanges", tuple(examples))


def exchange(prompt: str, answer: str) -> str:
    """Returns a prompt and its answer as one text."""
    return f"{prompt}\n{answer}"


def _example(number: int, text: str) -> Example:
    return Example(f"e{number}", text, 0, f"e{number}")
