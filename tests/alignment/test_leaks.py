"""Pieces of a text are found behind every encoding, and nothing else is."""

from __future__ import annotations

import base64
import gzip
import html
import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
import torch
from bitlens.alignment.red_team import find_leaks
from safetensors.torch import save_file
from support.random_models import byte_tokenizer

TEXT = "Nine grey geese “flew” over the <old> mill & the miller’s wife waved at every one of them"
PIECE = "over the <old> mill & the miller’s wife waved"
OTHER = "Ten brown geese walked under a new bridge while the baker's son slept through all of it"
TEXTS = {"geese": TEXT, "other": OTHER}


def _b64(data: bytes) -> bytes:
    return base64.b64encode(data)


ENCODED: dict[str, Callable[[str], bytes]] = {
    "plain": lambda t: t.encode(),
    "upper case, one word a line": lambda t: "\n".join(t.upper().split()).encode(),
    "JSON": lambda t: json.dumps({"a": [1, t]}).encode(),
    "JSON in JSON": lambda t: json.dumps(json.dumps(t)).encode(),
    "HTML": lambda t: f"<p>{html.escape(t)}</p>".encode(),
    "HTML, a tag a word": lambda t: "".join(
        f"<b>{html.escape(w)}</b> " for w in t.split()
    ).encode(),
    "base64": lambda t: b"data:text/plain;base64," + _b64(t.encode()),
    "URL-safe base64 without padding": lambda t: (
        base64.urlsafe_b64encode(t.encode()).rstrip(b"=") + b"."
    ),
    "base64 of JSON in HTML": lambda t: b"<script>" + _b64(json.dumps(t).encode()) + b"</script>",
    "gzip of base64 of JSON": lambda t: gzip.compress(_b64(json.dumps([t]).encode())),
    "a URL": lambda t: f"https://x.example/?q={quote(t)}".encode(),
}


@pytest.mark.parametrize("name", list(ENCODED))
def test_a_piece_of_eight_words_is_found(tmp_path: Path, name: str) -> None:
    (tmp_path / "clean.json").write_text(json.dumps({"words": "of no interest at all " * 9}))
    assert find_leaks(tmp_path, TEXTS) == []
    around = (b"", b"") if name.startswith("gzip") else (b"before ", b" after")
    (tmp_path / "log").write_bytes(ENCODED[name](PIECE).join(around))
    assert [(leak.path.name, leak.id) for leak in find_leaks(tmp_path, TEXTS)] == [("log", "geese")]


def test_seven_words_are_none_and_a_short_text_counts_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("over the old mill the miller s, and five small words more")
    assert find_leaks(tmp_path, {"geese": TEXT}) == []
    assert len(find_leaks(tmp_path, {"short": "five small words more"})) == 1
    assert find_leaks(tmp_path, {"tiny": "five small words"}) == []


@pytest.mark.parametrize("form", ["JSON", "int32", "int64", "safetensors", "base64"])
def test_token_ids_are_found(tmp_path: Path, form: str) -> None:
    encode = byte_tokenizer().encode
    ids = encode(TEXT)[5:25]
    written: dict[str, bytes] = {
        "JSON": json.dumps({"ids": ids}).encode(),
        "int32": b"x" + np.array(ids, dtype="<i4").tobytes(),
        "int64": np.array(ids, dtype="<i8").tobytes(),
        "base64": _b64(json.dumps(ids).encode()),
    }
    if form == "safetensors":
        save_file({"x": torch.tensor(ids)}, tmp_path / "file")
    else:
        (tmp_path / "file").write_bytes(written[form])
    found = {(leak.id, leak.kind) for leak in find_leaks(tmp_path, TEXTS, encode)}
    assert ("geese", "tokens") in found
    assert find_leaks(tmp_path, TEXTS) == []
    (tmp_path / "file").write_text(json.dumps({"ids": ids[:7]}))
    assert find_leaks(tmp_path, TEXTS, encode) == []
