"""Dictionaries compared: their decoders' neighbours, their results, and the commands."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import bitlens
import pytest
import torch
from bitlens.interp.activations import Packing
from bitlens.interp.dictionaries import Dictionary
from bitlens.interp.evaluation import (
    compare,
    evaluate,
    nearest_features,
)
from bitlens.model.transformer import HookedTransformer
from support.command_line import command_runner
from support.judged_dictionaries import (
    CHECKPOINT,
    MLP_IN,
    MLP_OUT,
    OPTIONS,
    TEXT,
    D,
    dictionary,
    draw,
)


@pytest.fixture(scope="module")
def model() -> HookedTransformer:
    return bitlens.load(CHECKPOINT)


def test_neighbours() -> None:
    a, b = dictionary(seed=1), dictionary(seed=50, d_sae=120)
    shared = b.W_dec.data
    shared[7] = a.W_dec[3] * 2
    found = nearest_features(a, b)
    cosines = torch.cosine_similarity(a.W_dec[:, None], b.W_dec[None], dim=2)
    torch.testing.assert_close(found.cosine, cosines.max(1).values, rtol=0, atol=1e-6)
    assert torch.equal(found.index, cosines.argmax(1))
    assert int(found.index[3]) == 7
    assert found.share_near == float((cosines.max(1).values > 0.7).double().mean())
    assert found.median == pytest.approx(float(cosines.max(1).values.double().quantile(0.5)))
    assert nearest_features(a, a).median == pytest.approx(1)
    with pytest.raises(ValueError, match="different widths"):
        nearest_features(a, _of_width(D + 1))


def _of_width(width: int) -> Dictionary:
    config = dataclasses.replace(dictionary().cfg, d_in=width, d_out=width)
    return Dictionary(config, {n: draw(*s, seed=0) for n, s in config.tensor_shapes().items()})


def test_comparing(model: HookedTransformer) -> None:
    judged = {"a": dictionary(), "b": dictionary(k=16), "other": dictionary(
        "topk_transcoder", read=MLP_IN, written=MLP_OUT)}  # fmt: skip
    found = compare(judged, model=model, **OPTIONS)
    assert found.results["b"].to_dict() == evaluate(model, judged["b"], **OPTIONS).to_dict()
    assert found.neighbours.keys() == {("a", "b"), ("b", "a")}
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()
    assert not compare(judged).results
    with pytest.raises(ValueError, match="at least 2"):
        compare({"a": judged["a"]})


def test_the_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from bitlens.cli import sae_eval

    run = command_runner(capsys, monkeypatch, "sae")
    model = bitlens.load(CHECKPOINT)
    monkeypatch.setattr(sae_eval, "load_model", lambda source, dtype, threads=None: model)
    for name, k in (("a", 8), ("b", 16)):
        dictionary(k=k).save_model(tmp_path / name)
    (tmp_path / "text").write_text(" ".join(TEXT))
    options = ("--text", tmp_path / "text", "--split", "all", "--context-size", "24")
    a, b = tmp_path / "a", tmp_path / "b"
    alias = "smollm2-135m-instruct"
    code, out, err = run("eval", alias, a, *options, "--control", "0", "--json")
    assert code == 0, err
    found = json.loads(out)
    text = tmp_path / "text"
    result = evaluate(model, dictionary(), text=text, split="all", packing=Packing(24))
    assert found.items() >= result.to_dict().items()
    assert found["control"].keys() == result.to_dict().keys()
    code, out, _ = run("eval", alias, a, *options)
    assert code == 0
    assert "explained variance" in out
    code, out, _ = run("compare", alias, a, b, *options, "--json")
    assert code == 0
    assert json.loads(out)["results"][str(b)]["l0"] == pytest.approx(16)
    code, out, _ = run("compare", alias, a, b, "--weights-only")
    assert code == 0
    assert "above 0.7" in out
    for arguments, words in (
        (("eval", alias, tmp_path / "none"), "no such dictionary"),
        (("eval", alias, a, *options[2:], "--text", tmp_path / "none"), "no file"),
        (("compare", alias, a), "at least two"),
        (("compare", alias, a, a), "at least two"),
    ):
        code, _, err = run(*arguments)
        assert code == 2
        assert words in err
