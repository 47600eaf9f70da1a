"""llama.cpp's own server, in this process by xllamacpp, on the same GGUF file."""

from __future__ import annotations

from typing import Any

import xllamacpp

from .serving import NEW
from .timing import Clock, prompt, seconds


class LlamaCppServer:
    """One slot, whose prompt cache goes on from the longest common beginning: activations quantised
    to 8 bits, keys and values in fp16."""

    def __init__(self, model: str, threads: int) -> None:
        params = xllamacpp.CommonParams()
        params.model.path = model
        params.n_ctx = 8192
        params.n_parallel, params.cache_ram_mib = 1, 0
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        params.warmup = False
        self.server = xllamacpp.Server(params)

    def first_token(self, n_prefix: int, clock: Clock) -> dict[str, float]:
        """Seconds until the first token of a prompt: cold, and after one that began alike."""
        ids = prompt(49152, n_prefix + 2 * NEW)[0].tolist()
        known, first, second = ids[:n_prefix], ids[-2 * NEW : -NEW], ids[-NEW:]
        self._answer([ids[-1]], known=0)
        cold = seconds(lambda: self._answer([*known, *first], known=0), clock)
        warm = seconds(lambda: self._answer([*known, *second], known=n_prefix), clock)
        return {"cold": cold, "warm": warm}

    def _answer(self, ids: list[int], known: int) -> None:
        asked = {"prompt": ids, "n_predict": 1, "temperature": 0, "cache_prompt": True}
        found: Any = self.server.handle_completions(asked)
        assert found["timings"]["cache_n"] == known, found["timings"]
