"""How faults get noticed: predicted sizes are those of simulated deployments of real answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from bitlens.audit.postmortem import shipped_prompts
from bitlens.audit.postmortem.noise import FAULTS, LOOKS, NoiseReport, Results, run_noise
from bitlens.audit.postmortem.noise.deployments import SOUND
from bitlens.audit.postmortem.noise.looking import DEPLOYMENTS, POWER, Look, simulate
from bitlens.audit.postmortem.noise.results import answers
from bitlens.model.transformer import HookedTransformer
from bitlens.precision.statistics import clopper_pearson, items_for_paired_difference
from hypothesis import given, settings
from hypothesis import strategies as st
from support.command_line import command_runner
from support.random_models import byte_tokenizer, random_model
from support.speaking_llama import write_speaking_llama

PROMPTS = [prompt[:40] for prompt in shipped_prompts() if len(prompt) > 1][:24]


@pytest.fixture(autouse=True)
def _one_torch_thread(_settings_restored: None) -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def model() -> HookedTransformer:
    return random_model("llama", tokenizer=byte_tokenizer())


@pytest.fixture(scope="module")
def report(model: HookedTransformer) -> NoiseReport:
    return run_noise(model, PROMPTS, rates=(0.1, 1.0))


def results(rights: np.ndarray, logprobs: np.ndarray, canaries: np.ndarray) -> Results:
    return Results(rights.astype(bool), logprobs, canaries[:, None].astype(np.uint8))


def drawn(seed: int, moved: float, n: int = 60, n_draws: int = 16) -> tuple[Results, Results]:
    """Results with a fault that makes a part of the answers worse, and some better."""
    g = np.random.default_rng(seed)
    p = g.beta(1, 1, size=(n, 1))
    worse = np.where(g.random((n, 1)) < moved, 0.7, 1.05)
    noise = g.random((n, n_draws))
    logprob = np.log(np.clip(p[:, 0], 0.01, 1))
    change = np.where(worse[:, 0] < 1, -g.exponential(1.0, n), 0.02 * g.normal(size=n))
    canary = np.arange(n) % 7
    return (
        results(noise < p, logprob, canary),
        results(noise < p * worse, logprob + change, canary + (worse[:, 0] < 1)),
    )


@pytest.mark.parametrize("way", LOOKS)
@pytest.mark.parametrize("rate", [0.008, 0.16, 1.0])
def test_formulas_ask_for_what_simulated_deployments_need(way: str, rate: float) -> None:
    """Nearly all of 20 faults drawn at random: an interval of 95% misses 1 in 20 by itself."""
    agreed = 0
    generator = np.random.default_rng(1)
    for seed in range(20):
        seen = simulate(LOOKS[way](*drawn(seed, 0.4), rate), generator)
        assert seen.predicted is not None
        agreed += seen.agrees
    assert agreed >= 15


def test_control_half_of_the_size_is_not_enough() -> None:
    generator = np.random.default_rng(0)
    for way, look in LOOKS.items():
        found = look(*drawn(3, 0.4), 0.16)
        assert found.predicted is not None
        half = found.noticed(found.predicted // 2, generator).mean()
        assert clopper_pearson(half * DEPLOYMENTS, DEPLOYMENTS).high < POWER, way
        asked_for_half = Look(found.predicted // 2, found.noticed)
        assert not simulate(asked_for_half, generator).agrees, way


@given(st.integers(0, 2**20), st.floats(0.001, 1))
@settings(max_examples=20)
def test_without_a_fault_nothing_is_noticed(seed: int, rate: float) -> None:
    sound, _ = drawn(seed, 0.4, n=20)
    for way in ("paired accuracy, fixed bits", "log-probability", "bits of canaries"):
        assert LOOKS[way](sound, sound, rate).predicted is None
        assert not LOOKS[way](sound, sound, rate).noticed(1000, np.random.default_rng(0)).any()
    for way in ("unpaired accuracy", "paired accuracy, sampling noise"):
        alarms = LOOKS[way](sound, sound, rate).noticed(1000, np.random.default_rng(0))
        assert alarms.sum() <= 5  # of 200 at level .001; six come once in ten million


def test_the_published_sizes() -> None:
    """0.1 point of 0.8% misrouted requests, at level .001."""
    assert items_for_paired_difference(0.001, 0.002, 0.8, 0.001) == pytest.approx(34_149, rel=1e-3)
    assert items_for_paired_difference(0.001, 0.05, 0.8, 0.001) == pytest.approx(853_732, rel=1e-3)


def test_answers_depend_on_item_and_seed_alone(model: HookedTransformer) -> None:
    """Neither on a repetition, nor on what is asked beside it or of which other deployments."""
    together = answers(model, [SOUND, *FAULTS], PROMPTS)
    for deployment, found in zip([SOUND, *FAULTS], together, strict=True):
        (alone,) = answers(model, [deployment], PROMPTS)
        for name in Results.__annotations__:
            assert (getattr(alone, name) == getattr(found, name)).all(), (deployment.name, name)
    (first,) = answers(model, [SOUND], [PROMPTS[0]])
    assert (first.right == together[0].right[:1]).all()
    assert first.logprob[0] == together[0].logprob[0]
    canaries = {found.canary.tobytes() for found in together}
    assert len(canaries) > 3  # control: deployments do differ


def test_the_report(report: NoiseReport) -> None:
    assert [each.fault for each in report.findings] == [fault.name for fault in FAULTS]
    assert len(FAULTS) == len(LOOKS) == 5
    by_fault = {each.fault: each for each in report.findings}
    for name in ("wrong RoPE base", "another pool's RoPE"):
        assert by_fault[name].canaries > 0.5
        assert by_fault[name].logprob != 0
    samplers = [by_fault[fault.name] for fault in FAULTS[:2]]
    assert all(each.logprob == 0 for each in samplers)  # a sampler moves no log-probability
    for each in report.findings:
        for rate, seen in each.seen.items():
            assert list(seen) == list(LOOKS)
            if each.canaries == 1 and rate == 1:
                assert seen["bits of canaries"].predicted == 1


def test_bad_input(model: HookedTransformer) -> None:
    for prompts in ([], ["a"], ["fine", ""]):
        with pytest.raises(ValueError, match=r"two tokens|empty"):
            run_noise(model, prompts)
    for rates in ((), (0.0,), (1.5,)):
        with pytest.raises(ValueError, match="shares of requests"):
            run_noise(model, PROMPTS, rates=rates)


def test_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = command_runner(capsys, monkeypatch, "postmortem")
    llama = write_speaking_llama(tmp_path)
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("the cat sat on the mat\na dog ran\n")
    code, out, error = run(llama, "--prompts", prompts, "--noise")
    assert code == 0, error
    assert all(fault.name.split()[0] in out for fault in FAULTS)
    code, out, error = run(llama, "--prompts", prompts, "--noise", "--json")
    assert code == 0, error
    found = json.loads(out)
    assert found["items"] == 2
    assert [each["fault"] for each in found["findings"]] == [fault.name for fault in FAULTS]
    for option, message in (("--shards=1,2", "--noise prints its report"), ("--routing", "one at")):
        code, _, error = run(llama, "--noise", option)
        assert code == 2
        assert message in error
