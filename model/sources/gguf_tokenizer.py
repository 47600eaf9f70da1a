"""The tokenizer in a GGUF file's metadata, rebuilt with the `tokenizers` library.

GGUF names the pre-tokenizer instead of describing it. Only those are listed whose Hugging Face
definition is known and gives the same ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from ..text.library_errors import library_errors
from ..text.tokenizer import Tokenizer
from ..weights.checkpoint import CheckpointError
from .sentencepiece_bpe import CONTROL, USER_DEFINED, WAY_OUT, sentencepiece_bpe


@dataclass(frozen=True, kw_only=True)
class PreTokenizer:
    """The rule by which a byte-level BPE splits text before merging.

    Attributes:
        split: A regular expression of the pieces; None is GPT-2's, built into ByteLevel.
        digits: Every digit is a piece of its own.
        nfc: Text is NFC-normalised first.
        ignore_merges: A piece that is in the vocabulary is not merged up from bytes.
        prepends_bos: Where the file does not say.
    """

    split: str | None = None
    digits: bool = False
    nfc: bool = False
    ignore_merges: bool = False
    prepends_bos: bool = False


def _split(n_digits: str) -> str:
    """The expression that Llama 3 and Qwen share; they differ in how many digits make a piece."""
    return (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + n_digits + "|"
        r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )


_LLAMA3 = PreTokenizer(split=_split("{1,3}"), ignore_merges=True, prepends_bos=True)

PRE_TOKENIZERS: Mapping[str, PreTokenizer] = {
    "gpt-2": PreTokenizer(),
    "smollm": PreTokenizer(digits=True),
    "starcoder": PreTokenizer(digits=True),
    "refact": PreTokenizer(digits=True),
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "qwen2": PreTokenizer(split=_split(""), nfc=True),
}


# What a chat template calls them -> what GGUF does.
_SPECIAL_TOKENS = {
    "bos_token": "bos",
    "eos_token": "eos",
    "unk_token": "unknown",
    "pad_token": "padding",
}

# Texts that end a turn or a message in llama.cpp, whichever keys a file has (src/llama-vocab.cpp,
# special_eog_ids; https://github.com/ggml-org/llama.cpp). Its ends of documents, such as
# <|endoftext|>, end a generation here where a key says so.
_TURN_ENDS = frozenset(
    (
        "<|eot_id|>",
        "<|im_end|>",
        "<|end|>",
        "<end_of_turn>",
        "<|eom_id|>",
        "<EOT>",
        "_<EOT>",
        "[EOT]",
        "<end_of_utterance>",
    )
)


def tokenizer_from_gguf(metadata: Mapping[str, Any], d_vocab: int, file: str) -> Tokenizer | None:
    """The tokenizer, or None where the file has none.

    Raises:
        CheckpointError: it is damaged, or of a kind that cannot be rebuilt exactly.
    """
    kind = metadata.get("tokenizer.ggml.model")
    if kind is None:
        return None
    if not isinstance(kind, str):
        raise CheckpointError(f"{file}: tokenizer.ggml.model: expected a string")
    read = _Metadata(metadata, file)
    tokens = read.strings("tokens")
    if not 1 <= len(tokens) <= d_vocab:
        raise CheckpointError(f"{file}: {len(tokens)} tokens for a vocabulary of {d_vocab}")
    if kind == "gpt2":
        backend, prepends_bos = _byte_level_bpe(read, tokens)
    elif kind == "llama":
        backend = sentencepiece_bpe(
            tokens,
            read.numbers("token_type"),
            read.numbers("scores"),
            read.flag("add_space_prefix", True),
            file,
        )
        prepends_bos = True
    else:
        raise CheckpointError(
            f"{file}: tokenizer.ggml.model = {kind!r}: supported are 'gpt2', 'llama'; {WAY_OUT}"
        )
    types = read.numbers("token_type")
    with library_errors(lambda e: CheckpointError(f"{file}: tokenizer.ggml.tokens: {e}")):
        _add_special_tokens(backend, tokens, types)
    named = {name: read.token_id(key) for name, key in _SPECIAL_TOKENS.items()}
    try:
        return Tokenizer(
            backend,
            bos_id=named["bos_token"],
            eos_ids=_eos_ids(read, tokens),
            pad_id=named["pad_token"],
            prepends_bos=read.flag("add_bos_token", prepends_bos),
            chat_template=read.chat_template(),
            special_tokens={
                name: tokens[i] for name, i in named.items() if i is not None and i < len(tokens)
            },
        )
    except ValueError as error:
        raise CheckpointError(f"{file}: {error}") from error


def _eos_ids(read: _Metadata, tokens: Sequence[str]) -> list[int]:
    """Returns what ends a generation; a chat model's end of turn without a key goes by its text."""
    keyed = {name: read.token_id(name) for name in ("eos", "eot", "eom")}
    ids = [token_id for token_id in keyed.values() if token_id is not None]
    if keyed["eot"] is None and read.chat_template() is not None:
        ids += [i for i, token in enumerate(tokens) if token in _TURN_ENDS]
    return ids


