"""Labelled conversations: what is read, what is refused, and that no text gets out."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest
from bitlens.interp.probes.data import (
    DataError,
    Dataset,
    Example,
    LeakError,
    check_no_leak,
    open_dataset,
    without_near_duplicates,
)
from bitlens.interp.probes.data.archive import Archive
from bitlens.interp.probes.data.near_duplicates import resembling
from bitlens.interp.probes.data.pyrit import WHEEL, harm, refusal, templates
from bitlens.interp.probes.data.requests import strongreject
from bitlens.interp.probes.data.rho import overrefusal
from bitlens.interp.probes.data.rho import refusal as pairs
from bitlens.interp.probes.data.split import one_side
from bitlens.interp.probes.data.templated import templated

CANARY = "zanzibar"


def examples(n: int = 6, prefix: str = "e") -> list[Example]:
    source = random.Random(prefix)
    words = [f"w{i}" for i in range(40)]
    return [
        Example(f"{prefix}{i}", " ".join(source.sample(words, 20)), i % 2, f"{prefix}-{i // 2}")
        for i in range(n)
    ]


def test_near_duplicates_are_those_of_all_pairs() -> None:
    source = random.Random(0)
    words = [frozenset(source.sample(range(14), source.randint(1, 12))) for _ in range(200)]
    sets = [frozenset(map(str, w)) for w in words]
    expected = {
        (i, j)
        for j in range(200)
        for i in range(j)
        if len(sets[i] & sets[j]) >= 0.6 * len(sets[i] | sets[j])
    }
    assert set(resembling(sets)) == expected
    assert len(expected) > 20


def test_duplicates_across_groups_are_left_out_and_counted() -> None:
    own = examples()
    copy = Example("copy", own[0].text.upper() + "!", 0, "another")
    pair = Example("pair", own[1].text + " more", 1, own[1].group)
    kept = without_near_duplicates(Dataset("d", (*own, copy, pair)))
    assert [e.id for e in kept] == [*(e.id for e in own), "pair"]
    assert kept.removed == {"near duplicates": 1}


def test_a_planted_leak_is_caught() -> None:
    train, test = Dataset("train", tuple(examples())), examples(prefix="t")
    check_no_leak(train, Dataset("test", tuple(test)))
    planted = Example("planted", " ".join(reversed(train.examples[3].text.split())), 0, "new")
    with pytest.raises(LeakError, match="'planted' resembles 'e3'"):
        check_no_leak(train, Dataset("test", (*test, planted)))
    shared = Example("shared", "quite other words", 0, train.examples[0].group)
    with pytest.raises(LeakError, match="1 groups are in train and in test"):
        check_no_leak(train, Dataset("test", (*test, shared)))


def test_jsonl(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    rows = [{"text": CANARY, "label": True, "group": 7, "category": "c"}, {"text": "b", "label": 0}]
    file.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    found = open_dataset(file)
    assert [(e.id, e.label, e.group, e.category) for e in found] == [
        ("line-1", 1, "7", "c"),
        ("line-2", 0, "line-2", ""),
    ]
    assert CANARY not in repr(found) + repr(found.examples[0]) + json.dumps(found.provenance())
    assert open_dataset(f"{file}+rho-overrefusal").name == "mine+rho-overrefusal"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f'{{"text": "{CANARY}"', "line 1: not JSON"),
        (f'["{CANARY}"]', "line 1: expected an object"),
        (f'{{"text": "{CANARY}"}}', 'line 1: expected a "label"'),
        (f'{{"text": "{CANARY}", "label": 2}}', 'line 1: expected a "label"'),
        (f'{{"text": "{CANARY}", "label": 1, "source": []}}', "line 1: expected a string"),
        ('{"text": " ", "label": 1}', 'line 1: expected a "text"'),
        ("", "no examples"),
    ],
)
def test_a_bad_line_is_named_and_not_quoted(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text(line)
    with pytest.raises(DataError, match=message) as raised:
        open_dataset(file)
    assert CANARY not in str(raised.value)
    assert raised.value.__cause__ is None


def test_sides_share_no_group_and_stay_as_they_are(tmp_path: Path) -> None:
    """More data moves no group to the other side; one that was moved would be caught."""
    file = tmp_path / "mine.jsonl"

    def sides(n: int) -> tuple[Dataset, Dataset]:
        rows = [{"id": e.id, "text": e.text, "label": e.label, "group": e.group}
                for e in examples(n)]  # fmt: skip
        file.write_text("\n".join(map(json.dumps, rows)))
        return open_dataset(f"{file}:train"), open_dataset(f"{file}:test")

    train, test = sides(80)
    check_no_leak(train, test)
    assert len(train) + len(test) == len(open_dataset(file))
    assert 4 < len(test) < len(train)
    assert (train.name, test.name) == ("mine:train", "mine:test")
    more, held_out = sides(160)
    assert {e.id for e in train} < {e.id for e in more}
    assert {e.id for e in test} < {e.id for e in held_out}
    moved = Dataset("moved", (*test.examples, train.examples[0]))
    with pytest.raises(LeakError, match="1 groups are in mine:train and in moved"):
        check_no_leak(train, moved)
    with pytest.raises(DataError, match="no group falls to test"):
        one_side(train, "test")


def test_neither_template_nor_request_is_seen_before() -> None:
    """No two families share a request, and each template holds as many of either label."""
    found = open_dataset("templated")
    pools = {1: strongreject().texts, 0: overrefusal().texts}
    assert len(set(found.groups)) > 25
    families: dict[str, set[str]] = {}
    for example in found:
        held = max((r for r in pools[example.label] if r in example.text), key=len)
        families.setdefault(held, set()).add(example.group)
    assert len(families) > 200
    assert all(len(groups) == 1 for groups in families.values())
    counts = Counter(e.label for e in templated())
    assert counts[0] == counts[1]


def test_ids_occur_once_and_names_are_known(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'e0' occurs more than once"):
        Dataset("d", (*examples(), examples()[0]))
    with pytest.raises(FileNotFoundError, match="pyrit-harm"):
        open_dataset("pyrit-harms")
    with pytest.raises(FileNotFoundError, match="no file"):
        open_dataset(tmp_path / "none.jsonl")


def test_what_is_read_of_the_wheels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes, and never the many-shot file, a pickle or code."""
    read: list[str] = []
    text = Archive.text

    def noted(self: Archive, member: str) -> str:
        read.append(member)
        return text(self, member)

    monkeypatch.setattr(Archive, "text", noted)
    scored = harm()
    assert (len(scored), int(scored.y.sum()), len(set(scored.groups))) == (975, 532, 387)
    assert len(refusal()) == 112
    assert len(pairs()) == 300
    assert len(templates()) > 50
    assert read
    assert not [m for m in read if "many_shot" in m or m.endswith((".py", ".pkl"))]
    with Archive(WHEEL) as archive, pytest.raises(DataError, match="never a pickle or code"):
        archive.text("pyrit/__init__.py")
