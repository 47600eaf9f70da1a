"""llama.cpp on small GGUF files: what it rounds makes it another program, and nothing else does."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import bitlens
import numpy as np
import pytest
import torch
from bitlens.audit import equivalence
from bitlens.audit.platforms import Grade
from bitlens.model.interop.gguf_widened import write_widened
from bitlens.model.interop.llama_cpp import gguf_path, require_llama_cpp, roundings
from bitlens.model.sources.resolve import open_checkpoint
from support.gguf_writer import LLAMA_METADATA, Typed, gguf_bytes, llama_tensors, write_shards
from support.speaking_llama import write_speaking_llama
from support.trained_tokenizers import definition, metadata_of

HAS_LLAMA_CPP = importlib.util.find_spec("xllamacpp") is not None
PROMPTS = ["the theory", "hello world", "don't", "1234", "the thing", "new line"]


def write_gguf(path: Path, kind: str, **metadata: object) -> Path:
    """A Llama of two layers with a tokenizer, matrices stored as `kind`."""
    words = metadata_of(definition("smollm"), "smollm")
    types = Typed("i32", words["tokenizer.ggml.token_type"].tolist())
    tensors = llama_tensors(np.random.default_rng(0), kind, layers=2, vocab=len(types.value))
    fields = {**LLAMA_METADATA, **words, "tokenizer.ggml.token_type": types}
    fields |= {"llama.block_count": 2, "llama.rope.dimension_count": 16, **metadata}
    path.write_bytes(gguf_bytes(fields, tensors))
    return path


@pytest.mark.nightly
@pytest.mark.skipif(not HAS_LLAMA_CPP, reason="extra llama-cpp is not installed")
@pytest.mark.parametrize("kind", ["F32", "F16", "Q4_1"])
def test_rounded_activations_are_another_program(kind: str, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "model.gguf", kind)
    names = ["llama.cpp", "llama.cpp-wide"]
    plain, wide = equivalence(str(path), names, prompts=PROMPTS, tokens=32).rows
    assert (plain.error, wide.error) == (None, None)
    assert plain.positions == wide.positions == 4 * len(PROMPTS)
    assert wide.grade is Grade.EQUIVALENT, wide
    assert plain.grade is Grade.NOT_SHOWN
    assert plain.is_different
    assert plain.ratio is not None
    assert plain.ratio > (1000 if kind == "Q4_1" else 100)


def test_what_is_rounded_is_said(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "q4.gguf", "Q4_1")
    said = roundings(open_checkpoint(path))
    assert "activations to 8 bits, a block at a time, before products with 15 Q4_1 matrices" in said
    half = roundings(open_checkpoint(write_gguf(tmp_path / "f16.gguf", "F16")))
    assert "activations to fp16 before products with 15 F16 matrices" in half
    wide = roundings(open_checkpoint(write_gguf(tmp_path / "f32.gguf", "F32")))
    assert wide == "llama.cpp rounds keys and values to fp16"


@pytest.mark.parametrize("kind", ["Q4_1", "Q8_0", "F16"])
def test_a_widened_copy_is_the_same_model(kind: str, tmp_path: Path) -> None:
    """Same bits of logits, and the same tokenizer."""
    path, copy = write_gguf(tmp_path / "model.gguf", kind), tmp_path / "wide.gguf"
    write_widened(path, copy)
    a, b = bitlens.load(path), bitlens.load(copy)
    assert torch.equal(a(torch.arange(20)[None]), b(torch.arange(20)[None]))
    assert a.to_tokens("the theory").equal(b.to_tokens("the theory"))
    assert "fp16" in roundings(open_checkpoint(path))
    assert "activations" not in roundings(open_checkpoint(copy))


def test_other_files_are_refused(tmp_path: Path) -> None:
    folder = write_speaking_llama(tmp_path / "hf")
    with pytest.raises(ValueError, match="convert_hf_to_gguf"):
        gguf_path(open_checkpoint(folder))
    (row,) = equivalence(str(folder), ["llama.cpp"], prompts=PROMPTS, tokens=8).rows
    assert row.grade is Grade.NOT_RUN
    assert "convert_hf_to_gguf" in (row.error or "")
    shards = write_shards(tmp_path, LLAMA_METADATA, llama_tensors(np.random.default_rng(0)), 2)
    with pytest.raises(ValueError, match="gguf-split"):
        write_widened(shards[0], tmp_path / "wide.gguf")


@pytest.mark.skipif(HAS_LLAMA_CPP, reason="extra llama-cpp is installed")
def test_without_the_extra_it_is_named(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"pip install 'bitlens\[llama-cpp\]'"):
        require_llama_cpp()
    path = write_gguf(tmp_path / "model.gguf", "Q4_1")
    (row,) = equivalence(str(path), ["llama.cpp"], prompts=PROMPTS, tokens=8).rows
    assert row.grade is Grade.NOT_RUN
    assert "bitlens[llama-cpp]" in (row.error or "")
