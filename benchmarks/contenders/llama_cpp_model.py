"""llama.cpp through llama-cpp-python, on the same GGUF file."""

from __future__ import annotations

import numpy as np
from llama_cpp import Llama

from .timing import prompt, seconds


class LlamaCpp:
    """llama.cpp as it comes: activations quantised to 8 bits, keys and values in fp16."""

    def __init__(self, model: str, threads: int, n_ctx: int = 1024) -> None:
        self.model = Llama(
            model,
            n_ctx=n_ctx,
            n_batch=512,
            n_threads=threads,
            n_threads_batch=threads,
            verbose=False,
        )
        self.d_vocab = self.model.n_vocab()

    def decode(self, n_prompt: int, n_new: int) -> dict[str, float]:
        """Seconds a token, greedy."""
        self._run(prompt(self.d_vocab, n_prompt)[0].tolist(), 0, every_logit=False)

        def loop() -> None:
            for i in range(n_new):
                self._run([self._greedy()], n_prompt + i, every_logit=False)

        return {"loop": seconds(loop) / n_new}

    def prefill(self, n_tokens: int) -> dict[str, float]:
        """Seconds for the logits of every position."""
        tokens = prompt(self.d_vocab, n_tokens)[0].tolist()
        return {"seconds": seconds(lambda: self._run(tokens, 0, every_logit=True))}

    def _run(self, tokens: list[int], n_past: int, *, every_logit: bool) -> None:
        context, batch = self.model._ctx, self.model._batch
        context.kv_cache_seq_rm(-1, n_past, -1)
        batch.set_batch(tokens, n_past, every_logit)
        context.decode(batch)
        context.get_logits_ith(-1)  # waits for the result

    def _greedy(self) -> int:
        pointer = self.model._ctx.get_logits_ith(-1)
        return int(np.ctypeslib.as_array(pointer, shape=(self.d_vocab,)).argmax())
