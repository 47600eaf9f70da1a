"""Answers that a policy samples, with the log-probabilities that its training will see.

Tensor names: R rows, prompt-major, n a prompt; P prompt columns; N new tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..generation import GenerateOutput
from ..text.prompts import Prompt
from ..transformer import HookedTransformer


@dataclass(frozen=True, eq=False)
class Rollouts:
    """Sampled answers. The n answers to a prompt are consecutive rows.

    Attributes:
        tokens: int64 [R, P + N], prompts padded on the left, answers on the right.
        attention_mask: int64 [R, P + N], 1 at real tokens.
        logprobs: fp32 [R, P + N], ln of each sampled token's probability at the temperature, before
            any filter; NaN where nothing was sampled.
        log_kept: fp32 [R, P + N], ln of the probability that filters kept, 0 without any, NaN where
            nothing was sampled.
        text: The answers, without special tokens; empty without a tokenizer.
        finish_reason: Why each answer ended, "stop" or "length".
        temperature: That they were sampled at.
        policy_digest: The fingerprint of the weights that answered.
    """

    tokens: torch.Tensor
    attention_mask: torch.Tensor
    logprobs: torch.Tensor
    log_kept: torch.Tensor
    text: list[str]
    finish_reason: list[str]
    temperature: float
    policy_digest: str

    @property
    def sampled(self) -> torch.Tensor:
        """bool [R, P + N], the tokens that were sampled."""
        return ~self.logprobs.isnan()


def rollout(
    model: HookedTransformer,
    prompts: Prompt,
    *,
    n: int = 1,
    max_new_tokens: int = 64,
    temperature: float = 1.0,
    seed: int,
) -> Rollouts:
    """Samples n answers to each prompt from the whole distribution.

    `model.logprobs(tokens, attention_mask, scored=sampled, temperature=temperature)` has the bits
    of `logprobs`, in any batch, padding and number of threads.

    Args:
        prompts: As `model.generate`.
        temperature: Above 0.
        seed: Same seed, same answers.

    Raises:
        ValueError: a temperature of 0, and whatever `model.generate` refuses, a prompt beyond the
            context among it.
    """
    if not temperature >= 1e-5:
        raise ValueError(f"temperature = {temperature}: answers are sampled, take one above 0")
    if model.is_watched:
        raise ValueError("rollout: hooks or overrides are installed, which training would not see")
    options: dict[str, Any] = {"temperature": temperature, "seed": seed, "n": n, "logprobs": 0}
    output = model.generate(prompts, max_new_tokens=max_new_tokens, **options)
    return _rollouts(output, temperature, model.fingerprint())


def _rollouts(output: GenerateOutput, temperature: float, digest: str) -> Rollouts:
    assert output.logprobs is not None, "log-probabilities were asked for"
    width = output.tokens.shape[1] - output.logprobs.shape[1]
    unsampled = torch.full(
        (len(output.tokens), width), torch.nan, dtype=torch.float32, device="cpu"
    )
    logprobs = torch.cat([unsampled, output.logprobs], dim=1)
    reasons: Sequence[str] = output.finish_reason
    return Rollouts(
        tokens=output.tokens,
        attention_mask=output.attention_mask,
        logprobs=logprobs,
        log_kept=torch.zeros_like(logprobs).masked_fill(logprobs.isnan(), torch.nan),
        text=list(output.text),
        finish_reason=list(reasons),
        temperature=temperature,
        policy_digest=digest,
    )
