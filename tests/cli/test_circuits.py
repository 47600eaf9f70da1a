"""`bitlens clt` and `bitlens trace`: from a config file to a graph."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bitlens.interp import Graph
from support.command_line import Run, command_runner
from support.speaking_llama import write_speaking_llama
from support.training_runs import documents

TRANSCODERS = """
[transcoders]
d_sae = 64
k = 4
n_tokens = 1280
batch_tokens = 128
context_size = 64
"""
PROMPT = "the cat sat on a"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clt")
    write_speaking_llama(folder / "model")
    lines = [json.dumps({"text": text}) for text in documents(120)]
    (folder / "text.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return command_runner(capsys, monkeypatch)


def config(folder: Path, table: str) -> Path:
    path = folder / "run.toml"
    head = f'model = "{folder / "model"}"\ntext = "{folder / "text.jsonl"}"\n'
    path.write_text(head + table)
    return path


@pytest.mark.parametrize("reach", ["", "max_reach = 1\n"])
def test_from_a_config_to_a_graph(folder: Path, tmp_path: Path, run: Run, reach: str) -> None:
    code, out, err = run(
        "clt", "train", config(folder, TRANSCODERS + reach), "-o", tmp_path, "--json"
    )
    assert code == 0, err
    found = json.loads(out)
    assert found["step"] == 10
    transcoders = ["--transcoders", found["path"], "--model", folder / "model"]
    code, out, err = run(
        "clt", "eval", found["path"], "-m", folder / "model", "--text", folder / "text.jsonl",
        "--n-tokens", 200, "--alone", 0, "--json",
    )  # fmt: skip
    assert code == 0, err
    assert len(json.loads(out)["nmse"]) == 2
    path = tmp_path / "graph.json"
    code, out, err = run(
        "trace", PROMPT, *transcoders, "-o", path, "--max-n-logits", 2, "--stability",
        "--paraphrase", "a cat sat on the", "--check", 3, "--json",
    )  # fmt: skip
    assert code == 0, err
    found = json.loads(out)
    assert found["pruned"]["n_edges"] == len(Graph.load(path).weights)
    assert found["stability"]["n_runs"] == 3
    assert found["faithfulness"]["n_features"] == 3
    assert len(found["logits"]) == 2
    code, out, _ = run("trace", PROMPT, *transcoders, "--max-n-logits", 2, "--stability")
    assert code == 0
    assert "completeness" in out
    assert "stable over 2 runs" in out


@pytest.mark.parametrize(
    ("table", "names"),
    [
        ("", "[transcoders]"),
        ("[transcoders]\nd_sae = 64\n", "n_tokens is missing"),
        ("[transcoders]\nd_sae = 64\nn_tokens = 99\nwidth = 3\n", "width"),
        ("tokens = 3\n", "tokens"),
    ],
)
def test_bad_configs(folder: Path, tmp_path: Path, run: Run, table: str, names: str) -> None:
    code, _, err = run("clt", "train", config(folder, table), "-o", tmp_path)
    assert code == 2
    assert names in err
    assert "run.toml" in err


def test_bad_traces(folder: Path, tmp_path: Path, run: Run) -> None:
    code, _, err = run("trace", PROMPT, "-t", tmp_path, "-m", folder / "model")
    assert code == 2
    assert "no folder below it holds a dictionary" in err
    code, _, err = run("trace", PROMPT, "-t", tmp_path, "--paraphrase", "x")
    assert code == 2
    assert "--stability" in err
