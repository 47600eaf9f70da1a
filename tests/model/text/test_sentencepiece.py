"""SentencePiece BPEs rebuilt from GGUF metadata."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import sentencepiece
from bitlens.model.sources.sentencepiece_bpe import SPACE
from bitlens.model.weights.checkpoint import CheckpointError
from hypothesis import given, settings
from hypothesis import strategies as st
from support.trained_tokenizers import CORPUS, rebuild, texts


def train_sentencepiece(**options: Any) -> sentencepiece.SentencePieceProcessor:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 4),
        model_writer=model,
        model_type="bpe",
        vocab_size=360,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
        **options,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


USER_DEFINED = ["\n", "\n\n", "\n\n\n", "▁▁", "▁▁▁", "<b>", "</b>", "[x]"]


@pytest.fixture(scope="session")
def sentencepiece_model() -> sentencepiece.SentencePieceProcessor:
    return train_sentencepiece()


@pytest.fixture(scope="session")
def gemma_like() -> sentencepiece.SentencePieceProcessor:
    """User-defined tokens, some of them runs of spaces, and no space put first: as Gemma's."""
    return train_sentencepiece(user_defined_symbols=USER_DEFINED, add_dummy_prefix=False)


def sentencepiece_metadata(
    model: sentencepiece.SentencePieceProcessor, user_defined: Sequence[str] = ()
) -> dict[str, Any]:
    n = model.vocab_size()
    pieces = [model.id_to_piece(i) for i in range(n)]
    types = [
        2 if model.is_unknown(i) else 3 if model.is_control(i) else 6 if model.is_byte(i) else 1
        for i in range(n)
    ]
    for i, piece in enumerate(pieces):
        if piece in user_defined:  # convert_hf_to_gguf.py writes their spaces as such
            pieces[i], types[i] = piece.replace(SPACE, " "), 4
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": pieces,
        "tokenizer.ggml.scores": np.array([model.get_score(i) for i in range(n)], "f4"),
        "tokenizer.ggml.token_type": np.array(types),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }


@settings(max_examples=100)
@given(text=texts.filter(lambda t: "\0" not in t and SPACE not in t))
def test_sentencepiece_bpe_gives_sentencepiece_ids(
    text: str, sentencepiece_model: sentencepiece.SentencePieceProcessor
) -> None:
    tokenizer = rebuild(sentencepiece_metadata(sentencepiece_model))
    ids = tokenizer.encode(text)
    assert ids == sentencepiece_model.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.prepends_bos


@settings(max_examples=100)
@given(
    text=st.lists(st.one_of(texts, st.sampled_from([*USER_DEFINED, " ", "   \n", "<", "b>"])))
    .map("".join)
    .map(lambda t: t.replace(SPACE, " ").replace("\0", ""))
)
def test_user_defined_tokens_give_sentencepiece_ids(
    text: str, gemma_like: sentencepiece.SentencePieceProcessor
) -> None:
    metadata = sentencepiece_metadata(gemma_like, USER_DEFINED) | {
        "tokenizer.ggml.add_space_prefix": False
    }
    assert (metadata["tokenizer.ggml.token_type"] == 4).sum() == len(USER_DEFINED)
    tokenizer = rebuild(metadata)
    ids = tokenizer.encode(text)
    assert ids == gemma_like.encode(text)
    assert tokenizer.decode(ids) == text


def test_user_defined_tokens_that_may_see_spaces_either_way_are_refused(
    gemma_like: sentencepiece.SentencePieceProcessor,
) -> None:
    metadata = sentencepiece_metadata(gemma_like, USER_DEFINED)
    with pytest.raises(CheckpointError, match=r"user-defined tokens beside.*tokenizer\.json"):
        rebuild(metadata)
    tokens = [t.replace("  ", SPACE * 2) for t in metadata["tokenizer.ggml.tokens"]]
    raw = {"tokenizer.ggml.add_space_prefix": False, "tokenizer.ggml.tokens": tokens}
    with pytest.raises(CheckpointError, match=r"user-defined tokens.*tokenizer\.json"):
        rebuild(metadata | raw)
