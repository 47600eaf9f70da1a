"""The dictionary that comes with bitlens: what it is, how good it is, and what lies beside it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import bitlens
import pytest
import torch
from bitlens.interp import evaluate, load_dictionary, load_examples, splice
from bitlens.interp.activations import corpus
from bitlens.interp.dictionaries import Dictionary
from bitlens.interp.dictionaries.load import find_dictionary
from bitlens.interp.training import TrainConfig
from bitlens.model.hooks.registry import same_bits
from bitlens.model.transformer import HookedTransformer

NAME = "smollm2-135m-instruct/blocks.15.hook_resid_post"
PACKAGE = Path(bitlens.__file__).resolve().parent / "data" / "smollm2_dictionary"


@pytest.fixture(scope="module")
def model(smollm2_path: Path) -> HookedTransformer:
    return bitlens.load(smollm2_path)


@pytest.fixture(scope="module")
def dictionary(model: HookedTransformer) -> Dictionary:
    return load_dictionary(NAME, model=model)


def test_it_is_what_its_config_says(dictionary: Dictionary) -> None:
    cfg = dictionary.cfg
    assert (cfg.architecture, cfg.d_sae, cfg.k, cfg.d_in) == ("topk", 9216, 32, 576)
    assert dictionary.W_enc.dtype == dictionary.W_dec.dtype == torch.bfloat16
    assert dictionary.b_enc.dtype == torch.float32
    config = TrainConfig.from_dict(cfg.metadata["training"])
    assert config.n_tokens >= 5_000_000
    assert cfg.metadata["text_sha256"] == corpus.WHEEL.sha256
    folder = find_dictionary(NAME)
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == config.n_steps
    assert any("weights_sha256" in line for line in log if line["step"] == 100)


def test_its_evaluation_meets_its_goals() -> None:
    """On held-out documents, as `package.py` measured the committed file."""
    result = json.loads((find_dictionary(NAME) / "evaluation.json").read_text())
    found, control = result["result"], result["random_dictionary"]
    assert found["explained_variance"] >= 0.83
    assert found["delta_ce"] <= 0.20
    assert found["ce_loss_score"] >= 0.983
    assert found["ce_loss_score_mean"] >= 0.969
    assert found["dead_share"] < 0.05
    assert control["explained_variance"] < found["explained_variance"] - 0.3


def test_the_page_says_how_it_grew() -> None:
    """Each figure is the mean over the batches that the log has within 100,000 rows."""
    page = (PACKAGE.parents[1] / "docs" / "dictionaries.md").read_text()
    header = page.index("| rows seen |")
    sizes, _, stated = page[header : page.index("\n\n", header)].splitlines()
    log = (find_dictionary(NAME) / "log.jsonl").read_text().splitlines()
    lines = [json.loads(line) for line in log]
    pairs = list(zip(_cells(sizes), _cells(stated), strict=True))
    assert len(pairs) > 5
    for size, figure in pairs:
        rows = float(size.removesuffix("M")) * 1e6
        near = [x["explained_variance"] for x in lines if abs(x["rows"] - rows) <= 100_000]
        assert float(figure) == pytest.approx(sum(near) / len(near), abs=5e-4), size


def _cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("|").split("|")][1:]


def test_a_few_held_out_tokens_agree(model: HookedTransformer, dictionary: Dictionary) -> None:
    result = evaluate(model, dictionary, n_tokens=2048, n_dead_tokens=4096)
    assert result.explained_variance > 0.8
    assert result.delta_ce < 0.3
    assert result.l0 == pytest.approx(32, abs=0.1)


def test_splicing_it_with_its_error_moves_no_bit(
    model: HookedTransformer, dictionary: Dictionary
) -> None:
    prompt = "The Eiffel Tower stands in the city of Paris."
    plain = model(prompt)
    with splice(model, dictionary) as spliced:
        assert same_bits(spliced(prompt), plain)
        assert sum(spliced.n_encoded.values()) > 0
    with splice(model, dictionary, use_error_term=False) as spliced:
        assert not same_bits(spliced(prompt), plain)


def test_examples_are_short_few_and_from_texts_that_may_be_shared(
    model: HookedTransformer, dictionary: Dictionary
) -> None:
    folder = find_dictionary(NAME)
    examples = load_examples(folder, dictionary.cfg.d_sae)
    assert examples is not None
    assert examples.tokens.shape[2] <= 24
    assert (folder / "examples.safetensors").stat().st_size <= 4_000_000
    assert "CC BY" in examples.metadata["text"]
    assert (examples.lengths > 0).any(1).float().mean() > 0.9
    texts = "\n".join(corpus.default_corpus(corpus.REDISTRIBUTABLE))
    assert model.tokenizer is not None
    for feature in range(0, 9216, 701):
        for example in examples.of(feature):
            assert model.tokenizer.decode(example.tokens).strip("�") in texts


def test_the_package_holds_the_dictionary(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    shutil.copytree(PACKAGE, tmp_path / "source")  # setuptools builds in place
    subprocess.run([*command, "-w", str(tmp_path), str(tmp_path / "source")], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {Path(name).name for name in archive.namelist()}
    kept = {p.name for p in find_dictionary(NAME).iterdir()}
    assert kept <= names
    assert {"cfg.json", "sae_weights.safetensors", "examples.safetensors", "log.jsonl"} <= kept


def test_without_it_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bitlens.interp.dictionaries.load._IN_CLONE", Path("nowhere", "at-all"))
    with pytest.raises(FileNotFoundError, match=r"pip install \./nowhere"):
        load_dictionary(NAME)
