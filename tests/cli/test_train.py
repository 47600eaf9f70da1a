"""`bitlens train`: from a config file to trained weights."""

from __future__ import annotations

import json
from pathlib import Path

import bitlens
import pytest
from support.command_line import Run, command_runner
from support.speaking_llama import write_speaking_llama
from support.training_models import PAIRS, SUMS

REWARD = "def length(completions, **columns):\n    return [float(len(t)) for t in completions]\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train")
    write_speaking_llama(folder / "model")
    for name, rows in (("sums", SUMS), ("pairs", PAIRS)):
        (folder / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (folder / "reward.py").write_text(REWARD)
    return folder


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return command_runner(capsys, monkeypatch, "train")


def _config(folder: Path, data: str, extra: str = "") -> Path:
    path = folder / "run.toml"
    head = f'model = "{folder / "model"}"\ndata = "{folder / data}.jsonl"\nsteps = 2\n'
    path.write_text(head + "batch_size = 4\n" + extra)
    return path


@pytest.mark.parametrize(
    ("method", "data", "extra"),
    [
        ("sft", "sums", "held_out = 2\n"),
        ("dpo", "pairs", ""),
        ("grpo", "sums", 'reward = "{}/reward.py:length"\nmax_new_tokens = 4\n'),
    ],
)
def test_from_a_config_to_weights(
    folder: Path, tmp_path: Path, run: Run, method: str, data: str, extra: str
) -> None:
    config = _config(folder, data, extra.format(folder))
    code, out, err = run(method, config, "-o", tmp_path, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["metrics"]["step"] == 2
    assert Path(found["checkpoint"]).exists()
    code, out, _ = run(method, config, "-o", tmp_path, "--export", tmp_path / "model")
    assert code == 0
    assert bitlens.load(tmp_path / "model").fingerprint() == found["weights_digest"]
    assert "2 steps, loss" in out
    assert ("held_out_loss" in out) == (method == "sft")


def test_a_longer_context_is_a_table_of_the_config(folder: Path, tmp_path: Path, run: Run) -> None:
    short = bitlens.load(folder / "model").config.n_ctx
    row = {"text": " ".join(["the cat sat on a mat"] * short)}
    (folder / "texts.jsonl").write_text(json.dumps(row))
    scaling = '[rope_scaling]\nrope_type = "yarn"\nfactor = 2.0\n'
    config = _config(folder, "texts", f"max_length = {2 * short}\n{scaling}")
    code, out, err = run("lm", config, "-o", tmp_path, "--export", tmp_path / "model", "--json")
    assert code == 0, err
    assert json.loads(out)["metrics"]["tokens"] > 4 * short
    longer = bitlens.load(tmp_path / "model")
    assert longer.config.n_ctx == 2 * short
    assert longer.config.layers[0].rope_scaling is not None
    wrong = _config(folder, "texts", 'rope_scaling = "yarn"\n')
    code, _, err = run("lm", wrong, "-o", tmp_path / "wrong")
    assert code == 2
    assert "rope_scaling = 'yarn': expected a dict" in err


def test_what_is_wrong_is_said_in_a_line(folder: Path, tmp_path: Path, run: Run) -> None:
    for extra, message in (
        ("stepz = 3\n", "stepz: no settings"),
        ("lr = -1.0\n", "lr = -1.0: expected a number above 0"),
        ('reward = "nowhere.py:f"\n', "expected FILE.py:FUNCTION"),
        (f'reward = "{folder}/reward.py:g"\n', "has no function 'g'"),
    ):
        code, _, err = run("sft", _config(folder, "sums", extra), "-o", tmp_path)
        assert code == 2
        assert message in err
        assert len(err.strip().splitlines()) == 1
    code, _, err = run("sft", _config(folder, "pairs"), "-o", tmp_path)
    assert code == 2
    assert "data, row 1: completion: expected a text" in err
