"""Thousands of damaged files: each is refused with a clear error or read into something sound.

The mutations run in a process of their own (worker.py) under limits of time and memory, so that
one that hangs or crashes is a failed test and not the end of all tests.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bitlens.model.text.tokenizer import Tokenizer
from fuzz import dictionaries, probes, readers, seeds, worker
from fuzz.readers import CAMPAIGNS

WORKER = Path(worker.__file__)
PER_TEST = 2_000
SPANS = 10
PER_SPAN = 5_000


def run_worker(folder: Path, campaign: str, first: int, count: int) -> dict[str, int]:
    """What came of each mutation; fails with all that went wrong."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "RUST_BACKTRACE": "0",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, str(WORKER), campaign, str(first), str(count)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        under_way = (folder / "progress").read_text() if (folder / "progress").exists() else "start"
        raise AssertionError(
            f"the process ended with {done.returncode} at mutation {under_way}: "
            f"{done.stderr[-3000:]}"
        )
    *problems, summary = [json.loads(line) for line in done.stdout.splitlines()]
    assert not problems, "\n".join(f"{p['number']}: {p['problem']}" for p in problems[:3])
    outcomes: dict[str, int] = summary["outcomes"]
    assert sum(outcomes.values()) == count
    return outcomes


@pytest.mark.parametrize("campaign", CAMPAIGNS)
def test_mutations_raise_or_read_soundly(tmp_path: Path, campaign: str) -> None:
    outcomes = run_worker(tmp_path, campaign, 0, PER_TEST)
    # Mutations so wild, or so tame, that one outcome were left would test nothing.
    kinds = ("CheckpointError", "DictionaryError", "ProbeFileError")
    refused = sum(outcomes.get(kind, 0) for kind in kinds)
    assert refused > PER_TEST // 4
    assert PER_TEST - refused > PER_TEST // 50


@pytest.mark.nightly
@pytest.mark.parametrize("span", range(SPANS))
@pytest.mark.parametrize("campaign", CAMPAIGNS)
def test_many_mutations_raise_or_read_soundly(tmp_path: Path, campaign: str, span: int) -> None:
    run_worker(tmp_path, campaign, PER_TEST + span * PER_SPAN, PER_SPAN)


def test_mutations_are_fixed(tmp_path: Path) -> None:
    """Number i is the same file today and tomorrow."""
    for campaign in CAMPAIGNS.values():
        written = []
        for _ in range(2):
            with contextlib.suppress(readers.DOCUMENTED):
                campaign(tmp_path, 7)
            files = (f for f in sorted(tmp_path.rglob("*")) if f.is_file())
            written.append({str(f): f.read_bytes() for f in files})
        assert written[0] == written[1]


def test_whoever_damages_a_tree_damages_its_own() -> None:
    for name in seeds.CONFIGS:
        sound = json.dumps(seeds.config_json(name))
        tree = seeds.config_json(name)
        for value in tree.values():
            if isinstance(value, list | dict):
                value.clear()
        assert json.dumps(seeds.config_json(name)) == sound


def test_the_undamaged_files_are_sound(tmp_path: Path) -> None:
    for documents in seeds.gguf_models():
        files = [seeds.gguf_bytes(*document) for document in documents]
        for path in seeds.write_model(tmp_path, files):
            assert readers.judge_checkpoint(readers.open_checkpoint(path)) == "a model"
    for name in seeds.CONFIGS:
        (tmp_path / "config.json").write_text(json.dumps(seeds.config_json(name)))
        (tmp_path / "model.safetensors").write_bytes(readers._weights(name))
        assert readers.judge_checkpoint(readers.open_checkpoint(tmp_path)) == "a model"
    for name, tree in seeds.tokenizer_files().items():
        (tmp_path / name).write_text(json.dumps(tree))
    tokenizer = readers.tokenizer_from_directory(tmp_path, 64)
    assert tokenizer is not None
    assert readers.judge_tokenizer(tokenizer, 64) == "a tokenizer"


@pytest.mark.parametrize("files", dictionaries.LAYOUTS, ids=lambda files: next(iter(files)))
def test_the_undamaged_dictionaries_are_sound(tmp_path: Path, files: dictionaries.Files) -> None:
    assert dictionaries.judge_files(tmp_path, files) in dictionaries.SOUND


def test_the_undamaged_probes_are_sound(tmp_path: Path) -> None:
    for files in probes.PROBES:
        assert probes.judge_files(tmp_path, files) == "a probe"


PLANTED = {
    "raise KeyError('x')": "KeyError",
    "raise readers.CheckpointError('')": "no clear message",
    "raise BaseException('panic')": "panic",
    "assert False, 'not finite'": "not finite",
    "bytearray(1 << 40)": "MemoryError",
    "os.abort()": "ended with -6 at mutation *3",
    "[0 for _ in iter(int, 1)]": "MemoryError|ended with -27",
    "while True: pass": "ended with -27 at mutation *3",
}


@pytest.mark.parametrize("defect", PLANTED)
def test_defects_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, defect: str) -> None:
    """Negative control: a reader that fails in every way there is."""
    planted = tmp_path / "planted.py"
    planted.write_text(
        "import os\nfrom fuzz import readers, worker\nworker.CPU_SECONDS = 0.5\n"
        f"def defect(folder, number):\n    {defect}\n"
        "readers.CAMPAIGNS = {'planted': defect}\nworker.run('planted', 3, 2)\n"
    )
    monkeypatch.setattr(sys.modules[__name__], "WORKER", planted)
    with pytest.raises(AssertionError, match=PLANTED[defect]):
        run_worker(tmp_path, "planted", 3, 2)


@pytest.mark.parametrize("number", range(len(seeds.HOSTILE_PARTS)))
def test_each_hostile_part_of_a_tokenizer_is_contained(tmp_path: Path, number: int) -> None:
    part, content = seeds.HOSTILE_PARTS[number]
    files: dict[str, Any] = seeds.tokenizer_files()
    files["tokenizer.json"][part] = content
    for name, tree in files.items():
        (tmp_path / name).write_text(json.dumps(tree))
    try:
        tokenizer = readers.tokenizer_from_directory(tmp_path, 64)
    except readers.CheckpointError:
        return
    assert isinstance(tokenizer, Tokenizer)
    readers.judge_tokenizer(tokenizer, 64)
