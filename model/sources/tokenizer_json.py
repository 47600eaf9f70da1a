"""tokenizer.json, checked before the `tokenizers` library reads it.

The library trusts the file: some of what one can hold ends the process, takes all of its memory,
or gives other ids each time. What bitlens refuses here is in no tokenizer of a supported model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tokenizers

from ..text.library_errors import library_errors
from ..weights.checkpoint import CheckpointError
from .json_file import parse_object, read_text

# How many characters a normalizer or a decoder may make of one.
MAX_GROWTH = 64


def read_tokenizer(file: Path, d_vocab: int) -> tokenizers.Tokenizer:
    """Reads a tokenizer whose ids are all below `d_vocab`.

    Raises:
        CheckpointError: the file is damaged, or holds what cannot be trusted or reproduced.
    """
    text = read_text(file)
    definition = parse_object(text, file)
    _check_steps(definition, file)
    _check_ids(definition, file, d_vocab)
    with library_errors(lambda problem: CheckpointError(f"{file}: {problem}")):
        # The same text that was checked, whatever has become of the file.
        return tokenizers.Tokenizer.from_str(text)


def _check_steps(definition: Mapping[str, Any], file: Path) -> None:
    for part in ("normalizer", "pre_tokenizer", "decoder"):
        growth = 1
        for step in _steps(definition.get(part)):
            if step.get("type") == "Precompiled":
                # Its size fields are not checked against its data: it can abort the process.
                raise CheckpointError(f"{file}: {part}: type 'Precompiled' is not supported")
            growth *= _growth(step)
        if growth > MAX_GROWTH:
            raise CheckpointError(
                f"{file}: {part}: replacements may make {growth} characters of one; "
                f"at most {MAX_GROWTH} are supported"
            )
    model = definition.get("model")
    if isinstance(model, Mapping) and model.get("dropout"):
        raise CheckpointError(
            f"{file}: model.dropout = {model['dropout']!r}: ids would differ from call to call; "
            "set it to null"
        )


def _steps(value: object) -> Iterator[Mapping[str, Any]]:
    """Every step of a normalizer, pre-tokenizer or decoder, those in sequences included."""
    if isinstance(value, Mapping):
        yield value
        for inner in value.values():
            if isinstance(inner, list):
                yield from _steps(inner)
    elif isinstance(value, list):
        for item in value:
            yield from _steps(item)


def _growth(step: Mapping[str, Any]) -> int:
    """How many characters the step makes of one, at most; those that settle by themselves: one."""
    if step.get("type") == "ByteLevel":  # a character for each byte
        return 4
    texts = [step.get("content"), step.get("prepend")]
    longest = max((len(text) for text in texts if isinstance(text, str)), default=0)
    pattern = step.get("pattern")
    # What may match nothing is found between any two characters.
    inserts = isinstance(pattern, Mapping) and (pattern.get("String") == "" or "Regex" in pattern)
    return max(1, longest + (1 if inserts or step.get("type") == "Prepend" else 0))


def _check_ids(definition: Mapping[str, Any], file: Path, d_vocab: int) -> None:
    ids = [*_model_ids(definition.get("model")), *_added_ids(definition.get("added_tokens"))]
    largest = max(ids, default=-1)
    if largest >= d_vocab:
        raise CheckpointError(f"{file}: token id {largest} for a model vocabulary of {d_vocab}")


def _model_ids(model: object) -> Iterator[int]:
    """Ids of the model's vocabulary; what is not one is left to the library to refuse."""
    vocab = model.get("vocab") if isinstance(model, Mapping) else None
    if isinstance(vocab, Mapping):
        yield from (i for i in vocab.values() if isinstance(i, int))
    elif isinstance(vocab, list):  # Unigram: an entry's place is its id
        yield len(vocab) - 1


def _added_ids(added: object) -> Iterator[int]:
    for token in added if isinstance(added, list) else ():
        if isinstance(token, Mapping) and isinstance(token.get("id"), int):
            yield token["id"]
