"""Real compilers on a small model with shared heads and biases, each in its own process."""

from __future__ import annotations

from pathlib import Path

import bitlens
import numpy as np
import pytest
import torch
from bitlens.audit import equivalence
from bitlens.audit.platforms import PLATFORMS, Grade
from bitlens.audit.platforms.remote import PlatformError, run_remotely
from bitlens.audit.platforms.top_k import wrong_top_k
from bitlens.model.interop.plain_llama import require_plain
from support.random_models import random_checkpoint
from support.speaking_llama import write_speaking_llama

PROMPTS = ["the cat sat", "a dog ran", "what is", "hello", "numbers are", "once upon"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_speaking_llama(tmp_path_factory.mktemp("platform"), num_key_value_heads=3)


@pytest.mark.nightly
def test_every_platform(folder: Path) -> None:
    names = [name for name in PLATFORMS if not name.startswith("llama.cpp")]
    if bitlens.isa() == "generic":
        names.remove("avx2")
    rows = {
        row.platform: row
        for row in equivalence(str(folder), names, prompts=PROMPTS, tokens=48).rows
    }
    assert not {name: row.error for name, row in rows.items() if row.error}
    assert rows["generic"].grade is Grade.SAME_BITS
    for name in ("hf", "hf-bf16", "jax", "jax-bf16-strict"):
        assert rows[name].grade is Grade.WITHIN_CONTRACT, rows[name]
        assert rows[name].depth == "operations"
    for name in ("compile", "jax-sharded", "onnx", "onnx-plain"):
        assert rows[name].grade is Grade.EQUIVALENT, rows[name]
        assert rows[name].depth == "logits"


@pytest.mark.nightly
def test_grouped_heads_and_biases() -> None:
    import onnxruntime
    from bitlens.model.interop.jax_llama import jax_llama
    from bitlens.model.interop.onnx_llama import onnx_llama

    checkpoint = random_checkpoint("qwen2")
    model = bitlens.load(checkpoint)
    tokens = np.arange(3, 23) % model.config.d_vocab
    true = model(torch.from_numpy(tokens)[None])[0]
    scale = true.abs().max()
    session = onnxruntime.InferenceSession(onnx_llama(checkpoint, len(tokens)))
    for found in (
        jax_llama(checkpoint, "float32")(tokens),
        session.run(None, {"tokens": tokens})[0],
    ):
        assert (torch.from_numpy(found) - true).abs().max() < 1e-5 * scale


@pytest.mark.nightly
@pytest.mark.parametrize("d_vocab", [256, 259])
def test_best_tokens_over_eight_devices(d_vocab: int, tmp_path: Path) -> None:
    """The lists are exact and the logits those of one device, also where a shard is filled up."""
    folder = write_speaking_llama(tmp_path, vocab_size=d_vocab)
    tokens = torch.arange(3, 23)[None]
    environment = PLATFORMS["jax-sharded"].environment
    (sharded,) = run_remotely(str(folder), "jax-sharded", environment, tokens, 20)
    (whole,) = run_remotely(str(folder), "jax", {}, tokens, 20)
    assert sharded.logits.shape == (20, d_vocab)
    assert sharded.top is not None
    assert sharded.top.shape == (20, 50)
    assert not wrong_top_k(sharded.logits, sharded.top).any()
    assert (sharded.logits - whole.logits).abs().max() < 1e-5 * whole.logits.abs().max()
    with pytest.raises(PlatformError, match="XLA_FLAGS"):
        list(run_remotely(str(folder), "jax-sharded", {}, tokens, 20))


@pytest.mark.nightly
def test_jax_with_and_without_64_bits(folder: Path) -> None:
    """The model states the format of every value, so the switch moves no bit."""
    tokens = torch.arange(3, 23)[None]
    off, on = (
        list(run_remotely(str(folder), "jax", {"JAX_ENABLE_X64": switch}, tokens, 20))
        for switch in ("0", "1")
    )
    assert torch.equal(off[0].logits.view(torch.int32), on[0].logits.view(torch.int32))


def test_what_a_plain_llama_has_not_is_named() -> None:
    require_plain(random_checkpoint("llama"))
    with pytest.raises(ValueError, match=r"soft caps.*sandwich norms"):
        require_plain(random_checkpoint("gemma2"))
