"""The tokenizer of a Hugging Face directory: tokenizer.json and the files around it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers

from ..text.library_errors import library_errors
from ..text.tokenizer import Tokenizer
from ..weights.checkpoint import CheckpointError
from .json_file import read_object, read_object_if_there, read_text
from .tokenizer_json import read_tokenizer

_OTHER_KINDS = ("tokenizer.model", "vocab.json", "vocab.txt", "tekken.json")
FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
    *_OTHER_KINDS,
)
"""What a directory's tokenizer is read from, or refused for."""
SPECIAL_TOKENS = tuple(
    f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
)
"""What tokenizer_config.json may name."""


def tokenizer_from_directory(path: Path, d_vocab: int) -> Tokenizer | None:
    """The tokenizer, or None where the directory has none.

    Raises:
        CheckpointError: it is damaged, or of a kind other than tokenizer.json.
    """
    file = path / "tokenizer.json"
    if not file.is_file():
        for other in _OTHER_KINDS:
            if (path / other).exists():
                raise CheckpointError(
                    f"{path}: has {other} but no tokenizer.json; write one with transformers: "
                    "AutoTokenizer.from_pretrained(path).save_pretrained(path)"
                )
        return None
    backend = read_tokenizer(file, d_vocab)
    if backend.get_vocab_size() > d_vocab:
        raise CheckpointError(
            f"{file}: {backend.get_vocab_size()} tokens for a model vocabulary of {d_vocab}"
        )
    settings = read_object_if_there(path / "tokenizer_config.json")
    bos_id, prepends_bos = _beginning(backend, settings, path)
    eos_ids = _eos_ids(backend, settings, path)
    pad_id = _token_id(backend, settings, "pad_token", path)
    chat_template = _chat_template(settings, path)
    try:
        return Tokenizer(
            backend,
            bos_id=bos_id,
            eos_ids=eos_ids,
            pad_id=pad_id,
            prepends_bos=prepends_bos,
            chat_template=chat_template,
            special_tokens=_special_tokens(settings, path),
        )
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _token_id(
    backend: tokenizers.Tokenizer, settings: Mapping[str, Any], name: str, path: Path
) -> int | None:
    """Returns the id of a named special token."""
    token = _named(settings, name)
    if token is None:
        return None
    token_id = backend.token_to_id(token) if _is_text(token) else None
    if token_id is None:
        raise CheckpointError(f"{path}: {name} {token!r} is not in tokenizer.json")
    return int(token_id)


def _named(settings: Mapping[str, Any], name: str) -> Any:
    """Returns what a name stands for: it holds a string or an object with "content"."""
    token = settings.get(name)
    return token.get("content") if isinstance(token, Mapping) else token


def _eos_ids(backend: tokenizers.Tokenizer, settings: Mapping[str, Any], path: Path) -> list[int]:
    """generation_config.json knows best (it lists the ends of turns), then config.json."""
    for file in (path / "generation_config.json", path / "config.json"):
        value = read_object_if_there(file).get("eos_token_id")
        if value is None:
            continue
        ids = value if isinstance(value, list) else [value]
        if not all(isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in ids):
            raise CheckpointError(f"{file}: eos_token_id = {value!r}: expected token ids")
        return ids
    token_id = _token_id(backend, settings, "eos_token", path)
    return [] if token_id is None else [token_id]


def _beginning(
    backend: tokenizers.Tokenizer, settings: Mapping[str, Any], path: Path
) -> tuple[int | None, bool]:
    """Returns the token that begins a text, and whether it is put there unasked.

    As in transformers, tokenizer.json's post-processor decides, with a token of its own if need be,
    and `add_bos_token` in tokenizer_config.json does not.
    """
    bos_id = _token_id(backend, settings, "bos_token", path)
    backend.no_padding()
    backend.no_truncation()
    try:
        with library_errors(ValueError):
            encoding = backend.encode("a", add_special_tokens=True)
    except ValueError:  # one that fails on a text says so again where there is one to encode
        return bos_id, False
    added = [i for i, mask in zip(encoding.ids, encoding.special_tokens_mask, strict=True) if mask]
    first = added[0] if added and encoding.special_tokens_mask[0] else None
    said = settings.get("add_bos_token")
    if isinstance(said, bool) and said != (first is not None) and bos_id is not None:
        warnings.warn(
            f"{path}: add_bos_token is {str(said).lower()}, but the post-processor of "
            f"tokenizer.json {'adds one' if first is not None else 'adds none'}, which decides, "
            "as in transformers; pass prepend_bos to say it yourself",
            stacklevel=2,
        )
    return (bos_id, False) if first is None else (first, True)


def _special_tokens(settings: Mapping[str, Any], path: Path) -> dict[str, str]:
    """Returns the tokens that tokenizer_config.json names, as a chat template is given them."""
    named: dict[str, str] = {}
    for name in SPECIAL_TOKENS:
        token = _named(settings, name)
        if token is None:
            continue
        if not _is_text(token):
            raise CheckpointError(f"{path}: {name} {token!r} is no text")
        named[name] = token
    return named


def _chat_template(settings: Mapping[str, Any], path: Path) -> str | None:
    file = path / "chat_template.jinja"
    if file.is_file():
        return read_text(file)
    template = settings.get("chat_template")
    if template is None and (path / "chat_template.json").is_file():
        template = read_object(path / "chat_template.json").get("chat_template")
    if isinstance(template, list):  # several named templates
        entries = [entry for entry in template if isinstance(entry, Mapping)]
        defaults = [e.get("template") for e in entries if e.get("name") == "default"]
        template = defaults[-1] if defaults else None
    if template is not None and not isinstance(template, str):
        raise CheckpointError(f"{path}: chat_template: expected a string")
    return template


def _is_text(value: object) -> bool:
    """Whether it is a string that UTF-8 can hold: JSON can spell half a surrogate pair."""
    return isinstance(value, str) and not any("\ud800" <= c <= "\udfff" for c in value)
