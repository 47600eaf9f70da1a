"""`bitlens sae train` and `harvest`: a config file in, a dictionary out, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bitlens.interp.dictionaries import load_dictionary
from support.command_line import Run, command_runner
from support.speaking_llama import write_speaking_llama
from support.training_runs import documents

DICTIONARY = """
hook_name = "blocks.0.hook_resid_post"
d_sae = 64
k = 4
n_tokens = 2560
unique_tokens = 2000
batch_size = 128
context_size = 64
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sae")
    write_speaking_llama(folder / "model")
    lines = [json.dumps({"text": text}) for text in documents(120)]
    (folder / "text.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return command_runner(capsys, monkeypatch, "sae")


def config(folder: Path, tables: str, name: str = "run.toml") -> Path:
    path = folder / name
    head = f'model = "{folder / "model"}"\ntext = "{folder / "text.jsonl"}"\n'
    path.write_text(head + tables)
    return path


def test_one_dictionary(folder: Path, tmp_path: Path, run: Run) -> None:
    file = config(folder, f"[dictionary]{DICTIONARY}")
    code, out, err = run("train", file, "--output", tmp_path / "a", "--json")
    assert code == 0, err
    (found,) = json.loads(out)["dictionaries"]
    assert found["step"] == 20
    assert load_dictionary(found["path"]).cfg.d_sae == 64
    code, out, _ = run("train", file, "--output", tmp_path / "a")  # done: says so again
    assert code == 0
    assert "explained variance" in out
    assert not (tmp_path / "a" / "harvest").exists()


def test_several_dictionaries_of_a_harvest_made_before(
    folder: Path, tmp_path: Path, run: Run
) -> None:
    two = f"[dictionaries.narrow]{DICTIONARY}[dictionaries.batch]{DICTIONARY}"
    file = config(folder, two.replace("k = 4", "architecture = 'batchtopk'\nk = 4"), "two.toml")
    code, _, err = run("harvest", file, "--output", tmp_path)
    assert code == 0, err
    before = (tmp_path / "harvest" / "activations_00000.safetensors").stat().st_mtime_ns
    code, out, err = run("train", file, "--output", tmp_path, "--keep-harvest", "--json")
    assert code == 0, err
    assert [Path(d["path"]).parent.name for d in json.loads(out)["dictionaries"]] == [
        "narrow",
        "batch",
    ]
    after = (tmp_path / "harvest" / "activations_00000.safetensors").stat().st_mtime_ns
    assert after == before
    assert load_dictionary(tmp_path / "batch" / "dictionary").cfg.architecture == "jumprelu"


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ("", "expected a table [dictionary]"),
        ("[dictionary]\nhook_name = 'x'", "d_sae is missing"),
        ("layers = 3\n[dictionary]\n", "unknown field 'layers'"),
        (f"[dictionary]{DICTIONARY}\nd_sea = 3", "unknown field 'd_sea'"),
        (f"[dictionary]{DICTIONARY.replace('k = 4', 'k = 400')}", "k = 400"),
        (f"[dictionary]{DICTIONARY.replace('resid_post', 'resid_pots')}", "hook_resid_post"),
        (f'[dictionaries."../up"]{DICTIONARY}', "no folder's name"),
        ("[dictionary", "run.toml"),
    ],
)
def test_a_bad_config_is_one_line(
    folder: Path, tmp_path: Path, run: Run, tables: str, message: str
) -> None:
    code, _, err = run("train", config(folder, tables), "--output", tmp_path)
    assert code == 2
    assert message in err
    assert "Traceback" not in err


def test_a_file_or_text_that_is_not_there_is_named(folder: Path, tmp_path: Path, run: Run) -> None:
    code, _, err = run("train", tmp_path / "none.toml", "--output", tmp_path)
    assert code == 2
    assert "none.toml" in err
    file = tmp_path / "r.toml"
    file.write_text(f'model = "{folder / "model"}"\ntext = "/nowhere"\n[dictionary]{DICTIONARY}')
    code, _, err = run("train", file, "--output", tmp_path)
    assert code == 2
    assert "no file or folder /nowhere" in err


def test_stability_is_told_and_printed(folder: Path, tmp_path: Path, run: Run) -> None:
    file = config(folder, f"[dictionary]{DICTIONARY}")
    assert run("train", file, "--output", tmp_path)[0] == 0
    dictionary, text = tmp_path / "dictionary", ("--text", folder / "text.jsonl")
    options = (folder / "model", dictionary, *text, "--n-tokens", "400", "--split", "all")
    code, out, err = run("stability", *options)
    assert code == 0, err
    for words in ("lost in b", "gained in b", "certified not to have flipped"):
        assert words in out
    code, out, _ = run("stability", *options, "--json")
    found = json.loads(out)
    assert found["b"] == "bf16"
    assert found["wrong"] == 0
    assert found["certified_share"] == found["certified"] / found["pairs"]
    code, out, _ = run("stability", *options, "--b", folder / "model", "--json")
    assert json.loads(out)["lost"] == 0  # the same weights under the same policy
    code, _, err = run("stability", *options, "--b", "fp32")
    assert code == 2
    assert "the same run as --a" in err
