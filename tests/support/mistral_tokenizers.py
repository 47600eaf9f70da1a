"""Mistral's own tokenizers, from mistral-common's wheel (Apache-2.0), read from the zip.

Nothing of the wheel is imported. mistral_common.json holds what its code made of the conversations
of tests/model/text/test_mistral.py: the chat templates that it generates, and token ids.
"""

from __future__ import annotations

import base64
import json
import struct
import zipfile
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import tokenizers
from bitlens.model.sources import PinnedWheel, fetch_wheel
from bitlens.model.sources.sentencepiece_bpe import CONTROL, sentencepiece_bpe
from bitlens.model.text.tokenizer import Tokenizer
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers

WHEEL = PinnedWheel(
    requirement="mistral-common==1.13.1",
    file_name="mistral_common-1.13.1-py3-none-any.whl",
    n_bytes=6_589_302,
    sha256="98b4d0755b8d90bf4691fa8f1b70cb3b4a8cd4dc1653c4ed08ef3d1c7d2c29af",
)

BOS, EOS = "<s>", "</s>"


def mistral_tokenizer(file: str, template: str) -> Tokenizer:
    """Returns the tokenizer of a file of the wheel, a .model or a tekken .json."""
    with zipfile.ZipFile(fetch_wheel(WHEEL)) as archive:
        data = archive.read(f"mistral_common/data/{file}")
    backend = _tekken(json.loads(data)) if file.endswith(".json") else _sentencepiece(data, file)
    bos, eos = backend.token_to_id(BOS), backend.token_to_id(EOS)
    return Tokenizer(
        backend,
        bos_id=bos,
        eos_ids=[eos],
        prepends_bos=True,
        chat_template=template,
        special_tokens={"bos_token": BOS, "eos_token": EOS},
    )


def _sentencepiece(data: bytes, file: str) -> tokenizers.Tokenizer:
    """The template writes the spaces that SentencePiece would put before each text."""
    pieces = [_piece(value) for field, value in _fields(data) if field == 1]
    texts, scores, types = zip(*pieces, strict=True)
    backend = sentencepiece_bpe(texts, types, scores, add_space_prefix=False, file=file)
    special = [text for text, kind in zip(texts, types, strict=True) if kind == CONTROL]
    backend.add_special_tokens([AddedToken(text, normalized=False) for text in special])
    return backend


def _piece(data: bytes) -> tuple[str, float, int]:
    found = dict(_fields(data))
    return found[1].decode(), struct.unpack("<f", found[2])[0], found.get(3, 1)


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Yields number and value of each field of a protobuf message."""
    at = 0

    def number() -> int:
        nonlocal at
        found = shift = 0
        while True:
            byte = data[at]
            at += 1
            found |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return found

    while at < len(data):
        key = number()
        kind = key & 7
        if kind == 0:
            yield key >> 3, number()
            continue
        length = number() if kind == 2 else {1: 8, 5: 4}[kind]
        yield key >> 3, data[at : at + length]
        at += length


_TEKKEN_SPECIAL = (
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
    *("[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]"),
    *("[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
    "[TOOL_CONTENT]",
)
"""The special tokens of files that name none, by id, as mistral-common has them."""


def _tekken(file: dict[str, Any]) -> tokenizers.Tokenizer:
    config, special = file["config"], list(_TEKKEN_SPECIAL)
    n_special = config["default_num_special_tokens"]
    special += [f"<SPECIAL_{i}>" for i in range(len(special), n_special)]
    entries = file["vocab"][: config["default_vocab_size"] - n_special]
    ranks = {base64.b64decode(each["token_bytes"]): each["rank"] for each in entries}
    spelled = {token: _spelled(token) for token in ranks}
    merges = [_parts(token, rank, ranks) for token, rank in ranks.items() if len(token) > 1]
    vocab = {text: i for i, text in enumerate(special)}
    vocab |= {spelled[token]: rank + n_special for token, rank in ranks.items()}
    bpe = models.BPE(vocab, [(spelled[a], spelled[b]) for a, b in merges], ignore_merges=True)
    backend = tokenizers.Tokenizer(bpe)
    split = pre_tokenizers.Split(Regex(config["pattern"]), behavior="isolated")
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_])
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(text, normalized=False) for text in special])
    return backend


def _parts(token: bytes, rank: int, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The two tokens that a token is merged from: bytes, merged by all earlier ones."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        joined = [ranks.get(a + b, rank) for a, b in pairwise(parts)]
        i = joined.index(min(joined))
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts[0], parts[1]


_BYTES = {
    **{chr(b): b for b in (*range(33, 127), *range(161, 173), *range(174, 256))},
    **{chr(256 + i): b for i, b in enumerate((*range(33), *range(127, 161), 173))},
}
"""GPT-2's letters for bytes."""

_LETTERS = {b: letter for letter, b in _BYTES.items()}


def _spelled(token: bytes) -> str:
    return "".join(_LETTERS[b] for b in token)
