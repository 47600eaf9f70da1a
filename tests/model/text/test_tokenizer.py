"""Tokenizers rebuilt from GGUF metadata, byte-level BPE and Gemma's; special tokens and chat."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bitlens.model.sources import open_checkpoint
from bitlens.model.sources.gguf_tokenizer import PRE_TOKENIZERS, tokenizer_from_gguf
from bitlens.model.sources.sentencepiece_bpe import SPACE
from bitlens.model.text.chat_template import ChatTemplateError
from bitlens.model.text.tokenizer import Tokenizer
from bitlens.model.weights.checkpoint import Checkpoint, CheckpointError
from hypothesis import given, settings
from hypothesis import strategies as st
from support.gguf_writer import LLAMA_METADATA, Typed, gguf_bytes, llama_tensors
from support.trained_tokenizers import definition, metadata_of, rebuild, texts
from tokenizers import AddedToken


@pytest.fixture(scope="session")
def metadata() -> dict[str, Any]:
    return metadata_of(definition("smollm"), "smollm")


@pytest.fixture(scope="session")
def smollm2(smollm2_path: Path) -> Tokenizer:
    tokenizer = open_checkpoint(smollm2_path).tokenizer
    assert tokenizer is not None
    return tokenizer


PAIRS = {
    pre: (original := definition(pre), rebuild(metadata_of(original, pre)))
    for pre in ("gpt-2", "smollm", "llama-bpe", "qwen2")
}


@settings(max_examples=100)
@given(texts, st.sampled_from(sorted(PAIRS)))
def test_gguf_gives_the_ids_of_the_original(text: str, pre: str) -> None:
    original, rebuilt = PAIRS[pre]
    with_special = f"<|im_start|>{text}<|im_end|>\n{text}"
    for t in (text, with_special):
        ids = original.encode(t, add_special_tokens=False).ids
        assert rebuilt.encode(t) == ids
        assert rebuilt.decode(ids) == original.decode(ids)


def test_pre_tokenizers_differ_where_they_should() -> None:
    """Negative control: the kinds of the test above are not one and the same."""
    pieces = {
        pre: original.pre_tokenizer.pre_tokenize_str("It'S 1234!\n\n x")
        for pre, (original, _) in PAIRS.items()
    }
    assert len({str(p) for p in pieces.values()}) == len(pieces)
    assert set(PAIRS) <= set(PRE_TOKENIZERS)


@pytest.mark.parametrize(
    ("text", "ids"),
    [  # what llama.cpp gives for the file
        ("Hello world", [19556, 905]),
        ("1234 don't\n\n  x", [33, 34, 35, 36, 1326, 982, 8866, 1792]),
        ("<|im_start|>user", [1, 4093]),
        ("", []),
    ],
)
def test_smollm2_ids(smollm2: Tokenizer, text: str, ids: list[int]) -> None:
    assert smollm2.encode(text) == ids
    assert smollm2.decode(ids, skip_special=False) == text


@pytest.fixture(scope="session")
def gemma3(gemma3_checkpoint: Checkpoint) -> Tokenizer:
    tokenizer = gemma3_checkpoint.tokenizer
    assert tokenizer is not None
    return tokenizer


@pytest.mark.parametrize(
    ("text", "ids"),
    [  # what llama.cpp gives for the file
        ("Hello world", [9259, 1902]),
        ("  two  spaces and\ta tab", [138, 13498, 138, 35220, 532, 255968, 236746, 6937]),
        (" " * 40 + "x" + "\n" * 35, [167, 145, 236781, 137, 110]),
        ("a   b\n\n\nc\t\td", [236746, 139, 236763, 109, 236755, 255969, 236753]),
        (
            "<0x0A> <unused3> <table><tr>",
            [236820, 236771, 236781, 236771, 236776, 236813, 236743, 9, 236743, 168, 173],
        ),
        ("日本語 žluť 🙂🇩🇪 नमस्ते", [94951, 8023, 6357, 238116, 57235, 246841, 245562, 173040]),
        ("▁▁ x ▁", [236743, 236743, 1123, 236743, 236743]),
        (
            "def f(x):\n    return x  # 1",
            [2063, 517, 236769, 236781, 1473, 107, 140, 2060, 1123, 138, 236865, 236743, 236770],
        ),
        ("<start_of_turn>user\nhi<end_of_turn>\n", [105, 2364, 107, 2202, 106, 107]),
        ("[multimodal]", [5]),
        ("\x01\x7f\r\n", [249732, 251541, 251, 107]),
        ("½ﬁe\u0301\U000f0000", [238612, 240811, 236744, 238288, 481, 414, 366, 366]),
        ("</h2><h7>", [192, 236820, 236754, 236832, 236813]),
        ("", []),
    ],
)
def test_gemma3_ids(gemma3: Tokenizer, text: str, ids: list[int]) -> None:
    assert gemma3.encode(text) == ids
    assert gemma3.decode(ids, skip_special=False) == text.replace(SPACE, " ")


@given(text=texts.filter(lambda t: SPACE not in t))
def test_gemma3_loses_no_text(gemma3: Tokenizer, text: str) -> None:
    ids = gemma3.encode(text)
    assert gemma3.decode(ids, skip_special=False) == text
    assert all(0 <= i < gemma3.n_tokens for i in ids)


def test_gemma3_is_a_base_model(gemma3: Tokenizer) -> None:
    assert (gemma3.bos_id, gemma3.eos_ids, gemma3.pad_id) == (2, (1,), 0)
    assert gemma3.prepends_bos
    assert gemma3.encode("a", add_bos=True)[0] == 2
    with pytest.raises(ChatTemplateError, match="no chat template"):
        gemma3.apply_chat_template([{"role": "user", "content": "Hi"}])


# Bytes without a token in SmolLM2's vocabulary, in Hugging Face's too.
ABSENT = b"\x04\x06\x13\x14\x16\x1d\xf1\xf2"


def test_smollm2_drops_bytes_it_has_no_token_for(smollm2: Tokenizer) -> None:
    assert smollm2.encode("a\x04b\x1d") == smollm2.encode("a") + smollm2.encode("b")


@given(text=texts.filter(lambda t: not set(t.encode()) & set(ABSENT)))
def test_smollm2_loses_no_other_text(smollm2: Tokenizer, text: str) -> None:
    ids = smollm2.encode(text)
    assert smollm2.decode(ids, skip_special=False) == text
    assert all(0 <= i < smollm2.n_tokens for i in ids)


def test_smollm2_special_tokens_and_chat(smollm2: Tokenizer) -> None:
    assert (smollm2.bos_id, smollm2.eos_ids, smollm2.pad_id) == (1, (2,), 2)
    assert not smollm2.prepends_bos
    assert smollm2.encode("a", add_bos=True) == [1, *smollm2.encode("a")]
    assert smollm2.token_strings([19556, 1, 184]) == [
        "Hello",
        "<|im_start|>",
        "\N{REPLACEMENT CHARACTER}",
    ]
    text = smollm2.apply_chat_template([{"role": "user", "content": "Hi"}])
    assert text.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    assert text.startswith("<|im_start|>system\nYou are a helpful AI assistant")
    silent = smollm2.apply_chat_template([{"role": "user", "content": "Hi"}], False)
    assert silent == text.removesuffix("<|im_start|>assistant\n")


def test_ids_that_stand_for_nothing(smollm2: Tokenizer) -> None:
    assert smollm2.decode([19556, 10**6, 905]) == "Hello world"
    assert smollm2.token(10**6) is None
    with pytest.raises(ValueError, match="negative"):
        smollm2.decode([-1])
    with pytest.raises(ValueError, match="negative"):
        smollm2.token(-1)


def test_bos_and_ends_of_turn_from_metadata(metadata: dict[str, Any]) -> None:
    extra = {"tokenizer.ggml.eot_token_id": 0, "tokenizer.ggml.add_bos_token": True}
    tokenizer = rebuild(metadata | extra)
    assert tokenizer.eos_ids == (2, 0)
    assert tokenizer.prepends_bos
    assert rebuild(metadata | {"tokenizer.ggml.pre": "llama-bpe"}).prepends_bos
    without = rebuild({k: v for k, v in metadata.items() if "bos" not in k})
    with pytest.raises(ValueError, match="no token that begins"):
        without.encode("a", add_bos=True)


TURN_ENDS = ["<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>", "<|eom_id|>"]


@pytest.mark.parametrize("end", TURN_ENDS)
def test_ends_of_turn_are_known_by_name(metadata: dict[str, Any], end: str) -> None:
    """SmolLM2's layout: the key names the end of the text, none the end of a turn."""
    tokens = [end if t == "<|im_end|>" else t for t in metadata["tokenizer.ggml.tokens"]]
    file = metadata | {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.eos_token_id": 0}
    assert rebuild(file).eos_ids == (0,)  # a base model has no turns
    file["tokenizer.chat_template"] = "{{ messages[0].content }}"
    assert rebuild(file).eos_ids == (0, 2)
    assert rebuild(file | {"tokenizer.ggml.eot_token_id": 1}).eos_ids == (0, 1)
    named = rebuild(file | {"tokenizer.ggml.unknown_token_id": 1}).special_tokens
    assert (named["eos_token"], named["unk_token"]) == ("<|endoftext|>", "<|im_start|>")


def test_user_defined_tokens_match_whole_but_are_not_special(metadata: dict[str, Any]) -> None:
    types = metadata["tokenizer.ggml.token_type"].copy()
    types[1] = 4
    tokenizer = rebuild(metadata | {"tokenizer.ggml.token_type": types})
    assert tokenizer.encode("<|im_start|>") == [1]
    assert tokenizer.decode([1, 2]) == "<|im_start|>"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model", "rwkv", "supported are 'gpt2', 'llama'"),
        ("pre", "tekken", r"pre = 'tekken': supported are gpt-2, smollm.*tokenizer\.json"),
        ("pre", None, "pre = None"),
        ("tokens", ["a", "a"], "no token twice"),
        ("tokens", [], "0 tokens"),
        ("tokens", ["a"] * 513, "513 tokens for a vocabulary of 512"),
        ("tokens", 7, "array of strings"),
        ("merges", ["Ġt"], "merges of known tokens"),
        ("merges", ["a b c"], "merges of known tokens"),
        ("merges", ["Ġ nonsense"], "merges of known tokens"),
        ("token_type", np.array([1]), "numbers"),
        ("token_type", None, "numbers"),
        ("bos_token_id", 511, "special token id 511"),
        ("eos_token_id", "2", "an integer"),
        ("add_bos_token", 1, "true or false"),
    ],
)
def test_damaged_metadata_is_named(
    metadata: dict[str, Any], key: str, value: Any, message: str
) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        tokenizer_from_gguf(metadata | {f"tokenizer.ggml.{key}": value}, 512, "m.gguf")
    assert str(caught.value).startswith("m.gguf: ")


@settings(max_examples=100)
@given(data=st.data())
def test_mutated_tokenizers_raise_or_load(
    data: st.DataObject, metadata: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    types = Typed("i32", metadata["tokenizer.ggml.token_type"].tolist())
    tensors = llama_tensors(np.random.default_rng(0), "Q4_0", vocab=len(types.value))
    fields = {**LLAMA_METADATA, **metadata, "tokenizer.ggml.token_type": types}
    mutated = bytearray(gguf_bytes(fields, tensors))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(400, 9000))
        mutated[at] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "tokenizer.gguf"
    path.write_bytes(mutated)
    try:
        tokenizer = open_checkpoint(path).tokenizer
    except CheckpointError:
        return
    if tokenizer is not None:
        assert isinstance(tokenizer.decode(tokenizer.encode("the theory <|im_end|> 12")), str)


def test_added_tokens_beyond_the_base_vocabulary_count() -> None:
    backend = definition("gpt-2")
    before = Tokenizer(backend).n_tokens
    backend.add_tokens([AddedToken("<extra>")])
    assert Tokenizer(backend).n_tokens == before + 1
