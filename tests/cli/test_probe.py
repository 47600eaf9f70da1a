"""`bitlens probe`: JSONL in, a probe and reports out, no text in."""

from __future__ import annotations

import json
import random
from pathlib import Path

import bitlens
import pytest
import torch
from bitlens.interp.probes import Probe
from support.command_line import Run, command_runner
from support.random_dictionaries import random_dictionary
from support.speaking_llama import write_speaking_llama

MARKED = ("zq", "qz")
"""What positives say, in letters that no other text has."""


def words(source: random.Random, n: int) -> list[str]:
    return ["".join(source.choices("abcdefghij", k=source.randint(2, 5))) for _ in range(n)]


def write_examples(path: Path, n: int, seed: int, *, positives: bool = True) -> Path:
    source = random.Random(seed)
    lines = []
    for i in range(n):
        label = int(positives and i % 2)
        text = words(source, source.randint(6, 12))
        for _ in range(3 * label):
            text.insert(source.randrange(len(text)), source.choice(MARKED))
        row = {"id": f"{path.stem}-{i}", "text": " ".join(text), "label": label,
               "group": f"{path.stem}-{i // 2}", "category": f"c{i % 4 // 2}"}  # fmt: skip
        lines.append(json.dumps(row))
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("probe")
    write_speaking_llama(folder / "model")
    write_examples(folder / "mine.jsonl", 60, 0)
    write_examples(folder / "others.jsonl", 24, 1)
    benign = write_examples(folder / "benign.jsonl", 60, 2, positives=False)
    with benign.open("a") as file:  # its only token gets no score
        file.write('\n{"id": "short", "text": "a", "label": 0}\n')
    return folder


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return command_runner(capsys, monkeypatch, "probe")


def test_from_jsonl_to_a_report(folder: Path, tmp_path: Path, run: Run) -> None:
    made = tmp_path / "probe"
    code, out, err = run(
        "train", folder / "model", folder / "mine.jsonl", "--benign", folder / "benign.jsonl",
        "--output", made, "--max-tokens", "64", "--aggregate", "mean", "--aggregate", "max",
        "--C", "0.1", "--leave-out", "category",
    )  # fmt: skip
    assert code == 0, err
    report = json.loads((made / "report.json").read_text())
    assert report["auroc"] > 0.9
    assert set(report["baselines"]) == {"length", "n-grams", "embeddings", "tf-idf"}
    assert set(report["left_out"]["category"]) == {"c0", "c1"}
    assert [a["target_fpr"] for a in report["alarms"]] == [0.05, 0.01, 0.001]
    assert report["data"]["n"] == 60
    assert report["benign"]["removed"]["too short to score"] == 1
    assert "AUROC" in out
    assert "recall at 1.0%" in out
    assert "of harmful tokens released" in out

    probe = Probe.load(made)
    assert probe.metadata_["model_fingerprint"]
    code, out, err = run(
        "eval", folder / "model", made, folder / "others.jsonl", "-o", tmp_path / "other", "--json"
    )
    assert code == 0, err
    assert json.loads(out)["auroc"] > 0.9
    assert probe.metadata_["guarantee"] == report["guarantee"]
    assert "Guarantee" in (made / "report.html").read_text()
    check_certify(run, folder, made, tmp_path / "other")
    written = [p for f in (made, tmp_path / "other") for p in f.rglob("*") if p.is_file()]
    assert {p.name for p in written} == {
        "probe.json", "probe.safetensors", "report.json", "report.html", "scores.json",
    }  # fmt: skip
    check_no_text(folder, out, err, *(p.read_bytes().decode("utf-8", "replace") for p in written))


def check_no_text(folder: Path, *contents: str) -> None:
    """Checks that no three words in a row of a text stand in what was printed or written."""
    texts = [
        json.loads(line)["text"]
        for name in ("mine", "others", "benign")
        for line in (folder / f"{name}.jsonl").read_text().splitlines()
    ]
    pieces = {" ".join(t.split()[i : i + 3]) for t in texts for i in range(len(t.split()) - 2)}
    assert len(pieces) > 1000
    for content in contents:
        assert not [piece for piece in pieces if piece in content]
        assert not [word for word in MARKED if f" {word} " in content]
    with pytest.raises(AssertionError):
        assert not [piece for piece in pieces if piece in texts[0]]


def check_certify(run: Run, folder: Path, made: Path, other: Path) -> None:
    """The margin goes into the probe's file; scores recorded here are held against ours."""
    scores = other / "scores.json"
    certify = ("certify", folder / "model", made, folder / "others.jsonl")
    code, out, err = run(*certify, "--store", "--record", scores)
    assert code == 0, err
    assert "cannot have flipped, if run b's activations" in out
    stored = Probe.load(made).metadata_
    assert stored["margin"] > 0
    assert set(stored["golden"]["scores"]) == {"fp32", "bf16"}
    code, out, err = run(*certify, "--recorded", scores, "--json")
    assert code == 0, err
    assert json.loads(out)["largest_distance"] == 0
    assert run(*certify, "--recorded", scores, "--store")[0] == 2
    assert run(*certify, "--b", "fp32")[0] == 2


