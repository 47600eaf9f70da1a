"""Budget forcing: thinking that is neither shorter nor longer than asked for, to the token."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

from ..serving import Completion, Engine, Request
from ..serving.intake import ServedModel
from ..text.prompts import Prompt, prompt_rows, require_tokenizer
from .layout import EncodedLayout, ThinkingLayout
from .scorers import Scorer, Thought

Reader = Callable[[str], str | None]
"""Reads an answer out of a text; None where there is none."""


def whole_text(text: str) -> str | None:
    """Returns the text without space around it, None for none."""
    return text.strip() or None


@dataclass(frozen=True)
class Thoughts:
    """Samples of one prompt, an entry each.

    Attributes:
        text: What is shown, without the thinking.
        thinking: What is not.
        n_thinking: Tokens of the thinking, between its delimiters.
        n_answer: Tokens of the text.
        answer: What the reader made of the text.
        scores: By the scorer; None without one.
        forced: Whether the thinking was cut at its longest.
        waits: How often an early end was taken back.
        samples: The same with ids, as scorers see them.
    """

    text: list[str]
    thinking: list[str]
    n_thinking: list[int]
    n_answer: list[int]
    answer: list[str | None]
    scores: list[float] | None
    forced: list[bool]
    waits: list[int]
    samples: list[Thought]


def think(
    model: ServedModel,
    prompt: Prompt,
    *,
    min_thinking: int = 0,
    max_thinking: int = 256,
    n: int = 1,
    scorer: Scorer | None = None,
    max_new_tokens: int = 64,
    temperature: float = 0.0,
    top_p: float | None = None,
    seed: int = 0,
    layout: ThinkingLayout | None = None,
    read: Reader = whole_text,
    engine: Engine | None = None,
) -> Thoughts:
    """Answers a prompt n times, each after thinking of `min_thinking` to `max_thinking` tokens.

    An end of the thinking that comes too early is taken back and `layout.wait` written in its place
    (cut where it would pass the longest); at the longest the end is forced. A sample is a function
    of prompt, seed and its number: neither n nor who shares the engine moves a token.

    Args:
        prompt: One text, conversation or list of ids.
        max_thinking: 0 ends the thinking as soon as it is opened.
        n: Samples; they share the prompt's pages.
        scorer: Called with each sample.
        max_new_tokens: The longest text after the thinking.
        temperature, top_p: As in `model.generate`, for thinking and text.
        layout: The delimiters; by default `<think>` and `</think>`.
        read: Reads an answer out of a text.
        engine: Runs the samples; by default one of their own.

    Raises:
        ValueError: naming the argument; for a budget beyond the context; without a tokenizer.
    """
    _check(min_thinking, max_thinking, n, max_new_tokens)
    tokenizer = require_tokenizer(model.tokenizer)
    encoded = EncodedLayout(layout or ThinkingLayout(), tokenizer)
    rows = prompt_rows(prompt, tokenizer, None, None, None)
    if len(rows) != 1:
        raise ValueError(f"prompt: expected one, got {len(rows)}")
    opened = encoded.opened(list(rows[0]))
    closing = len(encoded.end) + len(encoded.answer_prefix)
    longest = len(opened) + max_thinking + closing + max_new_tokens
    if longest > model.config.n_ctx:
        raise ValueError(
            f"max_thinking = {max_thinking}: with prompt, delimiters and text it makes {longest} "
            f"tokens, the context has {model.config.n_ctx}"
        )
    samples = [_Sample(_seed_of(seed, i)) for i in range(n)]
    with Engine(model) if engine is None else nullcontext(engine) as running:
        forcing = _Forcing(running, encoded, opened, min_thinking, max_thinking, temperature, top_p)
        forcing.close(samples)
        answers = forcing.answers(samples, max_new_tokens)
    thoughts = []
    for sample, answer in zip(samples, answers, strict=True):
        text = (encoded.layout.answer_prefix if sample.forced else "") + answer.text
        thoughts.append(
            Thought(
                prompt_ids=opened,
                thinking_ids=sample.thinking,
                answer_ids=answer.ids,
                thinking=tokenizer.decode(sample.thinking),
                text=text,
                answer=read(text),
                logprobs=[logprob for logprob, _, _ in answer.logprobs or []],
            )
        )
    return _together(thoughts, samples, scorer)


@dataclass
class _Sample:
    """One sample on its way: its seed, its thinking so far, and what was done to it."""

    seed: int
    thinking: list[int] = field(default_factory=list)
    forced: bool = False
    waits: int = 0
    is_closed: bool = False


@dataclass(frozen=True)
class _Forcing:
    """The budget of one prompt's samples."""

    engine: Engine
    encoded: EncodedLayout
    opened: list[int]
    least: int
    most: int
    temperature: float
    top_p: float | None

    def close(self, samples: Sequence[_Sample]) -> None:
        """Runs every sample until its thinking has ended, by itself or by force."""
        while going := [sample for sample in samples if not self._is_over(sample)]:
            requests = [
                self._request(
                    sample, sample.thinking, self.most - len(sample.thinking), self.encoded.stop
                )
                for sample in going
            ]
            for sample, written in zip(going, self._run(requests), strict=True):
                self._take(sample, written)

    def answers(self, samples: Sequence[_Sample], max_new_tokens: int) -> list[Completion]:
        """Returns what each sample writes after its thinking."""
        encoded = self.encoded
        return self._run(
            [
                self._request(
                    sample,
                    sample.thinking
                    + encoded.end
                    + (encoded.answer_prefix if sample.forced else []),
                    max_new_tokens,
                )
                for sample in samples
            ]
        )

    def _is_over(self, sample: _Sample) -> bool:
        if not sample.is_closed and len(sample.thinking) >= self.most:
            sample.is_closed = sample.forced = True
        return sample.is_closed

    def _take(self, sample: _Sample, written: Completion) -> None:
        """Adds what was written; takes an end back that came too early."""
        ended = written.finish_reason == "stop"
        ids = written.ids
        if written.stopped_by is not None:
            ids = self.encoded.before_end(ids, written.text)
        elif ended:
            ids = ids[:-1]
        sample.thinking += ids
        if not ended:
            return
        if len(sample.thinking) >= self.least:
            sample.is_closed = True
            return
        sample.waits += 1
        sample.thinking += self.encoded.wait[: self.most - len(sample.thinking)]

    def _request(
        self, sample: _Sample, after: list[int], most: int, stop: str | int | None = None
    ) -> Request:
        return Request(
            self.opened + after,
            max_new_tokens=most,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=sample.seed,
            stop=stop,
            logprobs=0,
        )

    def _run(self, requests: Sequence[Request]) -> list[Completion]:
        handles = [self.engine.submit(request) for request in requests]
        return [handle.result() for handle in handles]


def _together(
    thoughts: list[Thought], samples: Sequence[_Sample], scorer: Scorer | None
) -> Thoughts:
    return Thoughts(
        text=[thought.text for thought in thoughts],
        thinking=[thought.thinking for thought in thoughts],
        n_thinking=[len(thought.thinking_ids) for thought in thoughts],
        n_answer=[len(thought.answer_ids) for thought in thoughts],
        answer=[thought.answer for thought in thoughts],
        scores=None if scorer is None else [float(scorer(thought)) for thought in thoughts],
        forced=[sample.forced for sample in samples],
        waits=[sample.waits for sample in samples],
        samples=thoughts,
    )


def _seed_of(seed: int, sample: int) -> int:
    """Returns the seed of one sample: that of the first is the caller's."""
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed = {seed}: expected 0 <= seed < 2^64")
    if sample == 0:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed} {sample}".encode()).digest()[:8])


def _check(least: int, most: int, n: int, max_new_tokens: int) -> None:
    if not 0 <= least <= most:
        raise ValueError(f"min_thinking = {least}: expected 0 to max_thinking = {most}")
    for name, value in (("n", n), ("max_new_tokens", max_new_tokens)):
        if value < 1:
            raise ValueError(f"{name} = {value}: expected at least 1")
