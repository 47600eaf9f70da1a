"""A trained reward model as a reward of answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ...model.text.prompts import left_pad, padding_id, require_tokenizer
from ...model.training import RewardModel, load_weights
from ...model.transformer import HookedTransformer

BATCH = 32


class ModelReward:
    """Rewards of answers by a reward model, as training saw them.

    Called with a prompt and a text it returns one number; `rewards` takes many.
    """

    def __init__(self, model: HookedTransformer, checkpoint: str | Path) -> None:
        """Puts the weights of a run of method "rm" into a model loaded with `trainable`.

        Raises ValueError for a file that is damaged, or of another model.
        """
        self._reward = RewardModel(model)
        assert model.trained is not None, "checked by RewardModel"
        load_weights(model.trained, checkpoint)
        self._tokenizer = require_tokenizer(model.tokenizer)

    def __call__(self, prompt: str, text: str) -> float:
        """Returns the reward of an answer to a prompt."""
        return self.rewards([prompt], [text])[0]

    @torch.no_grad()
    def rewards(self, prompts: Sequence[Any], texts: Sequence[str]) -> list[float]:
        """Returns the reward of each answer; prompts are texts or conversations of one turn."""
        found: list[float] = []
        rows = [self._ids(p, text) for p, text in zip(prompts, texts, strict=True)]
        for first in range(0, len(rows), BATCH):
            tokens, mask = left_pad(rows[first : first + BATCH], padding_id(self._tokenizer))
            found += self._reward.scores(tokens, mask).tolist()
        return found

    def _ids(self, prompt: Any, text: str) -> list[int]:
        """The tokens that training makes of prompt and answer (model/training/examples.py)."""
        tokenizer = self._tokenizer
        content = prompt if isinstance(prompt, str) else prompt[-1]["content"]
        if tokenizer.chat_template is not None:
            messages = [
                {"role": "user", "content": content},
                {"role": "assistant", "content": text},
            ]
            return list(tokenizer.encode_chat(messages, add_generation_prompt=False))
        start = tokenizer.encode(content, tokenizer.prepends_bos)
        return [*start, *tokenizer.encode(text), *tokenizer.eos_ids[:1]]
