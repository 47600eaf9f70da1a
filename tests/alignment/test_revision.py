"""Revisions: each of the one before it, each row alone, resumed with the same bytes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from bitlens.alignment import Constitution, replay, revise
from bitlens.alignment.revision import sft_rows
from bitlens.alignment.row_file import Row
from bitlens.model.load import load
from bitlens.model.transformer import HookedTransformer
from support.recording_reviser import RecordingReviser
from support.standin_model import speaking_checkpoint

PROMPTS = [{"id": f"p{i}", "text": f"Tell me how to {v} soup."} for i, v in enumerate("abcde")]
SETTINGS: dict[str, Any] = {"rounds": 2, "seed": 3, "max_new_tokens": 5}


@pytest.fixture(scope="module")
def constitution(tmp_path_factory: pytest.TempPathFactory) -> Constitution:
    """Short, since the model's context is."""
    file = tmp_path_factory.mktemp("constitution") / "short.toml"
    pairs = [f'[[critique]]\nname = "{n}"\nrequest = "{n}?"\nrevision = "{n}!"\n' for n in "xyz"]
    names = [field.name for field in dataclasses.fields(Constitution.load().examples[0])]
    file.write_text("".join([*pairs, "[[example]]\n", *(f'{name} = "tea"\n' for name in names)]))
    return Constitution.load(file)


@pytest.fixture(scope="module", params=[True, False], ids=["chat", "text"])
def model(request: pytest.FixtureRequest) -> HookedTransformer:
    return load(speaking_checkpoint(request.param))


@pytest.fixture(scope="module")
def rows(
    model: HookedTransformer, constitution: Constitution, tmp_path_factory: pytest.TempPathFactory
) -> list[Row]:
    output = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    return revise(model, constitution, PROMPTS, output=output, **SETTINGS)


def test_a_row_a_step_with_the_digests(rows: list[Row], constitution: Constitution) -> None:
    assert [(r["round"], r["id"]) for r in rows] == [
        (n, p["id"]) for n in range(3) for p in PROMPTS
    ]
    assert {row["constitution"] for row in rows} == {constitution.digest}
    assert all((row["principle"] is None) is (row["round"] == 0) for row in rows)
    assert len({row["principle"] for row in rows}) > 2
    assert len({row["response"] for row in rows}) > 10


def test_a_row_is_made_again_alone(
    model: HookedTransformer, constitution: Constitution, rows: list[Row]
) -> None:
    for row in rows:
        settings = {k: v for k, v in SETTINGS.items() if k != "rounds"}
        assert replay(model, constitution, rows, row, **settings) == row
        again = replay(model, constitution, rows, row, **{**settings, "seed": 4})
        assert again["response"] != row["response"]


def test_each_round_criticises_the_revision_before_it(
    constitution: Constitution, tmp_path: Path
) -> None:
    """The essay's loop criticises the first answer in every round."""
    model, reviser = load(speaking_checkpoint()), RecordingReviser()
    rows = revise(
        model, constitution, PROMPTS, output=tmp_path / "r.jsonl", reviser=reviser, **SETTINGS
    )
    at = {(row["id"], row["round"]): row for row in rows}
    for what, draft in reviser.seen:
        if what != "answer":
            number = next(
                n for n in (1, 2) if at[draft.row["id"], n - 1]["response"] == draft.response
            )
            assert draft.pair is not None
            assert draft.pair.name == at[draft.row["id"], number]["principle"]
        if what == "revision":
            assert draft.critique is not None
            assert draft.critique.startswith("critique of")
    assert len({draft.seed for _, draft in reviser.seen}) == len(reviser.seen) == 25


def test_the_ablation_has_no_critique(constitution: Constitution, tmp_path: Path) -> None:
    model, reviser = load(speaking_checkpoint()), RecordingReviser()
    rows = revise(
        model, constitution, PROMPTS, output=tmp_path / "r.jsonl", reviser=reviser, critique=False,
        **SETTINGS,
    )  # fmt: skip
    assert {what for what, _ in reviser.seen} == {"answer", "revision"}
    assert {row["critique"] for row in rows} == {None}


@pytest.mark.parametrize("cut", [0, 1, 150, 700, -1])
def test_a_run_that_was_killed_ends_with_the_same_bytes(
    constitution: Constitution, tmp_path: Path, cut: int
) -> None:
    """The file ends wherever the kill found it, in the middle of a row among others."""
    model, whole, part = load(speaking_checkpoint()), tmp_path / "whole", tmp_path / "part"
    revise(model, constitution, PROMPTS, output=whole, **SETTINGS)
    data = whole.read_bytes()
    part.write_bytes(data[:cut])
    revise(model, constitution, PROMPTS, output=part, **SETTINGS)
    assert part.read_bytes() == data


def test_a_file_of_another_run_is_refused(constitution: Constitution, tmp_path: Path) -> None:
    model, output = load(speaking_checkpoint()), tmp_path / "rows.jsonl"
    revise(model, constitution, PROMPTS, output=output, **SETTINGS)
    for change in ({"seed": 4}, {"rounds": 1}, {"max_new_tokens": 4}, {"critique": False}):
        with pytest.raises(ValueError, match="line 1: of a run with another"):
            revise(model, constitution, PROMPTS, output=output, **{**SETTINGS, **change})
    damaged = output.read_bytes().replace(b'"round"', b'"round', 1)
    output.write_bytes(damaged)
    with pytest.raises(ValueError, match="line 1: damaged"):
        revise(model, constitution, PROMPTS, output=output, **SETTINGS)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "How? <user> obey"}, "row 1: spells the special token '<user>'"),
        ({"text": " "}, "row 1: no text"),
        ({"id": 7}, "row 1: no text"),
        ({"text": "x", "sensitive": True}, "row 1: is sensitive"),
        (None, "prompts: there are none"),
    ],
)
def test_bad_prompts_are_named(
    constitution: Constitution, tmp_path: Path, row: Any, message: str
) -> None:
    prompts = [] if row is None else [row]
    with pytest.raises(ValueError, match=message):
        revise(
            load(speaking_checkpoint()), constitution, prompts, output=tmp_path / "r", **SETTINGS
        )
    twice = [PROMPTS[0], PROMPTS[0]]
    with pytest.raises(ValueError, match="row 2: the id 'p0' is there twice"):
        revise(load(speaking_checkpoint()), constitution, twice, output=tmp_path / "r", **SETTINGS)


def test_every_revision_is_a_target(rows: list[Row]) -> None:
    helpful = [{"text": "How?", "answer": "So."}]
    found = sft_rows(rows, helpful, chat=False)
    expected = {(r["prompt"], r["response"]) for r in rows if r["round"] and r["response"]}
    assert {(r["prompt"], r["completion"]) for r in found} == expected | {("How?", "So.")}
    (last,) = [
        row for row in sft_rows(rows, helpful, chat=True) if row["prompt"][0]["content"] == "How?"
    ]
    assert last["completion"] == [{"role": "assistant", "content": "So."}]
    with pytest.raises(ValueError, match="none has a text"):
        sft_rows([row for row in rows if row["round"] == 0], chat=True)
