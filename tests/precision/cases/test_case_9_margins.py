"""Case 9, MarginGate (arXiv:2605.30218) and pegainfer#174: tokens that hang on the last bit.

With logits in bf16, 20.75 against 20.625 is a margin of one step: a kernel that leaves out a
rounding inside RoPE makes it a tie, and the tie goes to the other token.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import bitlens
import torch
from bitlens import HookedTransformer
from bitlens.model.sources import open_checkpoint
from bitlens.precision.contract import PrecisionContract
from bitlens.precision.contracts import HUGGINGFACE_LLAMA_BF16, bitlens_contract
from bitlens.precision.divergence import first_divergence
from bitlens.precision.emulation import emulate
from bitlens.precision.faults import FAULTS
from bitlens.precision.flips import Observed, flip_certificate
from bitlens.precision.head import Heads
from bitlens.precision.oracle import check
from support.conventional import assert_close, liger_rope_close

ROPE = HUGGINGFACE_LLAMA_BF16["rope"]
PROMPTS = Path(bitlens.__file__).resolve().parent / "audit" / "postmortem" / "prompts.txt"


def test_a_missing_rounding_inside_rope() -> None:
    """pegainfer#174's cause: the products are not rounded to bf16 before they are added."""
    generator = torch.Generator().manual_seed(6)
    x = torch.randn(4, 32, 64, generator=generator).bfloat16()
    inputs = {"x": x, "positions": torch.arange(32), "theta": 1e6}
    honest = emulate(inputs, ROPE)
    faulty = emulate(inputs, ROPE, FAULTS["excess_precision"])
    liger_rope_close(faulty, honest)
    assert check(honest, inputs, ROPE).ok
    verdict = check(faulty, inputs, ROPE)
    assert not verdict.ok
    assert "rope[" in verdict.reason


def test_a_margin_of_one_step_is_no_margin() -> None:
    """20.75 against 20.625 in bf16, 0.01 apart before the rounding."""
    h = torch.tensor([[16.0, 4.0]])
    W_U = torch.tensor([[1.25, 1.25], [0.1737, 0.1712]])
    fp32 = PrecisionContract("matmul")
    bf16 = PrecisionContract("matmul", output="bf16")
    logits = h @ W_U
    assert logits.bfloat16().tolist() == [[20.75, 20.625]]
    for head, certified in ((bf16, False), (fp32, True)):
        evidence = Observed(Heads(W_U, fp32, head), h, h)
        assert flip_certificate(logits, evidence).certified_T.tolist() == [certified]


def bf16_logits(original: Callable[..., torch.Tensor], *args: Any, **kwargs: Any) -> torch.Tensor:
    return original(*args, **kwargs).bfloat16().float()


def test_rounded_logits_tie_where_no_position_is_certified(
    models: tuple[HookedTransformer, HookedTransformer], smollm2_path: Path
) -> None:
    model = models[0]
    lines = PROMPTS.read_text(encoding="utf-8").splitlines()[::36]
    logits, hidden = [], []
    for line in lines:
        seen, cache = model.run_with_cache(line, names_filter="unembed.hook_in")
        logits.append(seen[0])
        hidden.append(cache["unembed.hook_in"][0])
    logits_TV, hidden_Td = torch.cat(logits), torch.cat(hidden)
    rounded_TV = logits_TV.bfloat16()
    assert_close(rounded_TV, logits_TV)

    best_TV = rounded_TV == rounded_TV.amax(1, keepdim=True)
    tied_T = best_TV.sum(1) > 1
    flipped_T = rounded_TV.argmax(1) != logits_TV.argmax(1)
    assert bool(tied_T.any())
    assert bool(flipped_T.any())

    W_U = open_checkpoint(smollm2_path).matrix("embed.weight").dequantize().bfloat16().mT
    honest = bitlens_contract("unembed", "bf16")
    heads = Heads(W_U, honest, PrecisionContract("matmul", storage="bf16"))
    certificate = flip_certificate(logits_TV, Observed(heads, hidden_Td, hidden_Td))
    assert not bool((certificate.certified_T & (tied_T | flipped_T)).any())
    assert bool(certificate.certified_T.any())


def test_lockstep_names_the_unembedding(
    models: tuple[HookedTransformer, HookedTransformer],
) -> None:
    tokens = models[0].to_tokens("The capital of France is")[0]
    with models[1].override("unembed", bf16_logits):
        found = first_divergence(models[0], models[1], tokens, mode="lockstep")
    assert found.created == ("unembed",)
