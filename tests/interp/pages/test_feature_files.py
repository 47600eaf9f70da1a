"""Features as files: circuit-tracer's own schema, and every figure from the activations."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from bitlens.interp.activations import Packing
from bitlens.interp.circuits.graph_json import unpair
from bitlens.interp.dictionaries import Dictionary, DictionaryError
from bitlens.interp.examples.survey import FeatureSurvey, survey_features
from bitlens.interp.pages import export_features
from bitlens.model.transformer import HookedTransformer
from support.command_line import command_runner
from support.training_runs import HOOK, documents

TEXT = documents(30)
SCHEMA = Path(__file__).parents[2] / "golden" / "circuit_tracer" / "feature_schema.json"
LAYER = int(HOOK.split(".")[1])


KINDS: dict[str, Any] = {
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "string": str,
    "array": list,
    "object": dict,
}


def misfits(value: Any, schema: dict[str, Any], defined: dict[str, Any], at: str = "") -> list[str]:
    """Returns what does not fit a JSON schema of types, properties and items."""
    if "$ref" in schema:
        schema = defined[schema["$ref"].removeprefix("#/$defs/")]
    kind = schema["type"]
    if not isinstance(value, KINDS[kind]) or isinstance(value, bool) != (kind == "boolean"):
        return [at]
    found: list[str] = []
    if kind == "object":
        found += [name for name in schema["required"] if name not in value]
        for name, part in schema["properties"].items():
            found += misfits(value[name], part, defined, name) if name in value else []
    if kind == "array":
        for item in value:
            found += misfits(item, schema["items"], defined, at)
    return found


@pytest.fixture(scope="module")
def dictionary(dictionaries: Mapping[str, Dictionary]) -> Dictionary:
    return dictionaries[HOOK]


@pytest.fixture(scope="module")
def survey(model: HookedTransformer, dictionary: Dictionary) -> FeatureSurvey:
    assert model.tokenizer is not None
    sequences = Packing(64).sequences(TEXT, model.tokenizer)
    return survey_features(model, dictionary, sequences, n_tokens=2000)


@pytest.fixture(scope="module")
def files(
    model: HookedTransformer, dictionary: Dictionary, tmp_path_factory: pytest.TempPathFactory
) -> dict[int, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("features") / "tiny"
    n = export_features(
        model, dictionary, folder, text=TEXT, split="all", n_tokens=2000, packing=Packing(64)
    )
    found = {int(path.stem): json.loads(path.read_text("utf-8")) for path in folder.iterdir()}
    assert len(found) == n
    return found


def test_they_are_what_circuit_tracer_reads(files: dict[int, dict[str, Any]]) -> None:
    schema = json.loads(SCHEMA.read_text())
    for found in files.values():
        assert misfits(found, schema, schema["$defs"]) == []
        assert set(found) == set(schema["required"])
    spoilt = {k: v for k, v in found.items() if k != "top_logits"} | {"act_max": "1"}
    assert misfits(spoilt, schema, schema["$defs"]) == ["top_logits", "act_max"]


def test_every_figure_is_of_the_activations(
    files: dict[int, dict[str, Any]], survey: FeatureSurvey
) -> None:
    fired = {int(f) for f in survey.indptr.diff().nonzero()[:, 0]}
    assert {unpair(number) for number in files} == {(LAYER, feature) for feature in fired}
    for number, found in files.items():
        at, values = survey.of(unpair(number)[1])
        assert found["index"] == number
        assert found["act_max"] == float(values.max())
        assert found["activation_frequency"] == len(at) / survey.n_tokens
        assert sum(found["histogram"]) == len(at)
        assert found["quantile_values"][-1] == float(values.max())
        assert found["quantile_values"] == sorted(found["quantile_values"])
        first = found["examples_quantiles"][0]["examples"][0]
        assert len(first["tokens"]) == len(first["tokens_acts_list"])
        assert first["tokens_acts_list"][first["train_token_ind"]] == pytest.approx(
            float(values.max())
        )
        step = float(values.max()) / 255
        for quantile in found["examples_quantiles"]:
            for example in quantile["examples"]:
                peak = example["tokens_acts_list"][example["train_token_ind"]]
                assert bool(((values - peak).abs() <= step).any())


def test_the_command_writes_them(
    model_folder: Path,
    dictionary: Dictionary,
    files: dict[int, dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dictionary.save_model(tmp_path / "sae")
    text = tmp_path / "text.jsonl"
    text.write_text("\n".join(json.dumps({"text": document}) for document in TEXT))
    run = command_runner(capsys, monkeypatch, "sae", "export")
    code, out, err = run(
        model_folder, tmp_path / "sae", "--text", text, "--split", "all", "--n-tokens", 2000,
        "--context-size", 64, "--output", tmp_path / "features",
    )  # fmt: skip
    assert code == 0, err
    assert f"wrote {len(files)} features" in out
    number = min(files)
    assert json.loads((tmp_path / "features" / f"{number}.json").read_text()) == files[number]


def test_what_cannot_be_written_is_refused(
    model: HookedTransformer,
    other: HookedTransformer,
    dictionary: Dictionary,
    tmp_path: Path,
) -> None:
    with pytest.raises(ValueError, match="document that is long enough"):
        export_features(model, dictionary, tmp_path / "a", text=["x"])
    assert not (tmp_path / "a").exists()
    file = tmp_path / "b"
    file.write_text("")
    with pytest.raises(OSError, match="b"):
        export_features(model, dictionary, file, text=TEXT, split="all", n_tokens=200)
    wrong = torch.zeros(dictionary.cfg.d_sae, dictionary.cfg.d_in + 1)
    with pytest.raises((DictionaryError, ValueError)):
        export_features(
            model,
            type(dictionary)(
                dictionary.cfg, {**dict(dictionary.named_parameters()), "W_dec": wrong}
            ),
            tmp_path / "c",
            text=TEXT,
        )
