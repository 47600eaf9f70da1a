"""Answers as JSONL, a line each as it comes, from which an interrupted run goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...model.weights.atomic import write_atomically
from ..evaluations.files import parse_object
from ..evaluations.items import EvaluationError, digest, named
from .answer import Answer
from .questions import Question


class AnswerFile:
    """The answers of one run. `bitlens compare` pairs two such files, question by question.

    Attributes:
        answers: Those that are there, by question's id.
    """

    def __init__(self, path: Path, run: str) -> None:
        """Reads the file, if there is one, and drops a last line that was cut off.

        Args:
            run: A digest of all that decides the answers; each line has it.

        Raises EvaluationError for a line of another run, or a damaged one.
        """
        self._path, self._run = path, run
        self._path.parent.mkdir(parents=True, exist_ok=True)
        data = path.read_bytes() if path.exists() else b""
        whole, _, cut = data.rpartition(b"\n")
        lines = [line for line in whole.split(b"\n") if line]
        read = [self._read(line, f"{path}, line {n}") for n, line in enumerate(lines, 1)]
        self.answers = {answer.id: answer for answer in read}
        if cut:
            with write_atomically(path) as scratch:
                scratch.write_bytes(whole + b"\n" if whole else b"")

    def add(self, question: Question, answer: Answer) -> None:
        """Writes an answer behind those that are there."""
        asked = digest(question.messages, question.functions, question.allowed)
        row = {
            **answer.as_dict(),
            "task": answer.category,
            "score": answer.fault is None,
            "prompt": asked,
            "run": self._run,
        }
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
        self.answers[answer.id] = answer

    def _read(self, line: bytes, where: str) -> Answer:
        row: dict[str, Any] = parse_object(line, where)
        if named(row, "run", where) != self._run:
            raise EvaluationError(
                f"{where}: of another model or setting: name another file, or remove this one"
            )
        fields = {name: named(row, name, where) for name in Answer.__dataclass_fields__}
        return Answer(**{**fields, "calls": tuple(fields["calls"])})
