"""Tasks for evaluation harnesses that need no network: sums, from a JSONL file written here."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}<assistant>"
)


def write_sums(path: Path, n: int = 12, seed: int = 0, most: int = 6) -> list[dict[str, Any]]:
    """Writes sums of two to `most` digits, of three answers the right one first; returns them."""
    draw = random.Random(seed)
    rows = []
    for i in range(n):
        terms = [draw.randrange(10) for _ in range(draw.randint(2, most))]
        choices = [str(sum(terms) + error) for error in (0, 1, 11)]
        question = f"{' + '.join(map(str, terms))} ="
        rows.append({"id": i, "question": question, "choices": choices})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


def multiple_choice(path: Path) -> dict[str, Any]:
    """Returns lm-evaluation-harness's description of a task that scores the answers."""
    return {
        **_sums(path, "sums_choice"),
        "output_type": "multiple_choice",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": 0,
        "metric_list": [_metric("acc", higher=True)],
    }


def generation(path: Path, repeats: int = 1, **options: Any) -> dict[str, Any]:
    """Returns that of a task whose answers are written; `options` are its `generation_kwargs`."""
    return {
        **_sums(path, "sums_written"),
        "output_type": "generate_until",
        "doc_to_target": "{{choices[0]}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 8, "do_sample": False} | options,
        "repeats": repeats,
        "metric_list": [_metric("exact_match", higher=True)],
    }


def rolling(path: Path) -> dict[str, Any]:
    """Returns that of a task that scores whole texts."""
    return {
        **_sums(path, "sums_rolling"),
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{question}} {{choices[0]}}",
        "metric_list": [
            {"metric": "word_perplexity", "aggregation": "weighted_perplexity"}
            | {"higher_is_better": False}
        ],
    }


def _sums(path: Path, name: str) -> dict[str, Any]:
    return {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(path)}, "cache_dir": str(path.parent)},
        "test_split": "test",
        "num_fewshot": 0,
        "doc_to_text": "Add the numbers, and give the sum alone.\n{{question}}",
    }


def _metric(name: str, *, higher: bool) -> dict[str, Any]:
    return {"metric": name, "aggregation": "mean", "higher_is_better": higher}
