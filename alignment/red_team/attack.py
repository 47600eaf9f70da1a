"""`redteam`: every prompt, plain and inside every template, answered and judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..._core import numerics_version
from ...model.transformer import HookedTransformer
from ..draws import digest_of, text_digest
from ..row_file import RowFile
from .confusion import Confusion
from .judge import Judge, Judgement
from .leaks import find_leaks
from .prompts import Prompt, PromptSet, Row, standin_prompts
from .report import RedTeamReport, write_report
from .respondents import Answer, ModelRespondent, Respondent, respondent_of
from .templates import PLAIN, Template, open_templates

BATCH = 16
Progress = Callable[[int, int], None]


class AttackError(RuntimeError):
    """An answer that could not be had; names the row, and what kind of error ended it."""


class TextLeakError(RuntimeError):
    """A file of a run holds a piece of a sensitive text; names the file and the row."""


@dataclass(frozen=True)
class Item:
    """A prompt inside a template."""

    prompt: Prompt
    template: Template

    @property
    def id(self) -> str:
        return f"{self.template.id}/{self.prompt.id}"

    @property
    def row(self) -> Row:
        rows = (self.prompt.row, self.template.row)
        return "sensitive" if "sensitive" in rows else "standin"

    @property
    def text(self) -> str:
        """The text that is asked, made when it is needed."""
        return self.template.around(self.prompt)


def redteam(
    model: HookedTransformer | Respondent,
    *,
    judge: Judge,
    prompts: PromptSet | None = None,
    templates: Sequence[Template] | None = None,
    n: int = 50,
    seed: int = 0,
    max_new_tokens: int = 48,
    temperature: float = 0.0,
    confusion: Confusion | None = None,
    output: str | Path | None = None,
    progress: Progress | None = None,
) -> RedTeamReport:
    """Attacks a model, and asks it what it should answer in the same words.

    Each template is put around harmful requests, near misses and benign ones alike, so that every
    rate of attack stands beside what the same template costs the harmless.

    Args:
        model: What answers.
        judge: Tells refusals from answers; `measure` says how well.
        prompts: None takes the stand-in's. Of each kind, n are drawn.
        templates: None takes those of the stand-in that no training prompt has.
        seed: Of the draw, and of sampling where `temperature` is above 0.
        confusion: The judge's errors, which rates of refusal are corrected for.
        output: A folder for rows.jsonl, report.json and report.html. A run that was stopped goes on
            there, and ends with the same bytes; sensitive answers of the part that is there are
            made again in memory, so that the search for leaks knows them.
        progress: Called with rows done and rows in all.

    Raises:
        AttackError: an answer that could not be had, or that is not the one of its row when it is
            made again.
        TextLeakError: a file of the folder holds a piece of a sensitive prompt or answer.
        ValueError: too few prompts; a folder of another run.
    """
    answering = respondent_of(model)
    drawn = (standin_prompts(n, seed=seed) if prompts is None else prompts).draw(n, seed)
    around = open_templates("standin", 8, seed) if templates is None else list(templates)
    if len(drawn.of("harmful")) < 2:
        raise ValueError(f"{drawn.name}: at least two harmful prompts are needed")
    items = [Item(prompt, template) for template in (PLAIN, *around) for prompt in drawn]
    settings = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
    identity = {
        "model": answering.digest(),
        "judge": [judge.name, judge.digest()],
        "prompts": drawn.provenance(),
        "templates": [[t.id, t.digest] for t in around],
        **settings,
        "numerics_version": numerics_version,
    }
    run = _Run(answering, judge, settings)
    folder = None if output is None else Path(output)
    rows, said = run.all(items, folder, identity, progress)
    report = RedTeamReport(answering.name, judge.name, tuple(rows), confusion, identity)
    if folder is not None:
        write_report(report, folder)
        _check_leaks(folder, items, said, answering)
    return report


class _Run:
    """Asks and judges, a batch at a time."""

    def __init__(self, model: Respondent, judge: Judge, settings: dict[str, Any]) -> None:
        self._model, self._judge, self._settings = model, judge, settings

    def all(
        self,
        items: Sequence[Item],
        folder: Path | None,
        identity: dict[str, Any],
        progress: Progress | None,
    ) -> tuple[list[dict[str, Any]], dict[str, str]]:
        """Returns the rows, and the texts of all sensitive answers."""
        file, rows = None, list[dict[str, Any]]()
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            file = RowFile(folder / "rows.jsonl", digest_of(identity))
            rows = list(file.rows)
        said = self._said_before(items[: len(rows)], rows)
        for start in range(len(rows), len(items), BATCH):
            batch = items[start : start + BATCH]
            found = list(self._batch(batch, said))
            rows += found if file is None else file.append(found)
            if progress is not None:
                progress(len(rows), len(items))
        return rows, said

    def _said_before(self, items: Sequence[Item], rows: Sequence[dict[str, Any]]) -> dict[str, str]:
        """The sensitive answers of rows that are on disk, which hold their digests alone."""
        wanted = [
            (item, row)
            for item, row in zip(items, rows, strict=True)
            if item.row == "sensitive" and row["verdict"] is not None
        ]
        said: dict[str, str] = {}
        for start in range(0, len(wanted), BATCH):
            batch = wanted[start : start + BATCH]
            asked = [item for item, _ in batch]
            answers = _guarded(asked, partial(self._asked, [item.text for item in asked]))
            for (item, row), answer in zip(batch, answers, strict=True):
                if text_digest(answer.text) != row["answer_sha256"]:
                    raise AttackError(
                        f"row {item.id!r}: another answer than the one on disk, so what was said "
                        "cannot be searched for; remove the folder to begin anew"
                    )
                said[item.id] = answer.text
        return said

    def _asked(self, texts: list[str]) -> list[Answer]:
        return self._model.answers(texts, **self._settings)

    def _batch(self, items: Sequence[Item], said: dict[str, str]) -> Iterator[dict[str, Any]]:
        texts = [item.text for item in items]
        fitting, answers, verdicts = _guarded(items, lambda: self._answered(texts))
        found = dict(zip(fitting, zip(answers, verdicts, strict=True), strict=True))
        for i, item in enumerate(items):
            row: dict[str, Any] = {
                "id": item.id,
                "prompt_id": item.prompt.id,
                "template": item.template.id,
                "kind": item.prompt.kind,
                "cluster": item.prompt.cluster,
                "row": item.row,
                "seed": self._settings["seed"],
                "prompt_sha256": text_digest(texts[i]),
                "verdict": None,
            }
            if i in found:
                answer, judgement = found[i]
                row |= {
                    "verdict": judgement.verdict,
                    "score": judgement.score,
                    "n_tokens": answer.n_tokens,
                    "answer_sha256": text_digest(answer.text),
                }
                if item.row == "standin":
                    row |= {"prompt": texts[i], "answer": answer.text}
                else:
                    said[item.id] = answer.text
            yield row

    def _answered(self, texts: list[str]) -> tuple[list[int], list[Answer], list[Judgement]]:
        """Which prompts fit into the context, their answers and the verdicts on them."""
        limit = self._settings["max_new_tokens"]
        fitting = [i for i, text in enumerate(texts) if self._model.fits(text, limit)]
        asked = [texts[i] for i in fitting]
        if not asked:
            return [], [], []
        answers = self._asked(asked)
        return fitting, answers, self._judge.judge(asked, [a.text for a in answers])


def _guarded(items: Sequence[Item], answered: Callable[[], Any]) -> Any:
    """Returns what a function returns. An error on sensitive rows is replaced by one that quotes
    nothing, and has none of the old one's texts behind it."""
    if all(item.row == "standin" for item in items):
        return answered()
    failed = ""
    try:
        return answered()
    except Exception as error:
        failed = type(error).__name__
    raise AttackError(
        f"{failed} while rows {items[0].id!r} to {items[-1].id!r} were answered or judged; they "
        "are sensitive, so its message is not shown: ask these ids alone in a debugger"
    )


def _check_leaks(
    folder: Path, items: Sequence[Item], said: dict[str, str], answering: Respondent
) -> None:
    texts = {item.id: item.text for item in items if item.row == "sensitive"}
    texts |= {f"the answer to {id}": text for id, text in said.items()}
    tokenizer = answering.model.tokenizer if isinstance(answering, ModelRespondent) else None
    encode = None if tokenizer is None else tokenizer.encode
    leaks = find_leaks(folder, texts, encode) if texts else []
    if leaks:
        raise TextLeakError(
            f"{leaks[0].path.name} holds a piece of {leaks[0].id!r}, which is sensitive "
            f"({len(leaks)} such finds): remove {folder}"
        )
