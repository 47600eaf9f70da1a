"""Looks for pieces of sensitive texts in files: words and token ids, behind the usual encodings."""

from __future__ import annotations

import base64
import binascii
import gzip
import html
import json
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

WORDS = 8
"""Words, or token ids, in a row that are a leak; a shorter text counts as a whole."""

_FEWEST = 4
"""Shorter texts are no evidence: three words occur anywhere."""

_DEEPEST = 4
"""Encodings inside each other that are undone."""

_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{16,}={0,2}")
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class Leak:
    """A piece of a text in a file.

    Attributes:
        id: The text's.
        kind: "words" or "tokens".
    """

    path: Path
    id: str
    kind: str


def find_leaks(
    folder: Path,
    texts: Mapping[str, str],
    encode: Callable[[str], Sequence[int]] | None = None,
) -> list[Leak]:
    """Returns the pieces of texts in the files of a folder, or in one file.

    Files are read as they are, as JSON, HTML and URLs, after base64 and gzip, and these inside
    each other. Numbers in text and 4- and 8-byte integers are read as token ids.

    Args:
        texts: By id, such as a run's prompts and answers.
        encode: A tokenizer's, for shingles of token ids; None looks for words alone.
    """
    words = _index((id, _words(text)) for id, text in texts.items())
    tokens: dict[tuple[Any, ...], str] = {}
    if encode is not None:
        tokens = _index((id, list(encode(text))) for id, text in texts.items())
    files = [folder] if folder.is_file() else sorted(p for p in folder.rglob("*") if p.is_file())
    found = []
    for path in files:
        seen: set[tuple[str, str]] = set()
        for data in _decoded(path.read_bytes(), _DEEPEST):
            text = data.decode("utf-8", errors="replace")
            seen |= {(id, "words") for id in _hits(_words(text), words)}
            if tokens:
                numbers = [int(n) for n in re.findall(r"\d{1,9}", text)]
                for ids in (numbers, *_integers(data)):
                    seen |= {(id, "tokens") for id in _hits(ids, tokens)}
        found += [Leak(path, id, kind) for id, kind in sorted(seen)]
    return found


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _index(sequences: Any) -> dict[tuple[Any, ...], str]:
    """Shingles of sequences, with the id of one that each is of."""
    found: dict[tuple[Any, ...], str] = {}
    for id, each in sequences:
        n = min(WORDS, len(each))
        if n >= _FEWEST:
            for i in range(len(each) - n + 1):
                found.setdefault(tuple(each[i : i + n]), id)
    return found


def _hits(sequence: Sequence[Any], shingles: Mapping[tuple[Any, ...], str]) -> set[str]:
    found = set()
    for n in sorted({len(s) for s in shingles}):
        for i in range(len(sequence) - n + 1):
            if (id := shingles.get(tuple(sequence[i : i + n]))) is not None:
                found.add(id)
    return found


def _decoded(data: bytes, depth: int) -> Iterator[bytes]:
    """Yields the data and what they are once decoded, in every order of a few encodings."""
    pending, seen = [(data, depth)], {data}
    while pending:
        each, left = pending.pop()
        yield each
        if left:
            for inner in _once(each):
                if inner not in seen:
                    seen.add(inner)
                    pending.append((inner, left - 1))


def _once(data: bytes) -> Iterator[bytes]:
    if data.startswith(_GZIP):
        try:
            yield gzip.decompress(data)
        except (OSError, EOFError, zlib.error):
            return
    for run in _BASE64.findall(data):
        padded = run + b"=" * (-len(run) % 4)
        for alphabet in (b"+/", b"-_"):
            with suppress(binascii.Error, ValueError):
                yield base64.b64decode(padded, altchars=alphabet)
    text = data.decode("utf-8", errors="ignore")
    if "\\" in text:
        yield _unescaped(text).encode("utf-8", errors="ignore")
    if "<" in text or "&" in text:
        yield html.unescape(re.sub(r"<[^>]*>", " ", text)).encode("utf-8", errors="ignore")
        yield html.unescape(re.sub(r"<[^>]*>", "", text)).encode("utf-8", errors="ignore")
    if "%" in text:
        yield unquote(text.replace("+", " ")).encode("utf-8", errors="ignore")


def _unescaped(text: str) -> str:
    """Undoes JSON's escapes wherever they stand, in a JSON file or quoted in a log."""

    def one(match: re.Match[str]) -> str:
        try:
            return str(json.loads(f'"{match[0]}"'))
        except ValueError:
            return " "

    return re.sub(r'\\(?:u[0-9a-fA-F]{4}|["\\/bfnrt])', one, text)


def _integers(data: bytes) -> Iterator[list[int]]:
    """Yields the data as little-endian integers of 4 and 8 bytes, from every start; nothing of data
    without a zero byte, which every token id in that form has."""
    if b"\0" not in data:
        return
    for size, code in ((4, "i"), (8, "q")):
        for start in range(size):
            n = (len(data) - start) // size
            if n >= WORDS:
                yield list(struct.unpack_from(f"<{n}{code}", data, start))
