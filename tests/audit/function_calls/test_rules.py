"""Right calls by the leaderboard's rules, its types as JSON schemas, and what fits them."""

from __future__ import annotations

import copy
import json
import random
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from bitlens.audit.function_calls import CATEGORIES, Question, as_tool, fault_of, misfit
from bitlens.audit.function_calls import read_questions as read
from bitlens.audit.function_calls.schemas import schema_of
from bitlens.interp.probes.data import DataError
from bitlens.model.generation.guide import GuideMaker
from bitlens.model.text.tools import ToolCall
from support.random_models import byte_tokenizer


@pytest.fixture(scope="module")
def questions() -> dict[str, Question]:
    return {question.id: question for name in CATEGORIES for question in read(name)}


def test_what_is_asked(questions: dict[str, Question]) -> None:
    counts = dict.fromkeys(CATEGORIES, 0)
    for question in questions.values():
        counts[question.category] += 1
        assert (question.allowed is None) == (question.category == "irrelevance")
        assert [message["role"] for message in question.messages] == ["user"]
    assert counts == {"simple": 400, "multiple": 200, "irrelevance": 240}


def first_right(allowed: Sequence[Any]) -> Any:
    """A value that counts as right; the leaderboard lists values of keys within objects, too."""
    value = next(each for each in allowed if each != "")
    if isinstance(value, dict):
        return {key: first_right(each) for key, each in value.items() if "" not in each}
    if isinstance(value, list):
        return [
            {k: first_right(v) for k, v in each.items()} if isinstance(each, dict) else each
            for each in value
        ]
    return value


def right_call(question: Question) -> ToolCall:
    assert question.allowed is not None
    ((name, allowed),) = question.allowed.items()
    (function,) = (each for each in question.functions if each["name"] == name)
    required = function["parameters"]["required"]
    needed = [key for key, values in allowed.items() if "" not in values or key in required]
    return ToolCall(name, {key: first_right(allowed[key]) for key in needed})


def test_right_calls_are_right_and_others_are_not(questions: dict[str, Question]) -> None:
    for question in questions.values():
        if question.allowed is None:
            assert fault_of([], question) is None
            assert fault_of([ToolCall("f", {})], question) == "called a function"
            continue
        call = right_call(question)
        assert fault_of([call], question) is None, question.id
        assert fault_of([], question) == "no call"
        assert fault_of([call, call], question) == "several calls"
        assert fault_of([ToolCall("f", call.arguments)], question) == "another function"
        (function,) = (each for each in question.functions if each["name"] == call.name)
        # What is right fits, so that a model which is held to the schemas can be right everywhere.
        assert misfit(call.arguments, as_tool(function).parameters) is None
        more = {**call.arguments, "surely not": 1}
        assert fault_of([ToolCall(call.name, more)], question) is not None
        assert misfit(more, as_tool(function).parameters) is not None


def test_verdicts_of_the_leaderboards_own_code(questions: dict[str, Question]) -> None:
    """Right calls, and calls bent in the ways that its rules tell apart, as `ast_checker` of
    bfcl-eval 2026.3.23 judged them; 90,000 such agreed when this was written."""
    lines = (Path(__file__).parent / "verdicts.jsonl").read_text().splitlines()
    seen = set()
    for row in map(json.loads, lines):
        calls = [ToolCall(call["name"], call["arguments"]) for call in row["calls"]]
        fault = fault_of(calls, questions[row["id"]])
        assert (fault is None) == row["right"], (row, fault)
        seen.add(fault)
    assert len(seen) == 9


@pytest.mark.parametrize(
    ("value", "schema", "said"),
    [
        (True, {"type": "integer"}, "bool for integer"),
        (1.5, {"type": "integer"}, "float for integer"),
        (401, {"type": "integer", "maximum": 400}, "more than 400"),
        ("c", {"type": "string", "enum": ["a", "b"]}, "none of the values"),
        ("2024-02-30", {"type": "string", "format": "date"}, "no date"),
        ([1], {"type": "array", "minItems": 2}, "1 items"),
        ([1, "a"], {"type": "array", "items": {"type": "integer"}}, "[1]: str for integer"),
        ({"b": 1}, {"type": "dict", "properties": {"a": {"type": "any"}}}, "b is no parameter"),
    ],
)
def test_what_does_not_fit_is_named(value: Any, schema: dict[str, Any], said: str) -> None:
    found = misfit(value, schema_of(schema))
    assert found is not None
    assert said in found


def test_types_and_keywords_that_are_not_known_are_refused() -> None:
    with pytest.raises(ValueError, match="'HashMap'"):
        schema_of({"type": "HashMap"})
    with pytest.raises(ValueError, match="pattern"):
        schema_of({"type": "string", "pattern": "a"})
    with pytest.raises(ValueError, match="simple, multiple, irrelevance"):
        read("parallel")


def test_a_file_that_is_not_the_leaderboards(tmp_path: Path) -> None:
    wheel = tmp_path / "other.whl"
    with zipfile.ZipFile(wheel, "w") as made:
        made.writestr("bfcl_eval/data/BFCL_v4_irrelevance.json", '{"id": "a", "question": []}\n')
    with pytest.raises(DataError, match="not the leaderboard's form"):
        read("irrelevance", wheel)


def bent(value: Any, draw: random.Random) -> Any:
    """A value that is a little different, somewhere."""
    value = copy.deepcopy(value)
    if isinstance(value, dict) and value:
        key = draw.choice(list(value))
        if draw.random() < 0.3:
            del value[key]
        else:
            value[key] = bent(value[key], draw)
        return value
    if isinstance(value, list) and value and draw.random() < 0.7:
        i = draw.randrange(len(value))
        value[i] = bent(value[i], draw)
        return value
    return draw.choice([7, 2.5, "other", True, [3], ["x"], {}, {"k": 1}])


def test_what_fits_is_what_the_grammar_lets_through(questions: dict[str, Question]) -> None:
    """Two readings of a schema, ours and llguidance's, on right arguments and bent ones."""
    tokenizer, draw = byte_tokenizer(), random.Random(0)
    guides = GuideMaker(tokenizer, 260)
    asked = [q for q in questions.values() if q.allowed is not None]
    counts = {True: 0, False: 0}
    for question in draw.sample(asked, 40):
        call = right_call(question)
        (function,) = (each for each in question.functions if each["name"] == call.name)
        schema = as_tool(function).parameters
        grammar = guides.grammar(schema)
        for arguments in (call.arguments, *(bent(call.arguments, draw) for _ in range(4))):
            order = [name for name in schema["properties"] if name in arguments]
            order += [name for name in arguments if name not in order]
            text = json.dumps({name: arguments[name] for name in order})
            fits = misfit(arguments, schema) is None
            assert accepts(guides, grammar, tokenizer.encode(text)) == fits, (text, schema)
            counts[fits] += 1
    assert min(counts.values()) > 40


def accepts(guides: GuideMaker, grammar: str, ids: list[int]) -> bool:
    """Whether a guide lets all of these through, and the end after them."""
    (guide,) = guides.make(grammar, 1)
    for i in [*ids, 257]:
        if torch.isinf(guide.mask(torch.zeros(260), 0))[i]:
            return False
        if i != 257:
            guide.accept(i)
    return True
