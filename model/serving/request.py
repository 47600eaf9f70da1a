"""A request to the engine, and its answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch

from ..batching.row import FinishReason
from ..generation.guide import Schema
from ..generation.monitors import GenerationAlarm, GenerationMonitor
from ..generation.sequence import Logprobs
from ..generation.stops import Stop
from ..sampling import SamplingParams
from ..sampling.params import FilterOrder
from ..text.prompts import Prompt


class EngineFull(RuntimeError):
    """So many requests wait already that the engine takes no other."""


class WrongPool(ValueError):
    """A request came to another pool than the one whose fingerprint it names."""


class ModelIsWatched(RuntimeError):
    """Hooks or overrides are installed, and an engine's passes mix the rows of many requests."""


class MonitorFailed(RuntimeError):
    """A monitor's function raised, which ended the answer that it watched."""


@dataclass(frozen=True)
class Request:
    """One prompt and how to continue it. The answer is a function of these fields alone.

    Attributes:
        prompt: Text, token ids, or a conversation (a list of dicts with role and content).
        max_new_tokens: The longest answer.
        n: Samples; they differ by a draw counter, and share the prompt's pages.
        seed: Same seed, same tokens, as in `model.generate`. None takes a fresh one, which the
            answer names.
        stop: Strings, token ids and functions that end an answer, as in `model.generate`.
        salt: Requests share cached prompts with those of the same salt alone.
        deadline: Time of the engine's clock by which the answer ends.
        pool_fingerprint: Of the pool that the request is for; any other refuses it (WrongPool).
        schema: JSON schema of the answer; tokens that do not fit are masked before the sampler, and
            log-probabilities are of what is left (the extra `tools`).
        grammar: A grammar of the answer in place of a schema, in llguidance's Lark.
        prompt_logprobs: None: none. n: the log-probability of each token of the prompt and of the n
            best in its place, at the answer's temperature and before penalties.
        capture: Names of hooks whose activations to keep.
        monitors: Watch each sample's prompt and answer, and may end it
            (`bitlens.interp.monitors.Monitor`); a sample is a row to them. Tokens are handed out
            once they were scored.
        observe_from: The position of the prompt from which on `capture` and `prompt_logprobs` see
            it: what is before it comes from the cache where it is there. What is after it, and
            for `monitors` all of it, runs again up to the last block that is watched.

    The other fields are those of `model.generate` and `sampling.SamplingParams`.
    """

    prompt: Prompt
    max_new_tokens: int = field(default=64, kw_only=True)
    min_new_tokens: int = field(default=0, kw_only=True)
    temperature: float = field(default=0.0, kw_only=True)
    top_k: int | None = field(default=None, kw_only=True)
    top_p: float | None = field(default=None, kw_only=True)
    min_p: float | None = field(default=None, kw_only=True)
    typical_p: float | None = field(default=None, kw_only=True)
    repetition_penalty: float = field(default=1.0, kw_only=True)
    frequency_penalty: float = field(default=0.0, kw_only=True)
    presence_penalty: float = field(default=0.0, kw_only=True)
    no_repeat_ngram_size: int = field(default=0, kw_only=True)
    logit_bias: Mapping[int, float] = field(default_factory=dict, kw_only=True)
    allowed_token_ids: Sequence[int] | None = field(default=None, kw_only=True)
    filter_apply_order: FilterOrder = field(default="top_k_first", kw_only=True)
    logprobs: int | None = field(default=None, kw_only=True)
    prompt_logprobs: int | None = field(default=None, kw_only=True)
    seed: int | None = field(default=None, kw_only=True)
    n: int = field(default=1, kw_only=True)
    stop: Stop = field(default=None, kw_only=True)
    salt: str = field(default="", kw_only=True)
    deadline: float | None = field(default=None, kw_only=True)
    pool_fingerprint: str | None = field(default=None, kw_only=True)
    schema: Schema | None = field(default=None, kw_only=True)
    grammar: str | None = field(default=None, kw_only=True)
    capture: Sequence[str] | str = field(default=(), kw_only=True)
    monitors: Sequence[GenerationMonitor] = field(default=(), kw_only=True)
    observe_from: int = field(default=0, kw_only=True)
    prepend_bos: bool | None = field(default=None, kw_only=True)
    template_variables: Mapping[str, Any] | None = field(default=None, kw_only=True)

    def sampling(self) -> SamplingParams:
        """Returns the sampler's parameters; raises ValueError naming the one that is wrong."""
        names = {each.name for each in fields(self)} & {
            each.name for each in fields(SamplingParams)
        }
        return SamplingParams(**{name: getattr(self, name) for name in names})


@dataclass(frozen=True)
class Usage:
    """Tokens of a request.

    Attributes:
        prompt: Of the prompt.
        cached: Of these, taken from the cache, and not run again for whoever watches them.
        written: Of these, computed and kept for others.
        output: Of the answer, the one that ended it included.
    """

    prompt: int
    cached: int
    written: int
    output: int


@dataclass(frozen=True)
class Completion:
    """One answer.

    Attributes:
        ids: The new tokens, the one that ended it included.
        text: Without special tokens and up to a stop string; empty without a tokenizer.
        logprobs: For each new token its log-probability, and ids and log-probabilities of the best
            ones, where the request asked for them.
        prompt_logprobs: The same for each token of the prompt, None for the first and up to
            `observe_from`: of a request's first sample, where it asked for them; shorter where the
            prompt was not read to its end.
        stopped_by: The stop string that ended it.
        seed: What it was drawn with.
        captured: Activations by hook name, [1, P + N - 1, ...] position by position (scores and
            patterns [1, H, P + N - 1, K]), from `observe_from` on.
        scores: By monitor, the score after each token, fp32 [P + N]; NaN where it gave none.
        alarms: What monitors raised, in order.
        n_handed_out: Of the new tokens, those that were handed out: all but what an alarm or an
            error held back.
    """

    prompt_ids: list[int]
    ids: list[int]
    text: str
    logprobs: list[Logprobs] | None
    finish_reason: FinishReason
    seed: int
    usage: Usage
    prompt_logprobs: list[Logprobs | None] | None = None
    stopped_by: str | None = None
    captured: dict[str, torch.Tensor] = field(default_factory=dict)
    scores: dict[str, torch.Tensor] = field(default_factory=dict)
    alarms: list[GenerationAlarm] = field(default_factory=list)
    n_handed_out: int = 0
