"""Logs of Inspect: .json, and .eval, which is a zip of one JSON file a sample and epoch.

Epochs of a sample are repetitions: their mean is the item's score.
"""

from __future__ import annotations

import lzma
import zipfile
import zlib
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .files import MOST_BYTES, parse_object, read_object
from .items import EvaluationError, EvaluationRun, as_key, digest, named

VALUES = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}
"""Inspect's letters: correct, partial, incorrect, no answer."""

_DAMAGED = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, UnicodeDecodeError,
)  # fmt: skip
"""Raised by a damaged zip: by its compression and the names in it among others."""

WAY_OUT = "write it again as JSON: inspect log convert LOG --to json --output-dir FOLDER"


def add_log(run: EvaluationRun, path: Path, metric: str | None) -> None:
    """Adds a log's items: of one scorer, or of the first that its samples name.

    Raises EvaluationError for a log that did not end, one without samples, a score that is no
    number, and a zip that cannot be read.
    """
    header, samples = _zipped(path) if zipfile.is_zipfile(path) else _plain(path)
    if header.get("status") not in (None, "success"):
        raise EvaluationError(f"{path}: the run's status is {header['status']!r}: it did not end")
    evaluation = header.get("eval")
    task = evaluation.get("task") if isinstance(evaluation, Mapping) else None
    if not isinstance(task, str):
        raise EvaluationError(f"{path}: no eval.task: not a log of Inspect")
    scores: dict[tuple[str, Hashable], list[float]] = {}
    prompts: dict[tuple[str, Hashable], str] = {}
    seen: set[tuple[Hashable, Any]] = set()
    for where, sample in samples:
        key = as_key(named(sample, "id", where), where)
        if (key, sample.get("epoch")) in seen:
            raise EvaluationError(f"{where}: two samples of id {key!r} in one epoch")
        seen.add((key, sample.get("epoch")))
        name, value = _score(sample, metric, where)
        item = (f"{task} {name}", key)
        asked = digest(sample.get("input"), sample.get("target"))
        if prompts.setdefault(item, asked) != asked:
            raise EvaluationError(f"{where}: epochs of id {key!r} have different prompts")
        scores.setdefault(item, []).append(value)
    if not scores:
        raise EvaluationError(f"{path}: it holds no samples")
    for (name, key), values in scores.items():
        run.add(name, key, sum(values) / len(values), prompt=prompts[name, key])


def _plain(path: Path) -> tuple[dict[str, Any], Iterator[tuple[str, dict[str, Any]]]]:
    log = read_object(path)
    samples = log.get("samples")
    if not isinstance(samples, list):
        raise EvaluationError(
            f"{path}: no list of samples: not a log of Inspect, or its header only"
        )
    rows = ((f"{path}, sample {i}", _mapping(sample, path)) for i, sample in enumerate(samples))
    return log, rows


def _mapping(sample: Any, path: Path) -> dict[str, Any]:
    if not isinstance(sample, dict):
        raise EvaluationError(f"{path}: a sample is {type(sample).__name__}, not an object")
    return sample


def _zipped(path: Path) -> tuple[dict[str, Any], Iterator[tuple[str, dict[str, Any]]]]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if "header.json" not in names:
                raise EvaluationError(f"{path}: no header.json: not a log of Inspect, or cut off")
            header = parse_object(_member(archive, "header.json", path), f"{path}, header.json")
    except (*_DAMAGED, NotImplementedError) as error:
        raise EvaluationError(f"{path}: {error}") from error
    return header, _members(path, [name for name in names if name.startswith("samples/")])


def _members(path: Path, names: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    with zipfile.ZipFile(path) as archive:
        for name in names:
            where = f"{path}, {name}"
            yield where, parse_object(_member(archive, name, path), where)


def _member(archive: zipfile.ZipFile, name: str, path: Path) -> bytes:
    """Returns a member, unpacked up to the bound, whatever size it claims."""
    try:
        with archive.open(name) as file:
            data = file.read(MOST_BYTES + 1)
    except NotImplementedError as error:
        raise EvaluationError(
            f"{path}: {error} (Zstandard, before Python 3.14); {WAY_OUT}"
        ) from error
    except (*_DAMAGED, RuntimeError) as error:  # RuntimeError: it asks for a password
        raise EvaluationError(f"{path}, {name}: {error}") from error
    if len(data) > MOST_BYTES:
        raise EvaluationError(f"{path}, {name}: longer than {MOST_BYTES >> 30} GiB")
    return data


def _score(sample: Mapping[str, Any], metric: str | None, where: str) -> tuple[str, float]:
    scores = sample.get("scores")
    if not isinstance(scores, Mapping) or not scores:
        raise EvaluationError(f"{where}: it has no scores (an error, or the run was cut off)")
    name = next(iter(scores)) if metric is None else metric
    if name not in scores:
        raise EvaluationError(f"{where}: no scorer {name!r}; it has {', '.join(scores)}")
    score = scores[name]
    value = score.get("value") if isinstance(score, Mapping) else score
    if isinstance(value, str):
        value = VALUES.get(value, value)
    if isinstance(value, bool):
        value = float(value)
    if not isinstance(value, int | float):
        raise EvaluationError(f"{where}: {name} scored {value!r}: expected a number or C, P, I, N")
    return name, float(value)
