"""Texts that a model samples, each with a seed of its own, so that each can be sampled alone."""

from __future__ import annotations

from collections.abc import Sequence

from ..model.serving import Engine, Request
from ..model.serving.intake import ServedModel
from ..model.text.prompts import Prompt


def sampled_texts(
    model: ServedModel,
    prompts: Sequence[Prompt],
    seeds: Sequence[int],
    *,
    max_new_tokens: int,
    temperature: float,
    stop: Sequence[str] = (),
) -> list[str]:
    """Returns a continuation of each prompt; a function of prompt and seed alone, bit for bit.

    Raises ValueError for a prompt that is empty, or beyond the context.
    """
    if not prompts:
        return []
    requests = [
        Request(
            prompt,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed,
            stop=list(stop) or None,
        )
        for prompt, seed in zip(prompts, seeds, strict=True)
    ]
    with Engine(model, max_running=min(32, len(requests)), max_waiting=len(requests)) as engine:
        handles = [engine.submit(request) for request in requests]
        return [handle.result().text.strip() for handle in handles]
