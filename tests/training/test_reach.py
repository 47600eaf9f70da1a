"""Loss by position, needles by name, and training with scaled rotary positions."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import bitlens
import pytest
import torch
import transformers
from bitlens.model.config_error import ConfigError
from bitlens.model.hooks.registry import same_bits
from bitlens.model.rope.scaling import NTK as NTKScaling
from bitlens.model.rope.scaling import Frequencies, rotary_frequencies
from bitlens.model.training import (
    TrainConfig,
    TrainRun,
    export,
    loss_by_position,
    reach,
    retrieval,
    train,
)
from bitlens.model.transformer import HookedTransformer
from support.random_models import byte_tokenizer, random_model
from support.training_models import small_checkpoint, small_model

YARN = {"rope_type": "yarn", "factor": 4.0}
NTK = {"rope_type": "ntk", "factor": 4.0}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}
LONGROPE = {
    "rope_type": "longrope",
    "factor": 4.0,
    "short_factor": [1.0, 1.5, 2.0, 3.0, 4.0],
    "long_factor": [1.0, 1.5, 2.0, 3.0, 4.0],
    "original_max_position_embeddings": 128,
}
LONG = "What stands here is longer than the context of 128 tokens. " * 8
SHORT = "A text of 23 letters..."


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    bitlens.set_num_threads(1)


def _run(model: HookedTransformer, folder: Path, **changes: Any) -> TrainRun:
    settings = {"method": "lm", "steps": 2, "batch_size": 2, "lr": 1e-3, "max_length": 512}
    evaluate = reach(
        texts=[LONG, SHORT], bands=[1, 16, 128, 256], needles={"128 tokens": [(LONG[:100], "x")]}
    )
    rows = [{"text": LONG}, {"text": LONG[::-1]}]
    config = TrainConfig(**{**settings, **changes})
    return train(model, config, data=rows, output=folder, evaluate=evaluate)


def test_losses_are_those_of_the_tokens_at_their_positions() -> None:
    model = small_model(rope_scaling=YARN)
    found = loss_by_position(model, [LONG, SHORT], [1, 16, 128, 256])
    assert list(found) == [(1, 15), (16, 127), (128, 255), (256, len(LONG) - 1)]
    exact: dict[tuple[int, int], list[float]] = {band: [] for band in found}
    for text in (LONG, SHORT):
        tokens = torch.tensor([list(text.encode())])
        with torch.no_grad():
            scores = torch.log_softmax(model(tokens)[0].double(), -1)
        for position in range(1, len(text)):
            band = next(b for b in exact if b[0] <= position <= b[1])
            exact[band].append(-scores[position - 1, tokens[0, position]].item())
    for band, loss in found.items():
        assert loss == pytest.approx(sum(exact[band]) / len(exact[band]), rel=1e-5)
    assert len(exact[16, 127]) == 112 + len(SHORT) - 16
    assert len({round(loss, 6) for loss in found.values()}) == 4


def test_texts_end_where_the_context_does() -> None:
    with pytest.raises(ValueError, match=r"position 128; the longest has 128"):
        loss_by_position(small_model(), [LONG], [1, 128])


@pytest.mark.parametrize("bands", [[], [0, 4], [4, 4], [8, 4]])
def test_bands_ascend(bands: list[int]) -> None:
    with pytest.raises(ValueError, match=r"bands = \[.*\]: expected ascending positions"):
        loss_by_position(small_model(), [SHORT], bands)


def test_a_needle_is_found_where_the_answer_is_what_the_model_says() -> None:
    model = random_model("llama", tokenizer=byte_tokenizer())
    prompts = [f"what follows {letter}" for letter in "abcdefghijklmnop"]
    said = {p: model.generate(p, max_new_tokens=2).text[0].strip()[:1] for p in prompts}
    right = [(p, text) for p, text in said.items() if "!" <= text <= "~"]
    assert len({text for _, text in right}) > 1
    wrong = [(p, "#" if text != "#" else "%") for p, text in right]
    cells = {"right": right, "wrong": wrong, "half": [right[0], wrong[1]]}
    assert retrieval(model, cells) == {"right": 1.0, "wrong": 0.0, "half": 0.5}
    with pytest.raises(ValueError, match="'none' has no prompts"):
        retrieval(model, {"none": []})
    with pytest.raises(ValueError, match="context"):
        retrieval(model, {"too long": [(LONG, "x")]})


@pytest.mark.parametrize("scaling", [YARN, NTK], ids=["yarn", "ntk"])
def test_long_documents_are_learnt_from_with_scaled_positions(
    scaling: dict[str, Any], tmp_path: Path
) -> None:
    """Beyond the first context: the same bits however it is cut, others with other positions."""
    run = _run(small_model(rope_scaling=scaling), tmp_path / "whole")
    names = ["loss, positions 1 to 15", "loss, positions 256 to 471", "found, 128 tokens"]
    for report in (run.before, run.after):
        assert set(names) <= report.keys()
    assert run.after[names[1]] < run.before[names[1]]
    assert run.metrics[0]["tokens"] == 2 * len(LONG)
    bitlens.set_num_threads(2)
    cut = _run(small_model(rope_scaling=scaling), tmp_path / "cut", microbatch_size=1)
    assert cut.weights_digest == run.weights_digest
    with pytest.raises(ValueError, match="position 256; the longest has 128"):
        _run(small_model(), tmp_path / "plain")
    other = NTK if scaling is YARN else YARN
    assert _run(small_model(rope_scaling=other), tmp_path / "other").after != run.after


def test_what_is_trained_with_yarn_is_exported_with_it(tmp_path: Path) -> None:
    model = bitlens.load(small_checkpoint(), trainable="full", rope_scaling=YARN)
    loaded = bitlens.load(export(model, tmp_path))
    assert loaded.config == model.config
    assert loaded.config.n_ctx == 512
    assert loaded.fingerprint() == model.fingerprint()
    tokens = torch.tensor([list(LONG.encode())[:300]])
    with torch.no_grad():
        ours = model(tokens)
        assert same_bits(loaded(tokens), ours)
        assert not same_bits(bitlens.load(small_checkpoint(), rope_scaling=NTK)(tokens), ours)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    theirs.set_attn_implementation("eager")
    with torch.no_grad():
        assert (theirs(tokens).logits - ours).abs().max() < 1e-3


@pytest.mark.parametrize("scaling", [LLAMA3, LONGROPE], ids=["llama3", "longrope"])
def test_what_config_json_says_is_read_again(scaling: dict[str, Any], tmp_path: Path) -> None:
    model = small_model(rope_scaling=scaling)
    loaded = bitlens.load(export(model, tmp_path))
    assert loaded.config == model.config
    assert loaded.config.n_ctx == 512
    assert loaded.fingerprint() == model.fingerprint()


def test_ntk_has_no_rope_parameters(tmp_path: Path) -> None:
    model = small_model(rope_scaling=NTK)
    with pytest.raises(ConfigError, match="'ntk': no rope_parameters say it; keep the weights"):
        export(model, tmp_path)


def test_what_the_formula_of_ntk_leaves_out() -> None:
    """The figures of docs/training.md; SmolLM2: 64 dimensions a head, base 100,000, 8192 tokens."""
    plain = _turns(rotary_frequencies(1e5, 64, None), 8192)
    assert sum(turns < 1 for turns in plain) == 12
    assert sum(turns < 1 for turns in _turns(rotary_frequencies(1e4, 128, None), 8192)) == 14
    ntk = _turns(rotary_frequencies(1e5, 64, NTKScaling(factor=4.0)), 4 * 8192)
    assert ntk[0] == 4 * plain[0]
    assert ntk[-1] == pytest.approx(plain[-1], rel=1e-12)
    unseen = [b > a * (1 + 1e-12) for a, b in zip(plain, ntk, strict=True) if a < 1]
    assert unseen == [True] * 11 + [False]
    positions = torch.arange(255, 260)
    assert positions.bfloat16().long().tolist() == [255, 256, 256, 258, 260]
    assert torch.tensor([199_300, 200_100]).bfloat16().unique().tolist() == [199_680]


def _turns(found: Frequencies, n_positions: int) -> list[float]:
    return [n_positions * frequency / (2 * math.pi) for frequency in found.inv_freq]
