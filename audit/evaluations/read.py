"""A run of an evaluation, read from whatever wrote it."""

from __future__ import annotations

import zipfile
from pathlib import Path

from . import inspect_logs, lm_eval_logs
from .files import read_lines
from .items import EvaluationError, EvaluationRun, as_key, digest, named


def read_run(path: str | Path, metric: str | None = None) -> EvaluationRun:
    """Returns the items of a run.

    Args:
        path: A file, or a folder searched for files: of lm-evaluation-harness (`samples_*.jsonl`),
            of Inspect (.eval or .json), or JSONL of one's own, a line an item with `id` and `score`
            (a number or a truth value), and if wanted `task`, `cluster` (what items share) and
            `prompt`.
        metric: Which of a harness's metrics or scorers to take; the first that it names otherwise.
            A file of one's own may have several scores a line: the field of this name is taken.

    Raises EvaluationError for a file that is none of these, cut off or damaged, two items of one
    id, and a score that is no finite number.
    """
    source = Path(path)
    run = EvaluationRun(str(source))
    files = _files(source)
    for file in files:
        _add(run, file, metric, "all" if len(files) == 1 else file.stem)
    if not any(run.tasks.values()):
        raise EvaluationError(f"{source}: it holds no items")
    return run


def _files(source: Path) -> list[Path]:
    if not source.is_dir():
        return [source]
    found = sorted(source.rglob("samples_*.jsonl"))
    found = found or sorted(source.rglob("*.eval"))
    found = found or sorted(source.glob("*.jsonl"))
    found = found or [p for p in sorted(source.glob("*.json")) if not p.name.startswith("results")]
    if not found:
        raise EvaluationError(
            f"{source}: no samples_*.jsonl (lm-eval needs --log_samples), no .eval, no .jsonl"
        )
    _require_one_run_of_each(found, source)
    return found


def _require_one_run_of_each(files: list[Path], source: Path) -> None:
    """Raises EvaluationError where a folder holds two runs of a task: which one is meant?"""
    tasks: dict[str, Path] = {}
    for file in files:
        match = lm_eval_logs.NAME.match(file.name)
        if match and (first := tasks.setdefault(match["task"], file)) is not file:
            raise EvaluationError(
                f"{source}: two runs of task {match['task']!r}: {first} and {file}; name the file "
                "that is meant"
            )


def _add(run: EvaluationRun, file: Path, metric: str | None, task: str) -> None:
    if file.suffix in (".json", ".eval") or zipfile.is_zipfile(file):
        inspect_logs.add_log(run, file, metric)
        return
    first = next(iter(read_lines(file)), None)
    if first is not None and lm_eval_logs.is_sample(first[1]):
        lm_eval_logs.add_samples(run, file, metric)
    else:
        _add_own(run, file, metric, task)


def _add_own(run: EvaluationRun, file: Path, metric: str | None, task: str) -> None:
    for where, row in read_lines(file):
        cluster = row.get("cluster")
        run.add(
            str(row.get("task", task)),
            as_key(named(row, "id", where), where),
            named(row, metric or "score", where),
            cluster=None if cluster is None else as_key(cluster, where),
            prompt=digest(row["prompt"]) if "prompt" in row else None,
        )
