"""Samplers on the same heavy-tailed logits: bitlens', and torch's ways to do as much."""

from __future__ import annotations

import torch

from ... import load, set_num_threads
from ...audit.postmortem.experiment import shipped_prompts
from ...sampling import LocalGroup, SamplingParams, sample, sample_shards
from .timing import seconds_per_call


def heavy_tailed(batch: int, vocab: int) -> torch.Tensor:
    """Logits of a Zipf law with exponent 1.1 in random order, [batch, vocab]."""
    generator = torch.Generator().manual_seed(vocab)
    ranks = torch.stack([torch.randperm(vocab, generator=generator) for _ in range(batch)])
    return -1.1 * ranks.add(1).float().log()


class BitlensSampler:
    """`bitlens.sampling.sample`."""

    def __init__(self, threads: int) -> None:
        set_num_threads(threads)

    def sample(
        self,
        batch: int,
        vocab: int,
        top_k: int | None = None,
        top_p: float | None = None,
        at_least: float = 0.2,
    ) -> dict[str, float]:
        """Seconds of a token a row."""
        logits = heavy_tailed(batch, vocab)
        params = [SamplingParams(top_k=top_k, top_p=top_p, seed=seed) for seed in range(batch)]
        positions = range(batch)
        return {
            "seconds": seconds_per_call(
                lambda: sample(logits, params, positions=positions), at_least
            )
        }

    def bytes_received(
        self, vocab: int, shards: int, tokens: int, top_k: int | None, top_p: float | None
    ) -> dict[str, float]:
        """Bytes a rank receives for a token of heavy-tailed logits: mean and most."""
        logits_BV = heavy_tailed(1, vocab).expand(tokens, -1)
        return _bytes_received(logits_BV, shards, top_k, top_p)

    def bytes_received_on(
        self, model: str, shards: int, tokens: int, top_k: int | None, top_p: float | None
    ) -> dict[str, float]:
        """The same on a model's logits after that many prompts."""
        llm = load(model)
        logits = [llm.forward_last(prompt) for prompt in shipped_prompts()[:tokens]]
        return _bytes_received(torch.cat(logits), shards, top_k, top_p)


def _bytes_received(
    logits_BV: torch.Tensor, shards: int, top_k: int | None, top_p: float | None
) -> dict[str, float]:
    received = []
    for position, logits_V in enumerate(logits_BV):
        group = LocalGroup(shards)
        params = SamplingParams(top_k=top_k, top_p=top_p, seed=position)
        slices = logits_V[None].tensor_split(shards, dim=1)
        sample_shards(list(slices), params, positions=[position], group=group)
        received.append(max(group.bytes_received))
    return {"mean": sum(received) / len(received), "most": max(received)}


class TorchSampler:
    """What one would write in torch."""

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)

    def top_k(self, batch: int, vocab: int, k: int, at_least: float = 0.2) -> dict[str, float]:
        """Seconds of `torch.topk` alone."""
        logits = heavy_tailed(batch, vocab)
        return {"seconds": seconds_per_call(lambda: torch.topk(logits, k), at_least)}

    def top_p(
        self, batch: int, vocab: int, top_p: float, at_least: float = 0.2
    ) -> dict[str, float]:
        """Seconds of softmax, sort, cumsum, mask, multinomial."""
        logits = heavy_tailed(batch, vocab)

        def call() -> None:
            probs, ids = torch.softmax(logits, dim=-1).sort(dim=-1, descending=True)
            probs[probs.cumsum(dim=-1) - probs >= top_p] = 0
            ids.gather(1, torch.multinomial(probs, 1))

        return {"seconds": seconds_per_call(call, at_least)}

    def multinomial(self, batch: int, vocab: int, at_least: float = 0.2) -> dict[str, float]:
        """Seconds of softmax and multinomial."""
        logits = heavy_tailed(batch, vocab)
        return {
            "seconds": seconds_per_call(
                lambda: torch.multinomial(torch.softmax(logits, dim=-1), 1), at_least
            )
        }
