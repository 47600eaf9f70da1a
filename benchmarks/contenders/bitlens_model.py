"""bitlens, as a user loads it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ... import set_num_threads
from ...model.cache.kv_cache import KVCache
from ...model.load import load
from .timing import prompt, seconds


class BitlensModel:
    """`bitlens.load(model)`; every task runs under no_grad."""

    def __init__(self, model: str, threads: int, dtype: str, storage: str = "packed") -> None:
        set_num_threads(threads)
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        self.model = load(model, dtype=dtype, storage=storage)  # type: ignore[arg-type]

    def weights(self) -> dict[str, float]:
        """Bytes of matrices that a decoded token reads: all of them, the embedding if tied."""
        untied = self.model.unembed.weight is not self.model.embed.weight
        embed = self.model.ops.storage(self.model.embed.weight)[1] if untied else 0
        return {"bytes": self.model.weight_bytes() - embed}

    def decode(self, n_prompt: int, n_new: int) -> dict[str, float]:
        """Seconds a token, greedy with a KV cache, by hand and by `generate`."""
        tokens_BP = prompt(self.model.config.d_vocab, n_prompt)
        step, logits_BV = self._prefilled(tokens_BP)

        def loop() -> None:
            nonlocal logits_BV
            for _ in range(n_new):
                logits_BV = step(logits_BV.argmax(-1, keepdim=True))

        by_hand = seconds(loop) / n_new
        first = seconds(lambda: self._generate(tokens_BP, 1))
        rest = seconds(lambda: self._generate(tokens_BP, n_new + 1)) - first
        return {"loop": by_hand, "generate": rest / n_new}

    def prefill(self, n_tokens: int) -> dict[str, float]:
        """Seconds for the logits of every position."""
        tokens_BP = prompt(self.model.config.d_vocab, n_tokens)
        return {"seconds": seconds(lambda: self.model(tokens_BP))}

    def first_token(self, n_tokens: int) -> dict[str, float]:
        """Seconds until the logits of the last position, keys and values kept."""
        tokens_BP = prompt(self.model.config.d_vocab, n_tokens)
        return {"seconds": seconds(lambda: self._prefilled(tokens_BP))}

    def batch_decode(self, batch: int, n_prompt: int, n_new: int) -> dict[str, float]:
        """Seconds a step of `batch` sequences."""
        step, logits_BV = self._prefilled(prompt(self.model.config.d_vocab, n_prompt, batch))
        tokens_B1 = logits_BV.argmax(-1, keepdim=True)
        return {"seconds": seconds(lambda: [step(tokens_B1) for _ in range(n_new)]) / n_new}

    def run_with_cache(self, suffixes: list[str] | None, n_tokens: int) -> dict[str, float]:
        """Seconds of a pass that keeps hooks ending in `suffixes`; None keeps the default names."""
        tokens_BP = prompt(self.model.config.d_vocab, n_tokens)
        names: Any = suffixes and (lambda name: name.endswith(tuple(suffixes)))
        return {"seconds": seconds(lambda: self.model.run_with_cache(tokens_BP, names))}

    def prefill_minus_decode(self, n_tokens: int) -> dict[str, float]:
        """Largest difference between the logits of one prefill and of decoding the same tokens."""
        tokens_BP = prompt(self.model.config.d_vocab, n_tokens)
        step, logits_BV = self._prefilled(tokens_BP[:, :1])
        steps = [logits_BV, *(step(tokens_BP[:, t, None]) for t in range(1, n_tokens))]
        difference = self.model(tokens_BP) - torch.stack(steps, dim=1)
        return {"max": float(difference.abs().max())}

    def _prefilled(
        self, tokens_BP: torch.Tensor
    ) -> tuple[Callable[[torch.Tensor], torch.Tensor], torch.Tensor]:
        """A function from the next tokens [B, 1] to logits [B, V], and the prompt's last logits."""
        cache = KVCache(self.model.config, tokens_BP.shape[0], self.model.ops.policy.activation)
        logits_BV = self.model.forward_last(tokens_BP, None, cache)
        return lambda tokens_B1: self.model.forward_last(tokens_B1, None, cache), logits_BV

    def _generate(self, tokens_BP: torch.Tensor, n_new: int) -> None:
        self.model.generate(tokens_BP, max_new_tokens=n_new, min_new_tokens=n_new)
