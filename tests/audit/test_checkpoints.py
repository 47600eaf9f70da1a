"""Two checkpoints are compared before anything runs: what differs is said, and nothing is green."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bitlens
import pytest
import torch
from bitlens.audit import AuditResult, Plan, render, run_audit
from bitlens.audit.checkpoints import CheckpointComparison, compare_checkpoints, resident_checkpoint
from bitlens.model.sources.resolve import open_checkpoint
from safetensors.torch import load_file, save_file
from support.command_line import command_runner
from support.speaking_llama import write_speaking_llama

PLAN = Plan(tokens=20, checked=1, rows=2)
PROMPTS = ["Once upon", "def f(x):", "The cat sat on the mat and"]
DOWN = "model.layers.1.mlp.down_proj.weight"
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_speaking_llama(tmp_path_factory.mktemp("llama"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    return folder


def changed(llama: Path, to: Path, change: Callable[[Path], object]) -> Path:
    shutil.copytree(llama, to)
    change(to)
    return to


def _weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    return write


def _json(file: str, change: Callable[[Any], object]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        found = json.loads((folder / file).read_text())
        change(found)
        (folder / file).write_text(json.dumps(found))

    return write


@_weights
def scale_one(tensors: dict[str, torch.Tensor]) -> None:
    tensors[DOWN] *= 1.05


@_weights
def round_two(tensors: dict[str, torch.Tensor]) -> None:
    for name in (DOWN, "lm_head.weight"):
        tensors[name] = tensors[name].to(torch.bfloat16)


@_weights
def tie(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["lm_head.weight"]


def no_head(folder: Path) -> None:
    tie(folder)
    _json("config.json", lambda c: c.update(tie_word_embeddings=True))(folder)


def swap_tokens(folder: Path) -> None:
    def swap(tokenizer: Any) -> None:
        vocabulary = tokenizer["model"]["vocab"]
        vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]

    _json("tokenizer.json", swap)(folder)


other_template = _json("tokenizer_config.json", lambda c: c.update(chat_template=TEMPLATE + "!"))
other_config = _json("config.json", lambda c: c.update(rms_norm_eps=1e-3))


def compared(a: Path, b: Path) -> CheckpointComparison:
    return compare_checkpoints(open_checkpoint(a), open_checkpoint(b))


def test_equal_checkpoints(llama: Path) -> None:
    found = compared(llama, llama)
    assert (found.tensors, found.equal, found.differences) == (21, 21, ())
    assert found.same
    assert found.headline == ""
    assert not found.settings


def test_one_scaled_matrix(llama: Path, tmp_path: Path) -> None:
    found = compared(llama, changed(llama, tmp_path / "b", scale_one))
    assert found.headline == "1 of 21 tensors differs"
    assert str(found.differing[0]) == "blocks.1.mlp.down.weight: A's times 1.05"
    assert found.differing[0].error == pytest.approx(0.05, rel=1e-5)
    assert found.differing[0].values == 48 * 80


def test_one_value_is_enough(llama: Path, tmp_path: Path) -> None:
    def nudge(tensors: dict[str, torch.Tensor]) -> None:
        value = tensors[DOWN][3, 5]
        tensors[DOWN][3, 5] = torch.nextafter(value, value + 1)

    found = compared(llama, changed(llama, tmp_path / "b", _weights(nudge)))
    assert [(d.values, d.factor) for d in found.differing] == [(1, None)]


def test_a_rounded_one_is_told_from_another(llama: Path, tmp_path: Path) -> None:
    rounded = changed(llama, tmp_path / "b", round_two)
    for found in (compared(llama, rounded), compared(rounded, llama)):
        assert found.same
        assert found.headline == "2 of 21 tensors rounded to bf16"
        assert [d.name for d in found.rounded] == ["blocks.1.mlp.down.weight", "unembed.weight"]
    _weights(lambda t: t.update({DOWN: t[DOWN] * 1.5}))(rounded)
    assert compared(llama, rounded).headline == "1 of 21 tensors differs"


def test_what_one_side_lacks(llama: Path, tmp_path: Path) -> None:
    """A head that is tied is compared with the embedding: the values that B computes with."""
    found = compared(llama, changed(llama, tmp_path / "b", no_head))
    assert [d.name for d in found.differing] == ["unembed.weight"]
    deeper = write_speaking_llama(tmp_path / "deeper", num_hidden_layers=3)
    found = compared(llama, deeper)
    assert len(found.missing) == 9
    assert str(found.missing[0]) == "blocks.2.ln1.weight: only in B"
    assert "n_layers 3 against 2" in found.config


@pytest.mark.parametrize(
    ("change", "what", "words"),
    [
        (swap_tokens, "tokenizer", "2 of 256 ids stand for other tokens: 64 is 'b' against 'a'"),
        (other_template, "chat template", "1 lines differ"),
        (other_config, "config", "eps 0.001 against 1e-06"),
    ],
)
def test_what_goes_with_the_weights(
    llama: Path, tmp_path: Path, change: Callable[[Path], None], what: str, words: str
) -> None:
    found = compared(llama, changed(llama, tmp_path / "b", change))
    assert found.headline == f"the {what} differs"
    assert words in found.settings[what][0]
    assert not found.differences


def test_a_merge_that_is_missing_shows(llama: Path, tmp_path: Path) -> None:
    def merge(tokenizer: Any) -> None:
        tokenizer["model"]["vocab"]["th"] = tokenizer["model"]["vocab"].pop("!")
        tokenizer["model"]["merges"] = [["t", "h"]]

    def unmerge(tokenizer: Any) -> None:
        tokenizer["model"]["merges"] = []

    a = changed(llama, tmp_path / "a", _json("tokenizer.json", merge))
    b = changed(a, tmp_path / "b", _json("tokenizer.json", unmerge))
    assert "texts give other ids: 'th'" in compared(a, b).tokenizer[0]


def test_the_same_file_in_other_words_is_the_same(smollm2_path: Path) -> None:
    """A GGUF's blocks against the kernels' panels: every tensor, bit for bit."""
    resident = resident_checkpoint(bitlens.load(smollm2_path))
    assert resident is not None
    found = compare_checkpoints(open_checkpoint(smollm2_path), resident)
    assert found.same
    assert found.equal == found.tensors == 272


# The audit


def audited(a: Path, b: Any) -> AuditResult:
    return run_audit(str(a), "fp32", b if isinstance(b, torch.nn.Module) else str(b), PROMPTS, PLAN)


def _greens(page: str) -> list[str]:
    return re.findall(r'class="(?:tile|verdict) good"', page)


def test_another_model_is_not_green(llama: Path, tmp_path: Path) -> None:
    result = audited(llama, changed(llama, tmp_path / "b", scale_one))
    assert result.kept
    assert not result.same_model
    assert not result.ok
    page = render(result)
    assert "b is another model: 1 of 21 tensors differs" in page
    assert "blocks.1.mlp.down.weight" in page
    assert not _greens(page)
    assert _greens(render(dataclasses.replace(result, checkpoints=None)))


def test_a_rounded_model_is_said_to_be_one(llama: Path, tmp_path: Path) -> None:
    result = audited(llama, changed(llama, tmp_path / "b", round_two))
    assert result.ok
    page = render(result)
    assert "b kept its contract, with 2 of 21 tensors rounded to bf16" in page
    assert 'class="verdict plain"' in page


def test_the_command_exits_1(
    llama: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = command_runner(capsys, monkeypatch, "audit")
    b = changed(llama, tmp_path / "b", other_template)
    options = ("--n-prompts", "2", "--tokens", "16", "--checked", "1", "--rows", "1")
    code, out, _ = run(llama, "--b", b, *options, "--output", tmp_path / "page.html")
    assert code == 1
    assert "another model: the chat template differs" in " ".join(out.split())
    assert "contract kept" not in out


def test_a_policy_rounds_without_remark(llama: Path) -> None:
    for b in ("bf16", "hf-bf16", bitlens.load(llama, dtype="bf16")):
        result = audited(llama, b)
        assert result.ok
        assert not result.checkpoints or result.checkpoints.equal == 21


def test_weights_changed_in_memory(llama: Path) -> None:
    model = bitlens.load(llama, backend="torch")
    with torch.no_grad():
        model.blocks[1].mlp.down.weight *= 1.05
    found = audited(llama, model).checkpoints
    assert found is not None
    assert [str(d) for d in found.differing] == ["blocks.1.mlp.down.weight: A's times 1.05"]


def test_weights_changed_in_transformers(llama: Path) -> None:
    transformers = pytest.importorskip("transformers")
    peer = transformers.AutoModelForCausalLM.from_pretrained(
        llama, attn_implementation="eager", dtype=torch.float32
    ).eval()
    assert audited(llama, peer).ok
    with torch.no_grad():
        peer.model.layers[1].mlp.down_proj.weight *= 1.05
    result = audited(llama, peer)
    assert not result.ok
    assert result.checkpoints is not None
    assert result.checkpoints.headline == "1 of 21 tensors differs"
    assert result.checkpoints.not_compared == ("tokenizer", "chat template")
