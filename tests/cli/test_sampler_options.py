"""Every parameter of the sampler is an argument of `generate` and an option of the command."""

from __future__ import annotations

import inspect
import json
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import bitlens
import pytest
import typer
from bitlens.cli.generate import FilterOrder
from bitlens.cli.generate import generate as command
from bitlens.model.generation.generate import generate
from bitlens.model.sampling import SamplingParams, params
from bitlens.model.serving import Request
from support.command_line import Run, command_runner
from support.speaking_llama import write_speaking_llama

NAMES = {"min_tokens": "min_new_tokens", "stop_token_ids": "stop"}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_speaking_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return command_runner(capsys, monkeypatch, "generate")


def test_none_is_missing() -> None:
    wanted = {NAMES.get(each.name, each.name) for each in fields(SamplingParams)}
    app = typer.Typer()
    app.command()(command)
    built: Any = typer.main.get_command(app)
    assert wanted <= set(inspect.signature(generate).parameters)
    assert wanted <= {each.name for each in fields(Request)}
    assert wanted <= {parameter.name for parameter in built.params}
    assert set(get_args(params.FilterOrder)) == set(FilterOrder)


def test_they_reach_the_sampler(llama: Path, run: Run) -> None:
    """The command writes what `generate` writes with the same arguments, and otherwise others."""
    model = bitlens.load(llama)
    common = ("-p", "Once upon a time", "--max-new-tokens", "12", "--seed", "3", "--json")
    plain: dict[str, Any] = {"temperature": 6.0, "top_k": 9, "top_p": 0.5}
    words = ("--temperature", "6.0", "--top-k", "9", "--top-p", "0.5")
    changes: dict[tuple[str, ...], dict[str, Any]] = {
        (): {},
        ("--filter-apply-order", "joint"): {"filter_apply_order": "joint"},
        ("--logit-bias", "97=25.5", "--logit-bias", "98=-1"): {"logit_bias": {97: 25.5, 98: -1.0}},
        ("--allowed-token-ids", "97", "--allowed-token-ids", "98"): {"allowed_token_ids": [97, 98]},
    }
    written = []
    for options, arguments in changes.items():
        code, out, _ = run(llama, *common, *words, *options)
        assert code == 0
        written.append(json.loads(out)["tokens"])
        expected = model.generate(
            "Once upon a time", max_new_tokens=12, seed=3, **plain, **arguments
        )
        assert written[-1] == expected.tokens[0].tolist()
    assert all(tokens != written[0] for tokens in written[1:])


@pytest.mark.parametrize("bias", ["97", "a=1", "97=much", "=2"])
def test_a_bias_that_is_none_is_named(llama: Path, run: Run, bias: str) -> None:
    code, _, err = run(llama, "-p", "x", "--logit-bias", bias)
    assert code == 2
    assert "expected ID=VALUE" in " ".join(err.split())


def test_an_id_that_is_no_token_is_named(llama: Path, run: Run) -> None:
    code, _, err = run(llama, "-p", "x", "--logit-bias", "99999=1")
    assert code == 2
    assert "logit_bias" in err
