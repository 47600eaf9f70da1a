"""Negative control: Hugging Face on SmolLM2 under our comparison must differ, as it does.

Its fp32 prefill and its own decode sum in other orders; were they equal here, our comparison would
be broken.
"""

from __future__ import annotations

from pathlib import Path

import torch
from bitlens.audit.invariance.observation import n_different
from bitlens.benchmarks.hugging_face import llama
from bitlens.model.sources.resolve import open_checkpoint


@torch.no_grad()
def test_hugging_face_prefill_differs_from_its_decode(smollm2_path: Path) -> None:
    checkpoint = open_checkpoint(smollm2_path)
    model = llama(checkpoint, torch.float32)
    assert checkpoint.tokenizer is not None
    text = "Gravity is the force by which a planet draws objects toward its center, and"
    tokens_BP = torch.tensor([checkpoint.tokenizer.encode(text)])
    prefill = model(tokens_BP).logits[0]
    past, pieces = None, []
    for at in range(tokens_BP.shape[1]):
        out = model(tokens_BP[:, at : at + 1], past_key_values=past)
        past = out.past_key_values
        pieces.append(out.logits[0])
    decode = torch.cat(pieces)
    difference = float((prefill - decode).abs().max())
    assert n_different(decode, prefill) > 0
    assert 0 < difference < 1e-2, "not a rounding difference: the control is set up wrongly"
