"""Sample logs of lm-evaluation-harness: samples_TASK_DATE.jsonl, written by --log_samples.

A line is one document under one filter; its metrics are fields named by `metrics`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from .files import read_lines
from .items import EvaluationError, EvaluationRun, as_key, digest, named

NAME = re.compile(r"^samples_(?P<task>.+)_(?P<date>\d{4}-\d{2}-\d{2}T.+)\.jsonl$")


def is_sample(row: dict[str, Any]) -> bool:
    """Returns whether a line is of such a log."""
    return {"doc_id", "metrics", "filter"} <= set(row)


def add_samples(run: EvaluationRun, path: Path, metric: str | None) -> None:
    """Adds a log's items: of one metric, or of the first that the log names.

    Raises EvaluationError for a line that lacks a field, or a metric that the task has not.
    """
    found = NAME.match(path.name)
    task = found["task"] if found else path.stem
    for where, row in read_lines(path):
        metrics = named(row, "metrics", where)
        if not isinstance(metrics, list) or not metrics:
            raise EvaluationError(f"{where}: metrics = {metrics!r}: expected a list of names")
        chosen = metrics[0] if metric is None else metric
        if chosen not in metrics:
            raise EvaluationError(
                f"{where}: no metric {metric!r}; this task has {', '.join(map(str, metrics))}"
            )
        under = row.get("filter")
        name = f"{task} {chosen}" + (f" ({under})" if under not in (None, "none") else "")
        key = as_key(named(row, "doc_id", where), where)
        run.add(name, key, named(row, chosen, where), prompt=_prompt(row))


def _prompt(row: dict[str, Any]) -> str | None:
    parts = [row.get(name) for name in ("doc_hash", "prompt_hash", "target_hash")]
    return None if None in parts else digest(*parts)
