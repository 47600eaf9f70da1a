"""Examples of features, what they promote, and the command that shows them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from bitlens.interp.activations import Packing
from bitlens.interp.activations.read import read_rows, row_norms
from bitlens.interp.activations.sequences import batches
from bitlens.interp.dictionaries import Dictionary, DictionaryError, load_dictionary
from bitlens.interp.examples import Examples, collect_examples, load_examples, promoted_tokens
from bitlens.interp.examples.collect import BATCH_TOKENS
from bitlens.interp.prompt_features import prompt_features
from bitlens.model.transformer import HookedTransformer
from support.command_line import command_runner
from support.random_dictionaries import random_dictionary
from support.training_runs import HOOK, documents, speaking_model


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    speaking_model(folder)
    return folder


@pytest.fixture(scope="module")
def model(model_folder: Path) -> HookedTransformer:
    return speaking_model(model_folder)


@pytest.fixture(scope="module")
def dictionary(model: HookedTransformer) -> Dictionary:
    return random_dictionary(model, HOOK)


@pytest.fixture(scope="module")
def examples(model: HookedTransformer, dictionary: Dictionary) -> Examples:
    return collect_examples(model, dictionary, documents(60), n_tokens=100_000, window=12)


def test_examples_are_the_largest_activations_of_different_sequences(
    model: HookedTransformer, dictionary: Dictionary, examples: Examples
) -> None:
    assert model.tokenizer is not None
    sequences = list(Packing(96).sequences(documents(60), model.tokenizer))
    first = read_rows(model, next(batches(sequences, BATCH_TOKENS)), [HOOK])[HOOK]
    limit = 3 * row_norms(first).median()
    peaks = []
    for sequence in sequences:
        _, cache = model.run_with_cache(torch.tensor([sequence]), names_filter=HOOK)
        rows = cache[HOOK][0]
        acts = dictionary.encode(rows) * (row_norms(rows) <= limit)[:, None]
        peaks.append(acts.max(0).values)
    best = torch.stack(peaks).sort(0, descending=True).values[:5]
    fired = 0
    for feature in range(dictionary.cfg.d_sae):
        expected = [float(v) for v in best[:, feature] if v > 0]
        found = [max(example.activations) for example in examples.of(feature)]
        # 255 steps of the largest.
        assert found == pytest.approx(expected, abs=float(examples.largest[feature]) / 255 or None)
        fired += bool(found)
        for example in examples.of(feature):
            assert example.activations[example.peak] == max(example.activations)
            assert len(example.tokens) == len(example.activations) <= 12
    assert fired > 5


def test_they_are_kept_and_read_again(
    dictionary: Dictionary, examples: Examples, tmp_path: Path
) -> None:
    dictionary.save_model(tmp_path)
    examples.save(tmp_path)
    again = load_examples(tmp_path, dictionary.cfg.d_sae)
    assert again is not None
    for feature in range(dictionary.cfg.d_sae):
        assert again.of(feature) == examples.of(feature)
    assert again.metadata == examples.metadata
    assert load_examples(tmp_path.parent, 3) is None
    with pytest.raises(DictionaryError, match="does not fit a dictionary of 7"):
        load_examples(tmp_path, 7)
    path = tmp_path / "examples.safetensors"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DictionaryError, match="damaged"):
        load_examples(tmp_path, dictionary.cfg.d_sae)


def test_search_finds_what_is_in_the_examples(model: HookedTransformer, examples: Examples) -> None:
    tokenizer = model.tokenizer
    assert tokenizer is not None
    feature = next(f for f in range(examples.n_features) if examples.of(f))
    example = examples.of(feature)[0]
    assert feature in examples.with_token(example.tokens[example.peak])
    text = tokenizer.decode(example.tokens)[2:8]
    assert feature in examples.with_text(text.upper(), tokenizer)
    assert examples.with_text("nowhere to be found", tokenizer) == []
    with pytest.raises(IndexError, match="feature 99999"):
        examples.of(99999)


def test_promoted_tokens_are_the_largest_direct_effects(
    model: HookedTransformer, dictionary: Dictionary
) -> None:
    best, least = promoted_tokens(model, dictionary, [3], n_tokens=4)
    direction = dictionary.W_dec[3].double() * model.ln_final.weight.double()
    effect = direction @ model.W_U.double()
    assert best[0].tolist() == effect.topk(4).indices.tolist()
    assert least[0].tolist() == (-effect).topk(4).indices.tolist()


def test_a_prompt_shows_its_strongest_features(
    model: HookedTransformer, dictionary: Dictionary
) -> None:
    text = "the cat sat on a mat"
    rows = prompt_features(model, dictionary, text, top=2)
    assert "".join(row.token for row in rows) == text
    _, cache = model.run_with_cache(text, names_filter=HOOK)
    acts = dictionary.encode(cache[HOOK][0])
    for row in rows:
        values = [a for _, a in row.features]
        assert values == sorted(values, reverse=True)
        if values:
            assert values[0] == float(acts[row.position].max())


def test_the_command(
    model_folder: Path,
    dictionary: Dictionary,
    examples: Examples,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = command_runner(capsys, monkeypatch, "features")
    dictionary.save_model(tmp_path)
    options = ("--model", model_folder, "--dictionary", tmp_path)
    code, out, err = run("the cat sat", *options)
    assert code == 0, err
    assert "promotes" in out
    examples.save(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = run("the cat sat", *options)
    assert code == 0
    shown = dict(
        prompt_features(speaking_model(model_folder), dictionary, "the cat sat")[5].features
    )
    for f, activation in list(shown.items())[:3]:
        assert f" {f} " in out
        assert f" {activation:.1f} " in out
    code, out, _ = run("the cat sat", *options, "--json", "--top", 1)
    assert code == 0
    tokens = json.loads(out)["tokens"]
    assert [t["token"] for t in tokens] == list("the cat sat")
    assert any(t["features"] for t in tokens)
    feature = next(f for f in range(examples.n_features) if examples.of(f))
    code, out, _ = run("--feature", feature, *options, "--json")
    assert code == 0
    assert json.loads(out)["features"][0]["examples"]
    code, out, _ = run("--text", "cat", *options)
    assert code == 0
    assert "feature" in out
    for bad, message in (
        ((), "give a prompt"),
        (("--feature", 10**6), "has"),
        (("--token", "cat"), "is not one token"),
        (("x", "--feature", 1), "give a prompt"),
    ):
        code, _, err = run(*bad, *options)
        assert code == 2
        assert message in err
    code, _, err = run("x", "--dictionary", tmp_path / "nowhere")
    assert code == 2
    assert "no such dictionary" in err


def test_a_dictionary_of_another_model_is_refused(
    model: HookedTransformer, dictionary: Dictionary, tmp_path: Path
) -> None:
    cfg = dictionary.cfg
    object.__setattr__(cfg, "metadata", {"model_fingerprint": "0" * 64, "model_name": "other"})
    dictionary.save_model(tmp_path)
    object.__setattr__(cfg, "metadata", {})
    with pytest.raises(DictionaryError, match="trained on other"):
        load_dictionary(tmp_path, model=model)
    with pytest.warns(UserWarning, match="other weights"):
        loaded = load_dictionary(tmp_path, model=model, strict=False)
    assert torch.equal(loaded.W_enc, dictionary.W_enc)
