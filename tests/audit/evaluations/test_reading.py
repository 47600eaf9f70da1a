"""Logs of lm-eval and Inspect and one's own JSONL; and damaged ones."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from bitlens.audit import compare
from bitlens.audit.evaluations import EvaluationError, read_run
from hypothesis import given
from hypothesis import strategies as st


def _lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _sample(doc: int, under: str, **metrics: float) -> dict[str, Any]:
    """A line as lm-evaluation-harness 0.4.13 writes it."""
    return {
        "doc_id": doc,
        "doc": {"question": f"q{doc}"},
        "target": "4",
        "arguments": {"gen_args_0": {"arg_0": "2+2"}},
        "resps": [["4"]],
        "filtered_resps": ["4"],
        "filter": under,
        "metrics": list(metrics),
        "doc_hash": f"d{doc}",
        "prompt_hash": f"p{doc}",
        "target_hash": "t",
        **metrics,
    }


def test_lm_eval(tmp_path: Path) -> None:
    rows = [
        _sample(doc, under, exact_match=float(doc % 2), f1=0.5)
        for doc in range(4)
        for under in ("strict-match", "flexible-extract")
    ]
    folder = tmp_path / "out" / "model"
    folder.mkdir(parents=True)
    (folder / "results_2026-01-01T00-00-00.json").write_text("{}")
    path = _lines(folder / "samples_gsm8k_2026-01-01T00-00-00.123.jsonl", rows)
    run = read_run(tmp_path / "out")
    assert list(run.tasks) == [
        "gsm8k exact_match (strict-match)",
        "gsm8k exact_match (flexible-extract)",
    ]
    assert [item.score for item in run.tasks["gsm8k exact_match (strict-match)"].values()] == [
        0, 1, 0, 1,
    ]  # fmt: skip
    assert next(iter(read_run(path, "f1").tasks)) == "gsm8k f1 (strict-match)"
    with pytest.raises(EvaluationError, match="no metric 'acc'; this task has exact_match, f1"):
        read_run(path, "acc")
    _lines(folder / "samples_gsm8k_2026-01-02T00-00-00.jsonl", rows)
    with pytest.raises(EvaluationError, match="two runs of task 'gsm8k'"):
        read_run(tmp_path / "out")


def _inspect(status: str = "success", epochs: int = 2) -> dict[str, Any]:
    return {
        "version": 2,
        "status": status,
        "eval": {"task": "arc", "model": "m"},
        "samples": [
            {
                "id": f"s{i}",
                "epoch": epoch,
                "input": f"question {i}",
                "target": "A",
                "scores": {
                    "choice": {"value": "C" if (i + epoch) % 2 else "I"},
                    "f1": {"value": 0.5},
                },
            }
            for epoch in range(1, epochs + 1)
            for i in range(3)
        ],
    }


def _zip(path: Path, log: dict[str, Any]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "header.json", json.dumps({k: v for k, v in log.items() if k != "samples"})
        )
        for sample in log["samples"]:
            archive.writestr(
                f"samples/{sample['id']}_epoch_{sample['epoch']}.json", json.dumps(sample)
            )
    return path


def test_inspect_in_both_its_formats(tmp_path: Path) -> None:
    plain = tmp_path / "log.json"
    plain.write_text(json.dumps(_inspect()))
    found = read_run(plain)
    assert [item.score for item in found.tasks["arc choice"].values()] == [0.5, 0.5, 0.5]
    packed = read_run(_zip(tmp_path / "log.eval", _inspect()))
    assert packed.tasks == found.tasks
    assert compare(found, packed).difference == 0
    assert set(read_run(plain, "f1").tasks) == {"arc f1"}
    with pytest.raises(EvaluationError, match="no scorer 'acc'; it has choice, f1"):
        read_run(plain, "acc")


def test_a_run_of_inspect_that_did_not_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="'cancelled': it did not end"):
        read_run(_zip(tmp_path / "log.eval", _inspect("cancelled")))


def test_a_member_in_zstandard_says_how_to_convert(tmp_path: Path) -> None:
    path = _zip(tmp_path / "log.eval", _inspect())
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x01\x02", 10), (b"PK\x03\x04", 8)):
        at = -1
        while (at := data.find(signature, at + 1)) >= 0:
            data[at + offset : at + offset + 2] = (93).to_bytes(2, "little")
    path.write_bytes(data)
    with pytest.raises(EvaluationError, match=r"inspect log convert|Zstandard|zstd"):
        read_run(path)


def test_own_rows(tmp_path: Path) -> None:
    rows = [{"id": i, "score": i % 2 == 0, "cluster": i // 2, "task": "t"} for i in range(6)]
    run = read_run(_lines(tmp_path / "own.jsonl", rows))
    assert len({item.cluster for item in run.tasks["t"].values()}) == 3
    pair = [{"id": i, "exact": 1.0, "near": 0.5} for i in range(3)]
    both = _lines(tmp_path / "both.jsonl", pair)
    assert {item.score for item in read_run(both, "near").tasks["all"].values()} == {0.5}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no items"),
        ("[1]\n", "line 1: expected a JSON object"),
        ('{"id": 1}\n', "no field 'score'"),
        ('{"score": 1}\n', "no field 'id'"),
        ('{"id": 1, "score": NaN}\n', "nan: expected a finite number"),
        ('{"id": 1, "score": 1e999}\n', "inf: expected a finite number"),
        ('{"id": 1, "score": "yes"}\n', "'yes': expected a finite number"),
        ('{"id": 1.5, "score": 1}\n', "expected text or a whole number"),
        ('{"id": [], "score": 1}\n', "expected text or a whole number"),
        ('{"id": 1, "score": 1}\n{"id": 1, "score": 1}\n', "two items of id 1"),
        ('{"id": 1, "score": 1}\n{"id": 2, "sco', "line 2: not JSON"),
        ('{"doc_id": 1, "metrics": [], "filter": "none"}\n', "metrics = "),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(text)
    with pytest.raises(EvaluationError, match=said):
        read_run(path)


@pytest.mark.parametrize("name", ["none.jsonl", "folder"])
def test_nothing_there(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(EvaluationError, match=r"no such file|no samples_"):
        read_run(tmp_path / name)


@pytest.mark.parametrize("byte", [0x01, 0x06])  # blocks of another kind
def test_a_damaged_deflated_member_is_named(tmp_path: Path, byte: int) -> None:
    path = _zip(tmp_path / "log.eval", _inspect())
    content = bytearray(path.read_bytes())
    start = content.index(b"header.json") + len(b"header.json")
    content[start] = byte
    path.write_bytes(content)
    with pytest.raises(EvaluationError, match=r"header\.json"):
        read_run(path)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({6: 123}, r"zip file version 12\.3"),  # the version needed to extract
        ({9: 8, 46: 0xFF}, "utf-8"),  # names are UTF-8, and one is not
    ],
)
def test_a_damaged_directory_is_named(tmp_path: Path, changed: dict[int, int], said: str) -> None:
    path = _zip(tmp_path / "log.eval", _inspect())
    content = bytearray(path.read_bytes())
    for offset, byte in changed.items():
        content[content.index(b"PK\x01\x02") + offset] = byte
    path.write_bytes(content)
    with pytest.raises(EvaluationError, match=said):
        read_run(path)


@given(st.data())
def test_damaged_logs_end_in_an_error_or_in_numbers(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    name = data.draw(st.sampled_from(["log.json", "log.eval", "samples_t_2026-01-01T0.jsonl"]))
    path = folder / name
    if name == "log.eval":
        _zip(path, _inspect())
    elif name == "log.json":
        path.write_text(json.dumps(_inspect()))
    else:
        _lines(path, [_sample(i, "none", acc=1.0) for i in range(3)])
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        run = read_run(path)
    except EvaluationError:
        return
    assert all(0 <= item.score <= 1e300 for t in run.tasks.values() for item in t.values())
