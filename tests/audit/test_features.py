"""The audit's section on features: both kinds of path, the page, the command, what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import bitlens
import pytest
import torch
from bitlens.audit import Plan
from bitlens.audit.features import NamedDictionary, feature_changes, read_dictionary
from bitlens.audit.page import render
from bitlens.audit.paths import path_on_trial, reference_path
from bitlens.audit.result import FeatureChanges
from bitlens.interp import stability
from bitlens.interp.stability import FeatureFlip
from support.audit_sample import HOSTILE, sample
from support.command_line import command_runner
from support.random_dictionaries import random_dictionary
from support.speaking_llama import write_speaking_llama
from support.training_runs import documents

PLAN = Plan(tokens=16, checked=1, rows=2)
HOOK = "blocks.1.hook_resid_post"


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_speaking_llama(tmp_path_factory.mktemp("llama"))
    random_dictionary(bitlens.load(folder), HOOK).save_model(folder / "dictionary")
    return folder


def ignore(done: int, total: int) -> None:
    pass


def changes(llama: Path, b: str) -> FeatureChanges:
    a, model = reference_path(str(llama), "fp32")
    path_b = path_on_trial(str(llama), b, a)
    named = read_dictionary(str(llama / "dictionary"), model, path_b)
    generator = torch.Generator().manual_seed(0)
    tokens_NP = torch.randint(3, a.vocabulary, (6, 20), generator=generator)
    return feature_changes(a, path_b, tokens_NP, named, ignore)


@pytest.mark.parametrize("b", ["bf16", "hf_bf16", "hf-bf16"])
def test_every_kind_of_path_is_read(llama: Path, b: str) -> None:
    found = changes(llama, b)
    assert found.positions == 120
    assert found.active > 0
    assert found.lost + found.gained > 0
    assert found.wrong == 0
    assert 0 < found.certified < found.pairs


def test_transformers_in_fp32_has_the_features_of_fp32(llama: Path) -> None:
    found = changes(llama, "hf")
    assert (found.lost, found.gained, found.wrong) == (0, 0, 0)
    assert found.certified > 0.9 * found.pairs


def test_the_counts_are_those_of_stability(llama: Path) -> None:
    """On the same tokens: whole sequences of a text, read by both."""
    models = bitlens.load(llama), bitlens.load(llama, dtype="bf16")
    dictionary = random_dictionary(models[0], HOOK)
    from bitlens.interp.activations import Packing

    packing = Packing(context_size=16, min_tokens=16, max_tokens=16)
    other = stability(*models, dictionary, text=documents(8), split="all", packing=packing)
    a, _ = reference_path(str(llama), "fp32")
    b = path_on_trial(str(llama), "bf16", a)
    tokens_NP = other.by_token.token.view(-1, 16)
    found = feature_changes(a, b, tokens_NP, NamedDictionary("d", dictionary), ignore)
    for name in ("active", "gained", "lost", "pairs", "certified"):
        assert getattr(found, name) == getattr(other, name), name


def test_a_hook_that_transformers_has_no_operation_for_is_refused(llama: Path) -> None:
    a, model = reference_path(str(llama), "fp32")
    folder = llama / "elsewhere"
    random_dictionary(model, "blocks.1.attn.hook_z").save_model(folder)
    with pytest.raises(ValueError, match=r"--b hf: has no blocks\.1\.attn\.hook_z"):
        read_dictionary(str(folder), model, path_on_trial(str(llama), "hf", a))
    read_dictionary(str(folder), model, path_on_trial(str(llama), "bf16", a))


def with_features(wrong: int = 0) -> Any:
    flip = FeatureFlip("lost", 7, 1, 2, HOSTILE, 3.5, 0.25, 0.5)
    found = FeatureChanges(
        dictionary=HOSTILE,
        hook_name=HOOK,
        active=1000,
        gained=11,
        lost=9,
        changed_share=20 / 1011,
        positions=100,
        changed_positions=15,
        pairs=2000,
        certified=1100,
        wrong=wrong,
        features=((7, 30, 1, 2, 0.125),),
        examples=(flip,),
    )
    return dataclasses.replace(sample(), features=found)


def test_the_page_has_a_section_where_there_is_a_dictionary() -> None:
    page = render(with_features())
    assert 'id="features"' in page
    assert "<script>alert" not in page
    for words in ("9, 11 (1.98% of those", "15 of 100", "1,100 of 2,000 (55%)"):
        assert words in page
    assert 'id="features"' not in render(sample())


def test_a_certified_feature_that_flipped_fails_the_audit() -> None:
    assert with_features().ok
    broken = with_features(wrong=1)
    assert not broken.ok
    assert "What was certified flipped" in render(broken)


def test_the_command(
    llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    run = command_runner(capsys, monkeypatch, "audit")
    page, prompts = tmp_path / "page.html", tmp_path / "prompts.txt"
    prompts.write_text("One two\nThree four\n")
    options = ("--prompts", prompts, "--tokens", "12", "--checked", "1", "--rows", "2")
    dictionary = ("--dictionary", llama / "dictionary", "--output", page)
    code, out, err = run(llama, *options, *dictionary)
    assert code == 0, err
    assert "features: " in out
    assert 'id="features"' in page.read_text("utf-8")
    code, out, _ = run(llama, *options, *dictionary, "--json")
    found = json.loads(out)["features"]
    assert found["hook_name"] == HOOK
    assert found["wrong"] == 0
    code, _, err = run(llama, *options, "--dictionary", tmp_path, "--output", page)
    assert code == 2
    assert "cfg.json" in err
