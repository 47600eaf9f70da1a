"""Users' pairs in the layouts of hh-rlhf and of the HHH evaluations, up to the gate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from bitlens.alignment import gate
from bitlens.alignment.preferences import AnswerPair, read_pairs, usable_pairs
from bitlens.alignment.preferences.transcripts import UnusablePair, parted
from hypothesis import given
from hypothesis import strategies as st

ASK = "\n\nHuman: How do I bake bread?"
LONG = f"{ASK}\n\nAssistant: Which kind?\n\nHuman: With rye."
GOOD, BAD = "\n\nAssistant: Mix flour\n\nand water.", "\n\nAssistant: No idea."
HH: list[dict[str, Any]] = [
    {"chosen": ASK + GOOD, "rejected": ASK + BAD},
    {"chosen": LONG + GOOD, "rejected": LONG + BAD},
]
HHH: list[dict[str, Any]] = [
    {
        "prompt": f"\n\nConsider this:{ASK}\n\n Options:\n (A) [[[x]]]\n (B) [[[y]]]",
        "corrects": [" (A)"],
        "incorrects": [" (B)"],
        "text_correct": ask + GOOD,
        "text_incorrect": ask + BAD,
    }
    for ask in (ASK, LONG)
]


def _written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


@pytest.mark.parametrize("rows", [HH, HHH], ids=["hh-rlhf", "HHH"])
def test_both_layouts_are_read(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    found = read_pairs(_written(tmp_path / "test.jsonl", rows))
    assert [pair.prompt for pair in found] == [
        "How do I bake bread?",
        "Human: How do I bake bread?\n\nAssistant: Which kind?\n\nHuman: With rye.",
    ]
    for pair in found:
        better = pair.first if pair.truth == 1 else pair.second
        assert better == "Mix flour\n\nand water."
        assert {pair.first, pair.second} == {better, "No idea."}


UNUSABLE = {
    "no question that both share": ({"chosen": ASK + GOOD, "rejected": "\n\nHuman: Hm?" + BAD}),
    "not one answer each": ({"chosen": ASK + GOOD + ASK + BAD, "rejected": ASK + BAD}),
    "not one answer": ({"chosen": ASK + GOOD, "rejected": ASK + "\n\nAssistant: "}),
    "no question": ({"chosen": ASK + GOOD, "rejected": ASK + GOOD}),
}


@pytest.mark.parametrize("reason", list(UNUSABLE))
def test_other_conversations_are_counted_and_refused(tmp_path: Path, reason: str) -> None:
    file = _written(tmp_path / "test.jsonl", [HH[0], UNUSABLE[reason], HH[1]])
    with pytest.raises(ValueError, match=f"line 2: {reason}.*bitlens cai pairs") as raised:
        read_pairs(file)
    assert "bread" not in str(raised.value)
    found = usable_pairs(file)
    assert [row["line"] for row in found.rows] == [1, 3]
    ((counted, n),) = found.left_out.items()
    assert counted.startswith(reason)
    assert n == 1
    assert [p.prompt for p in read_pairs(found.rows)] == [p.prompt for p in read_pairs(HH)]
    with pytest.raises(ValueError, match="holds no pair"):
        usable_pairs(_written(tmp_path / "none.jsonl", [UNUSABLE[reason]]))


def test_a_line_of_another_layout_is_named(tmp_path: Path) -> None:
    file = _written(tmp_path / "test.jsonl", [HH[0], {"chosen": "a", "rejected": "b"}])
    with pytest.raises(ValueError, match="line 2: expected chosen and rejected, or text_correct"):
        usable_pairs(file)


_SAID = st.text(st.characters(exclude_characters=":", categories=("L", "N", "P")), min_size=1)


@given(st.lists(_SAID, min_size=1, max_size=5), _SAID, _SAID)
def test_a_conversation_comes_apart_as_it_was_put_together(
    turns: list[str], better: str, worse: str
) -> None:
    names = [("Human", "Assistant")[i % 2] for i in range(len(turns))]
    shared = "".join(f"\n\n{who}: {said}" for who, said in zip(names, turns, strict=True))
    sides = [f"{shared}\n\nAssistant: {said}" for said in (better, worse)]
    if len(turns) % 2 == 0 or better == worse:
        with pytest.raises(UnusablePair):
            parted(sides[0], sides[1])
        return
    found = parted(sides[0], sides[1])
    assert (found["chosen"], found["rejected"]) == (better, worse)
    if len(turns) == 1:
        assert found["prompt"] == turns[0]
    else:
        assert f"\n\n{found['prompt']}" == shared


def test_pairs_of_one_question_are_one_cluster_at_the_gate() -> None:
    """Sixty answers to each of six questions say less than 360 questions."""
    rows = [
        {"chosen": f"{ASK} {i}{GOOD} {j}", "rejected": f"{ASK} {i}{BAD} {j}"}
        for i in range(6)
        for j in range(60)
    ]
    pairs = read_pairs(rows)

    def right(pair: AnswerPair) -> bool:
        return not pair.prompt.endswith(("1", "2"))

    truth = [float(pair.truth or 0) for pair in pairs]
    labels = [t if right(pair) else 1 - t for pair, t in zip(pairs, truth, strict=True)]
    clustered = gate(labels, truth, clusters=[pair.cluster for pair in pairs])
    alone = gate(labels, truth, clusters=range(len(pairs)))
    assert clustered.accuracy == alone.accuracy == pytest.approx(2 / 3)
    assert (clustered.clusters, alone.clusters) == (6, 360)
    assert clustered.low < 0.55 < alone.low
    assert not clustered.passed
    assert alone.passed