def test_what_is_refused(folder: Path, tmp_path: Path, run: Run) -> None:
    made = tmp_path / "probe"
    train = ("train", folder / "model", folder / "mine.jsonl", "--max-tokens", "48", "-o", made)
    quick = ("--hook", "blocks.0.hook_resid_post", "--aggregate", "mean", "--C", "0.1")
    assert run(*train, *quick)[0] == 0
    code, _, err = run("eval", folder / "model", made, folder / "mine.jsonl")
    assert code == 2
    assert "what the probe was trained on" in err
    code, _, err = run(*train, *quick, "--benign", folder / "others.jsonl")
    assert code == 2
    assert "positives" in err
    code, _, err = run(*train, *quick, "--benign", folder / "mine.jsonl")
    assert code == 2
    code, _, err = run(*train, "--hook", "blocks.9.hook_resid_post", "--C", "1")
    assert code != 0
    assert "blocks.9" in err
    code, _, err = run(*train, *quick, "--target-fpr", "1.5")
    assert code == 2
    assert "target_fpr" in err
    write_speaking_llama(tmp_path / "another", seed=1)
    code, _, err = run("eval", tmp_path / "another", made, folder / "others.jsonl")
    assert code == 2
    assert "train it again" in err
    weights = made / "probe.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    code, _, err = run("eval", folder / "model", made, folder / "others.jsonl")
    assert code == 2
    assert "damaged" in err


def test_attacks_and_causes_are_told_in_figures_alone(
    folder: Path, tmp_path: Path, run: Run
) -> None:
    made = tmp_path / "probe"
    quick = ("--hook", "blocks.0.hook_resid_post", "--aggregate", "mean", "--C", "0.1")
    data = (folder / "model", folder / "mine.jsonl", "--max-tokens", "48", "-o", made)
    assert run("train", *data, *quick, "--target-fpr", "0.3")[0] == 0
    attack = ("attack", folder / "model", made, folder / "others.jsonl", "--rewrite", "rot13",
              "--hide", "2", "--prefix", "2", "--steps", "2", "--tries", "3")  # fmt: skip
    code, printed, err = run(*attack)
    assert code == 0, err
    assert "rot13" in printed
    assert "search: hides" in printed
    code, out, err = run(*attack, "--json")
    assert code == 0, err
    assert json.loads(out)["search"]["flagged"] == 2
    assert run("attack", folder / "model", made, folder / "mine.jsonl")[0] == 2
    code, causal, err = run(
        "causal", folder / "model", made, folder / "others.jsonl", "--says", "ab", "--rather", "cd",
        "--limit", "4",
    )  # fmt: skip
    assert code == 0, err
    assert "random directions" in causal
    check_no_text(folder, printed, out, causal, err)


@pytest.mark.parametrize("longer", [0, 6])
def test_a_planted_length_confound_is_named(
    folder: Path, tmp_path: Path, run: Run, longer: int
) -> None:
    """By the command, in its report and on its page; without one, the control, it is not."""
    source = random.Random(7)
    rows = [
        {"text": " ".join(words(source, 8 + longer * (i % 2))), "label": i % 2} for i in range(60)
    ]
    file, made = tmp_path / "planted.jsonl", tmp_path / "probe"
    file.write_text("\n".join(map(json.dumps, rows)))
    quick = ("--hook", "blocks.0.hook_resid_post", "--aggregate", "mean", "--C", "0.1")
    code, out, err = run("train", folder / "model", file, *quick, "-o", made)
    assert code == 0, err
    said = "length confound: length alone tells the classes apart"
    written = json.loads((made / "report.json").read_text())["warnings"]
    contents = (" ".join(out.split()), *written, (made / "report.html").read_text())
    assert sum(said in each for each in contents) == (3 if longer else 0)


def test_features_of_a_dictionary(folder: Path, tmp_path: Path, run: Run) -> None:
    model = bitlens.load(folder / "model")
    random_dictionary(model, "blocks.0.hook_resid_post", k=12).save_model(tmp_path / "sae")
    made = tmp_path / "probe"
    code, out, err = run(
        "train", folder / "model", folder / "mine.jsonl", "--dictionary", tmp_path / "sae",
        "--max-tokens", "48", "--aggregate", "mean", "--aggregate", "max", "--C", "0.1", "-o", made,
        "--json",
    )  # fmt: skip
    assert code == 0, err
    assert json.loads(out)["auroc"] > 0.8
    probe = Probe.load(made, model)
    assert probe.hook_name == "blocks.0.hook_resid_post"
    assert probe.coef_.shape == (1, 48)
    code, out, err = run("eval", folder / "model", made, folder / "others.jsonl", "--json")
    assert code == 0, err
    assert json.loads(out)["auroc"] > 0.8


def test_one_class_gets_alarms_alone(folder: Path, tmp_path: Path, run: Run) -> None:
    made = tmp_path / "probe"
    quick = ("--hook", "blocks.0.hook_resid_post", "--aggregate", "mean", "--C", "0.1")
    data = (folder / "model", folder / "mine.jsonl", "--max-tokens", "48", "-o", made)
    assert run("train", *data, *quick)[0] == 0
    code, out, err = run("eval", folder / "model", made, folder / "benign.jsonl", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert "auroc" not in report
    assert report["alarms"][0]["benign"]["conversations"]["of"] == 60
    assert report["data"]["removed"]["too short to score"] == 1
    assert torch.isfinite(torch.tensor(report["threshold"]))
