"""Questions asked of models: every call fits, whatever the model; runs go on where they ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import bitlens
import pytest
import torch
from bitlens.audit import compare
from bitlens.audit.evaluations import EvaluationError
from bitlens.audit.function_calls import CATEGORIES, Question, ask, read_questions, shares
from bitlens.audit.function_calls.answer import judged
from bitlens.model.text.tools import FORMATS, ToolCall
from bitlens.model.transformer import HookedTransformer
from bitlens.precision.statistics import clopper_pearson
from support.http_server import TEMPLATE
from support.random_models import byte_tokenizer, random_model


@pytest.fixture(scope="module")
def model() -> HookedTransformer:
    return random_model("llama", tokenizer=byte_tokenizer(TEMPLATE), changes={"n_ctx": 4096})


@pytest.fixture(autouse=True)
def _one_torch_thread(_settings_restored: None) -> None:
    torch.set_num_threads(1)


QUESTION = Question(
    "own_0",
    "simple",
    ({"role": "user", "content": "Paris, please."},),
    (
        {
            "name": "visit",
            "description": "Visits",
            "parameters": {
                "type": "dict",
                "properties": {
                    "city": {"type": "string", "description": "Where", "enum": ["Paris", "Rome"]},
                    "by_train": {"type": "boolean", "description": "How"},
                },
                "required": ["city", "by_train"],
            },
        },
    ),
    {"visit": {"city": ["paris"], "by_train": [True, False]}},
)


def test_calls_of_a_model_that_knows_nothing_fit(model: HookedTransformer) -> None:
    asked = [each for name in CATEGORIES for each in read_questions(name)[:2]]
    steps: list[tuple[int, int]] = []
    answers = ask(
        model,
        [QUESTION, *asked],
        max_new_tokens=120,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert steps == [(i, 7) for i in range(1, 8)]
    assert [answer.id for answer in answers] == ["own_0", *(each.id for each in asked)]
    assert [answer.choice for answer in answers] == ["required"] * 5 + ["auto"] * 2
    ((call,), text) = answers[0].calls, answers[0].text
    assert (call["name"], text, answers[0].finish_reason) == ("visit", "", "stop")
    assert set(call["arguments"]) == {"city", "by_train"}
    assert all(each.misfit is None for each in answers if each.finish_reason != "length")
    free = ask(model, [QUESTION], choice="auto", max_new_tokens=40)
    assert (free[0].choice, free[0].fault) == ("auto", "no call")


@pytest.mark.parametrize(
    ("choice", "parts", "said"),
    [
        ("required", [ToolCall("visit", {"city": "Rome", "by_train": True})], None),
        ("required", [ToolCall("visit", {"city": "Oslo", "by_train": True})], "'Oslo' is none"),
        ("required", [ToolCall("visit", {"city": "Rome"})], "no by_train"),
        ("required", ["so"], "where one call must be"),
        ("auto", ["so"], None),
        ("auto", ["<tool_call>\nvisit"], "opened that is none"),
    ],
)
def test_what_does_not_fit_is_seen(choice: Any, parts: list[Any], said: str | None) -> None:
    """The control of "every call fits": no grammar holds these."""
    answer = judged(QUESTION, choice, FORMATS["hermes"], parts, "stop", (9, 9))
    if said is None:
        assert answer.misfit is None
    else:
        assert answer.misfit is not None
        assert said in answer.misfit
        assert not shares([answer])[0].all_fit


def test_a_run_goes_on_where_it_ended(model: HookedTransformer, tmp_path: Path) -> None:
    asked, file = read_questions("simple")[:4], tmp_path / "answers.jsonl"
    whole = ask(model, asked, max_new_tokens=20)
    first = ask(model, asked[:2], max_new_tokens=20, output=file)
    with file.open("a") as cut:
        cut.write('{"id": "simple_python_2", "cat')  # a process was killed here
    counts: list[int] = []
    again = ask(
        model, asked, max_new_tokens=20, output=file, progress=lambda done, _: counts.append(done)
    )
    assert (counts, again[:2], again) == ([3, 4], first, whole)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(rows) == 4
    assert compare(file, file).difference == 0
    for changed in ({"max_new_tokens": 21}, {"choice": "auto"}):
        with pytest.raises(EvaluationError, match="another model or setting"):
            ask(model, asked, output=file, **{"max_new_tokens": 20, **changed})


def test_shares() -> None:
    right = ToolCall("visit", {"city": "Paris", "by_train": True})
    answers = [
        judged(QUESTION, "required", FORMATS["hermes"], parts, reason, (5, 3))
        for parts, reason in (([right], "stop"), ([], "length"), ([right, right], "stop"))
    ]
    (found,) = shares(answers)
    assert (found.n, found.cut, found.fitting, found.right) == (3, 1, 1, 1)
    assert found.interval == clopper_pearson(1, 3)
    assert found.faults == {"no call": 1, "several calls": 1}
    assert (found.prompt_tokens, found.output_tokens, found.all_fit) == (15, 9, False)


@pytest.mark.nightly
def test_all_840_on_smollm2(smollm2_path: Path, tmp_path: Path) -> None:
    """Every answer that its length did not end fits; a model of 135 million parameters is poor."""
    model = bitlens.load(smollm2_path, dtype="bf16")
    asked = [each for name in CATEGORIES for each in read_questions(name)]
    found = shares(ask(model, asked))
    assert [each.n for each in found] == [400, 200, 240]
    assert all(each.all_fit for each in found)
    # Bits do not move, and so neither do counts: those of docs/tool_calling.md.
    assert [(each.cut, each.right) for each in found] == [(19, 146), (16, 63), (104, 240)]