class _Metadata:
    """Typed access to the `tokenizer.` keys."""

    def __init__(self, metadata: Mapping[str, Any], file: str) -> None:
        self._metadata = metadata
        self.file = file

    def error(self, key: str, expected: str) -> CheckpointError:
        return CheckpointError(f"{self.file}: tokenizer.ggml.{key}: expected {expected}")

    def strings(self, key: str) -> list[str]:
        value = self._metadata.get(f"tokenizer.ggml.{key}")
        if not isinstance(value, list) or not all(isinstance(s, str) for s in value):
            raise self.error(key, "an array of strings")
        return value

    def numbers(self, key: str) -> list[float]:
        """A numeric array with one entry a token."""
        value = self._metadata.get(f"tokenizer.ggml.{key}")
        n_tokens = len(self.strings("tokens"))
        if not isinstance(value, np.ndarray) or len(value) != n_tokens:
            raise self.error(key, f"an array of {n_tokens} numbers")
        if not np.isfinite(value).all():
            raise self.error(key, "finite numbers")
        numbers: list[float] = value.tolist()
        return numbers

    def flag(self, key: str, default: bool) -> bool:
        value = self._metadata.get(f"tokenizer.ggml.{key}", default)
        if not isinstance(value, bool):
            raise self.error(key, "true or false")
        return value

    def token_id(self, name: str) -> int | None:
        value = self._metadata.get(f"tokenizer.ggml.{name}_token_id")
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise self.error(f"{name}_token_id", "an integer")
        return value

    def pre(self) -> PreTokenizer:
        value = self._metadata.get("tokenizer.ggml.pre")
        if not isinstance(value, str) or value not in PRE_TOKENIZERS:
            raise CheckpointError(
                f"{self.file}: tokenizer.ggml.pre = {value!r}: supported are "
                f"{', '.join(PRE_TOKENIZERS)}; {WAY_OUT}"
            )
        return PRE_TOKENIZERS[value]

    def chat_template(self) -> str | None:
        value = self._metadata.get("tokenizer.chat_template")
        if value is not None and not isinstance(value, str):
            raise CheckpointError(f"{self.file}: tokenizer.chat_template: expected a string")
        return value


def _byte_level_bpe(read: _Metadata, tokens: Sequence[str]) -> tuple[tokenizers.Tokenizer, bool]:
    """GPT-2's kind, and whether it puts a BOS first where the file does not say."""
    pre = read.pre()
    vocab = {token: i for i, token in enumerate(tokens)}
    if len(vocab) != len(tokens):
        raise read.error("tokens", "no token twice")
    pairs = [merge.partition(" ") for merge in read.strings("merges")]
    merges = [(left, right) for left, _, right in pairs]
    with library_errors(lambda e: read.error("merges", f"merges of known tokens ({e})")):
        bpe = models.BPE(vocab=vocab, merges=merges, ignore_merges=pre.ignore_merges)
    backend = tokenizers.Tokenizer(bpe)
    steps: list[pre_tokenizers.PreTokenizer] = []
    if pre.digits:
        steps.append(pre_tokenizers.Digits(individual_digits=True))
    if pre.split is not None:
        steps.append(pre_tokenizers.Split(Regex(pre.split), behavior="isolated"))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pre.split is None))
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    if pre.nfc:
        backend.normalizer = normalizers.NFC()
    backend.decoder = decoders.ByteLevel()
    return backend, pre.prepends_bos


def _add_special_tokens(
    backend: tokenizers.Tokenizer, tokens: Sequence[str], types: Sequence[float]
) -> None:
    """Makes control and user-defined tokens match as whole strings, before any splitting."""
    for kind in (CONTROL, USER_DEFINED):
        special = kind == CONTROL
        added = [
            AddedToken(token, special=special, normalized=False)
            for token, token_type in zip(tokens, types, strict=True)
            if token_type == kind and token
        ]
        if special:
            backend.add_special_tokens(added)
        else:
            backend.add_tokens(added)
