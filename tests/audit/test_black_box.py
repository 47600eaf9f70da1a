"""Paths that show logits only: counted, shown or not shown, and never called more than that."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from bitlens.audit import AuditResult, Plan, render
from bitlens.audit.black_box import BlackBox, platform_on_trial
from bitlens.audit.features import read_dictionary
from bitlens.audit.paths import ModelPath, reference_path
from bitlens.audit.run import audit
from bitlens.audit.texts import Texts, texts
from bitlens.model.transformer import HookedTransformer
from bitlens.precision.addresses import UnobservedError
from support.command_line import command_runner
from support.speaking_llama import write_speaking_llama

N, TOKENS = 80, 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_speaking_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def setting(folder: Path) -> tuple[ModelPath, HookedTransformer, Texts]:
    a, model = reference_path(str(folder), "fp32")
    return a, model, texts(model, [f"prompt {i}" for i in range(N)], TOKENS, seed=0)


def box(
    run: Callable[[torch.Tensor], torch.Tensor], positions: Callable[[int], Sequence[int]] = range
) -> BlackBox:
    def logits(tokens_NP: torch.Tensor) -> Iterator[torch.Tensor]:
        return (run(tokens_P)[list(positions(len(tokens_P)))] for tokens_P in tokens_NP)

    return BlackBox("box", "a stand-in", "fp32", "nobody looks inside", logits, positions)


def judged(setting: tuple[ModelPath, HookedTransformer, Texts], b: BlackBox) -> AuditResult:
    a, _, written = setting
    return audit("small", a, b, written, Plan(tokens=TOKENS))


def test_the_same_logits_are_shown_to_keep_the_tokens(
    setting: tuple[ModelPath, HookedTransformer, Texts],
) -> None:
    result = judged(setting, box(lambda tokens_P: setting[1](tokens_P[None])[0]))
    assert result.ok
    assert (result.depth, result.ops, result.violated) == ("logits", (), ())
    assert result.flips.positions == result.flips.certified == N * TOKENS
    assert result.flips.proven == 0
    page = render(result)
    assert "box keeps A&#39;s tokens" in page
    assert "nobody looks inside" in page
    assert "contract" not in page.split("<footer>")[0].split("<body>")[1].split("certificate")[0]
    found = json.loads(result.to_json())
    assert found["depth"] == "logits"
    assert [each["of"] for each in found["certificate"]["proved"]] == [N * TOKENS]


def test_log_probabilities_at_some_positions_serve(
    setting: tuple[ModelPath, HookedTransformer, Texts],
) -> None:
    def run(tokens_P: torch.Tensor) -> torch.Tensor:
        return torch.log_softmax(setting[1](tokens_P[None])[0], -1)

    result = judged(setting, box(run, lambda n: (3, n - 1)))
    assert result.ok
    assert result.flips.positions == result.setting.positions == 2 * N
    assert 0 <= result.flips.mean_kl < 1e-9


def test_shifted_tokens_are_not_shown_to_be_the_same(
    setting: tuple[ModelPath, HookedTransformer, Texts],
) -> None:
    result = judged(setting, box(lambda tokens_P: setting[1](tokens_P.roll(1)[None])[0]))
    assert not result.ok
    assert result.flips.rate > 0.5
    assert result.flips.broken_certificates == 0
    assert {flip.position for flip in result.flips.examples} <= set(range(TOKENS))
    assert "is not shown" in render(result)


def test_flips_are_reported_at_their_own_positions(
    setting: tuple[ModelPath, HookedTransformer, Texts],
) -> None:
    def run(tokens_P: torch.Tensor) -> torch.Tensor:
        logits_PV = setting[1](tokens_P[None])[0].clone()
        logits_PV[5] *= -1
        return logits_PV

    result = judged(setting, box(run, lambda n: (1, 5)))
    assert result.flips.flips == N
    assert {flip.position for flip in result.flips.examples} == {5}


def test_one_that_gives_other_bits_again_is_refused(
    setting: tuple[ModelPath, HookedTransformer, Texts],
) -> None:
    model = setting[1]
    runs = iter(range(1000))

    def run(tokens_P: torch.Tensor) -> torch.Tensor:
        return model(tokens_P[None])[0] + next(runs) * 1e-3

    with pytest.raises(UnobservedError, match="box is not deterministic"):
        judged(setting, box(run))
    constant = box(lambda tokens_P: model(tokens_P[None])[0])
    short = replace(constant, logits=lambda tokens: constant.logits(tokens[:-1]))
    with pytest.raises(UnobservedError, match="80 prompts of 81"):
        judged(setting, short)


def test_a_platform_in_its_own_process(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """bitlens' generic kernels: the same bits; two prompts show no rate."""
    run = command_runner(capsys, monkeypatch, "audit")
    output = folder / "report.html"
    options = ("--n-prompts", "2", "--tokens", "8", "--output", output)
    code, out, error = run(folder, "--b", "generic", *options)
    assert code == 1, error
    assert "judged by its logits alone" in out
    assert "not shown that fewer than 0.05 of tokens flip" in out
    assert output.exists()
    code, _, error = run(folder, "--b", "generics", *options)
    assert code == 2
    assert "choose fp32" in error


def test_features_of_a_black_box_are_refused(
    setting: tuple[ModelPath, HookedTransformer, Texts], folder: Path
) -> None:
    with pytest.raises(ValueError, match="it shows logits only"):
        read_dictionary("none", setting[1], platform_on_trial(str(folder), "onnx"))
