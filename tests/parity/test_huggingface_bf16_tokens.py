"""hf_bf16 against Hugging Face bf16 eager on SmolLM2: the tokens of greedy prompts.

The prompt and Hugging Face's own greedy continuation are fed to both; wherever the best next token
differs, Hugging Face's margin between the two is listed. docs/accuracy.md has the list of 64.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import get_args

import bitlens
import pytest
import torch
from bitlens.audit.postmortem import shipped_prompts
from bitlens.model.interop.transformers_llama import transformers_llama
from bitlens.model.load import Backend
from bitlens.model.weights.checkpoint import Checkpoint

NEW_TOKENS = 8


@dataclass(frozen=True)
class Disagreement:
    prompt: int
    position: int
    margin_in_ulps: float  # of the best logit, in bf16


@dataclass
class Comparison:
    """Of one backend: positions compared, those where the tokens differ, and the share of logits
    with equal bits."""

    backend: Backend
    positions: int = 0
    logits: int = 0
    equal_logits: int = 0
    differing: list[Disagreement] = field(default_factory=list)

    def add(self, prompt: int, position: int, our_V: torch.Tensor, their_V: torch.Tensor) -> None:
        """Takes one position's logits, theirs in bf16."""
        their_V = their_V.float()
        self.positions += 1
        self.logits += len(our_V)
        self.equal_logits += int((our_V == their_V).sum())
        best = their_V.max()
        if our_V.argmax() != their_V.argmax():
            ulp = 2.0 ** (int(best.abs().log2().floor()) - 7)
            margin = float(best - their_V[our_V.argmax()])
            self.differing.append(Disagreement(prompt, position, margin / ulp))


@torch.no_grad()
def compare(checkpoint: Checkpoint, n_prompts: int) -> list[Comparison]:
    """Both backends against one greedy run of Hugging Face's."""
    models = {
        backend: bitlens.load(checkpoint, dtype="hf_bf16", backend=backend)
        for backend in get_args(Backend)
    }
    found = {backend: Comparison(backend) for backend in models}
    theirs = transformers_llama(checkpoint, torch.bfloat16)
    assert checkpoint.tokenizer is not None
    for i, text in enumerate(shipped_prompts()[:n_prompts]):
        prompt_BP = torch.tensor([checkpoint.tokenizer.encode(text)])
        tokens_BP = theirs.generate(
            prompt_BP, max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0
        )
        chosen = slice(prompt_BP.shape[1] - 1, tokens_BP.shape[1] - 1)
        logits_PV = theirs(tokens_BP).logits[0, chosen]
        for backend, model in models.items():
            rows = zip(model(tokens_BP)[0, chosen], logits_PV, strict=True)
            for at, (our_V, their_V) in enumerate(rows):
                found[backend].add(i, chosen.start + at, our_V, their_V)
    return list(found.values())


def check(checkpoint: Checkpoint, n_prompts: int) -> None:
    for one in compare(checkpoint, n_prompts):
        assert one.positions > 4 * n_prompts
        # Positions where transformers' best two logits are one bf16 number or neighbours.
        assert len(one.differing) <= 0.04 * one.positions, one
        # Both logits are rounded to bf16, by half an ULP each, from sums of another order.
        assert all(d.margin_in_ulps <= 2 for d in one.differing), one
        assert one.equal_logits > 0.05 * one.logits, one


def test_tokens_of_greedy_prompts(smollm2: Checkpoint) -> None:
    check(smollm2, 4)


@pytest.mark.nightly
def test_tokens_of_64_greedy_prompts(smollm2: Checkpoint) -> None:
    check(smollm2, 64)
