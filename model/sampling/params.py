"""The parameters of a request to the sampler."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

FilterOrder = Literal["top_k_first", "joint"]

GREEDY_BELOW = 1e-5
"""Temperatures below take the best token (vLLM's bound)."""


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """The rules for the next token of one request. The order is vLLM's: mask, bias, stop ids,
    penalties, temperature, min-p, top-k, top-p; then typical_p, which Hugging Face has last, too.

    Attributes:
        temperature: Divides the logits. Below 1e-5 the best token is taken, of equals the one with
            the smallest id; its log-probability is then that at temperature 1.
        top_k: Keep the k best tokens. None, 0, -1 or the vocabulary's size: all.
        top_p: Keep the shortest prefix of the descending order that holds this probability: a token
            stays if the mass before it is less. None or 1: all.
        min_p: Keep tokens of at least this probability relative to the best. None or 0: all.
        typical_p: Of the tokens left by then, keep those whose surprisal is nearest to the entropy,
            as few as hold this share of their probability (Meister et al. 2022). None or 1: all.
        repetition_penalty: Divides positive and multiplies negative logits of tokens in prompt or
            output. 1: none.
        frequency_penalty: Subtracted once for each time a token was generated.
        presence_penalty: Subtracted from tokens that were generated.
        logit_bias: Added to the logits of these ids.
        allowed_token_ids: All other ids are masked. None: all are allowed.
        min_tokens: Mask `stop_token_ids` until so many tokens were generated.
        stop_token_ids: What `min_tokens` masks.
        logprobs: None: no log-probabilities. n: that of the chosen token and of the n best.
        seed: Same seed, position and draw: same noise, whatever the batch. None takes a fresh one.
        filter_apply_order: "top_k_first": top_p is a share of what top_k kept; "joint": of all that
            min_p kept.

    Raises ValueError naming the field.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    allowed_token_ids: Sequence[int] | None = None
    min_tokens: int = 0
    stop_token_ids: Sequence[int] = ()
    logprobs: int | None = None
    seed: int | None = None
    filter_apply_order: FilterOrder = "top_k_first"

    def __post_init__(self) -> None:
        self._check("temperature", 0 <= self.temperature < math.inf, "a finite number, 0 or more")
        self._check(
            "temperature", np.isfinite(_fp32(self.temperature)), "a number that fp32 can hold"
        )
        self._check("top_k", self.top_k is None or self.top_k >= -1, "at least 1, or 0, -1, None")
        for name in ("top_p", "typical_p"):
            share = getattr(self, name)
            self._check(
                name, share is None or (share <= 1 and _fp32(share) > 0), f"0 < {name} <= 1"
            )
        self._check("min_p", self.min_p is None or 0 <= self.min_p <= 1, "0 <= min_p <= 1")
        self._check(
            "repetition_penalty",
            0 < _fp32(self.repetition_penalty) < math.inf,
            "a finite number above 0",
        )
        for name in ("frequency_penalty", "presence_penalty"):
            self._check(name, bool(np.isfinite(_fp32(getattr(self, name)))), "a finite number")
        self._check(
            "logit_bias",
            all(
                _is_id(i) and not math.isnan(b) and _fp32(b) < math.inf
                for i, b in self.logit_bias.items()
            ),
            "token ids and numbers below infinity",
        )
        for name in ("allowed_token_ids", "stop_token_ids"):
            ids = getattr(self, name)
            self._check(name, ids is None or all(_is_id(i) for i in ids), "token ids")
        self._check("min_tokens", self.min_tokens >= 0, "0 or more")
        self._check(
            "min_tokens",
            self.min_tokens == 0 or len(self.stop_token_ids) > 0,
            "stop_token_ids beside it, which it masks",
        )
        self._check(
            "logprobs", self.logprobs is None or 0 <= self.logprobs <= 1024, "0 to 1024, or None"
        )
        self._check("seed", self.seed is None or 0 <= self.seed < 2**64, "0 <= seed < 2^64")
        self._check(
            "filter_apply_order",
            self.filter_apply_order in ("top_k_first", "joint"),
            '"top_k_first" or "joint"',
        )

    @property
    def greedy(self) -> bool:
        return self.temperature < GREEDY_BELOW

    def _check(self, name: str, holds: bool | np.bool_, expected: str) -> None:
        if not holds:
            raise ValueError(f"{name} = {getattr(self, name)!r}: expected {expected}")


def _fp32(x: float) -> np.float32:
    with np.errstate(over="ignore"):
        return np.float32(x)


def _is_id(token: int) -> bool:
    return isinstance(token, int) and not isinstance(token, bool) and token >= 0
