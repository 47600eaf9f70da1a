"""JSONL as every command reads it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bitlens.audit.cache_cost import read_trace
from bitlens.audit.evaluations import read_run
from bitlens.model.sources.json_lines import json_lines
from bitlens.model.thinking import read_problems
from bitlens.model.training.examples import read_rows

SEPARATORS = "a\u2028b\u2029c\x85d\x0ce\x1cf"
"""Characters at which `str.splitlines` ends a line, and JSON does not."""


def test_a_line_ends_at_newlines_alone(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    row = {"id": SEPARATORS, "score": 1, "prompt": SEPARATORS, "answer": "x"}
    path.write_bytes(json.dumps(row, ensure_ascii=False).encode() + b"\r\n\n")
    assert list(json_lines(path)) == [(f"{path}, line 1", row)]
    assert read_rows(path) == [row]
    assert [problem.prompt for problem in read_problems(path)] == [SEPARATORS]
    assert list(read_run(path).tasks["all"]) == [SEPARATORS]
    path.write_bytes(json.dumps({"ids": [1], "salt": SEPARATORS}, ensure_ascii=False).encode())
    assert read_trace(path)[0].salt == SEPARATORS


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"1\n{", "line 2: not JSON"),
        (b"\n\n\xff", "line 3: not UTF-8 at byte 0"),
        (b"[" * 100_000, "line 1: not JSON"),
    ],
)
def test_lines_that_are_none_are_named(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(data)

    class Wrong(ValueError):
        pass

    with pytest.raises(Wrong, match=said):
        list(json_lines(path, Wrong))
    with pytest.raises(FileNotFoundError):
        list(json_lines(tmp_path / "none.jsonl"))
