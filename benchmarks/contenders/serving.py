"""Servers: a prompt whose beginning is known, and many requests at a time."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from typing import Any

import torch

from ... import set_num_threads
from ...model.cache.kv_cache import KVCache
from ...model.load import load
from ...model.serving import Engine, Request
from ...model.sources import open_checkpoint
from ..hugging_face import llama
from .timing import Clock, prompt, seconds

NEW = 32
"""Tokens of a prompt that nobody has seen yet."""

Work = Sequence[tuple[int, int]]
"""Lengths of prompts and of their answers."""


def mixed_work(n: int) -> list[tuple[int, int]]:
    """The same requests for everyone: prompts of 16 to 256 tokens, answers of 8 to 96."""
    draw = random.Random(0)
    return [(draw.randrange(16, 257), draw.randrange(8, 97)) for _ in range(n)]


def prompts_of(d_vocab: int, work: Work) -> list[list[int]]:
    ids = prompt(d_vocab, sum(n for n, _ in work))[0].tolist()
    ends = [sum(n for n, _ in work[: i + 1]) for i in range(len(work))]
    return [ids[end - n : end] for end, (n, _) in zip(ends, work, strict=True)]


class BitlensServing:
    """An `Engine`, and the passes it is made of."""

    def __init__(self, model: str, threads: int, dtype: str) -> None:
        set_num_threads(threads)
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        self.model = load(model, dtype=dtype)  # type: ignore[arg-type]
        self.d_vocab = self.model.config.d_vocab
        self.model.fingerprint()

    def first_token(self, n_prefix: int, clock: Clock) -> dict[str, float]:
        """Seconds until the first token of a prompt: cold, after a prompt that began alike, and of
        a pass over its new tokens on pages that are there; and of looking 4096 tokens up."""
        ids = prompt(self.d_vocab, n_prefix + 3 * NEW)[0].tolist()
        known, first, second = ids[:n_prefix], ids[-2 * NEW : -NEW], ids[-NEW:]
        with Engine(self.model, token_budget=n_prefix + NEW) as engine:
            cold = seconds(lambda: self._answer(engine, [*known, *first]), clock)
            warm = seconds(lambda: self._answer(engine, [*known, *second]), clock)
            assert engine.stats().cache.hit_tokens == n_prefix
            found = 0

            def look_up() -> None:
                nonlocal found
                found = engine.cache.match([*known, *second])

            lookup = seconds(look_up, clock)
            assert found == n_prefix + NEW
        cache = self.model.new_cache()
        self.model.forward_last(torch.tensor([known]), None, cache)
        rest = torch.tensor([second])
        resident = seconds(lambda: self.model.forward_last(rest, None, cache), clock)
        return {"cold": cold, "warm": warm, "resident": resident, "lookup": lookup}

    def serve(self, work: Work, clock: Clock) -> dict[str, float]:
        """Seconds for all answers, at most 32 at a time."""
        prompts = prompts_of(self.d_vocab, work)

        def run() -> None:
            with Engine(self.model, max_running=32, max_waiting=len(work)) as engine:
                pairs = zip(prompts, work, strict=True)
                handles = [
                    engine.submit(Request(ids, max_new_tokens=n, min_new_tokens=n))
                    for ids, (_, n) in pairs
                ]
                for handle in handles:
                    handle.result()

        return {"seconds": seconds(run, clock)}

    def static(self, work: Work, clock: Clock) -> dict[str, float]:
        """Seconds for as many tokens in batches of 32 rows of one length: nothing is padded."""
        n = len(work)
        length, new = sum(p for p, _ in work) // n, sum(a for _, a in work) // n
        tokens_BP = prompt(self.d_vocab, length, 32)

        def run() -> None:
            for _ in range(n // 32):
                cache = KVCache(self.model.config, 32, self.model.ops.policy.activation)
                logits_BV = self.model.forward_last(tokens_BP, None, cache)
                for _ in range(new - 1):
                    tokens_B1 = logits_BV.argmax(-1, keepdim=True)
                    logits_BV = self.model.forward_last(tokens_B1, None, cache)

        exact = sum(p + a for p, a in work) / (n * (length + new))
        return {"seconds": seconds(run, clock) * exact}

    def _answer(self, engine: Engine, ids: list[int]) -> None:
        engine.submit(Request(ids, max_new_tokens=1)).result()


class TransformersServing:
    """transformers: a copied cache, and batched `generate`."""

    def __init__(self, model: str, threads: int, dtype: str) -> None:
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
        self.model: Any = llama(open_checkpoint(model), dtypes[dtype])
        self.model.set_attn_implementation("sdpa")
        self.d_vocab = self.model.config.vocab_size

    def first_token(self, n_prefix: int, clock: Clock) -> dict[str, float]:
        """Seconds until the logits that choose the first token: cold, and with a copy of a
        prompt's cache."""
        ids_BP = prompt(self.d_vocab, n_prefix + NEW)
        cold = seconds(lambda: self.model(ids_BP, use_cache=True, logits_to_keep=1), clock)
        kept = self.model(ids_BP[:, :n_prefix], use_cache=True, logits_to_keep=1).past_key_values

        def warm() -> None:
            past = copy.deepcopy(kept)
            self.model(ids_BP[:, n_prefix:], past_key_values=past, logits_to_keep=1)

        return {"cold": cold, "warm": seconds(warm, clock)}

    def serve(self, work: Work, clock: Clock) -> dict[str, float]:
        """Seconds of `generate` over batches of 32 rows, padded on the left, each as long as its
        longest answer."""
        prompts = prompts_of(self.d_vocab, work)

        def run() -> None:
            for start in range(0, len(work), 32):
                rows, lengths = prompts[start : start + 32], work[start : start + 32]
                width, new = max(map(len, rows)), max(n for _, n in lengths)
                ids_BP = torch.zeros(len(rows), width, dtype=torch.int64)
                mask_BP = torch.zeros_like(ids_BP)
                for b, row in enumerate(rows):
                    ids_BP[b, width - len(row) :] = torch.tensor(row)
                    mask_BP[b, width - len(row) :] = 1
                self.model.generate(
                    ids_BP,
                    attention_mask=mask_BP,
                    max_new_tokens=new,
                    min_new_tokens=new,
                    do_sample=False,
                )

        return {"seconds": seconds(run, clock)}
