"""Misrouted requests: refused with the check, measured and detected without it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from bitlens.audit.postmortem import routing, shipped_prompts
from bitlens.audit.postmortem.routing import (
    Effect,
    RoutingReport,
    canaries,
    conversations_until,
    detection,
    experiment,
    paired,
    run_routing,
    unpaired,
    users_touched,
)
from bitlens.audit.postmortem.routing.experiment import PUBLISHED_EFFECT
from bitlens.audit.postmortem.routing.movement import movement
from bitlens.model.serving import Pool, Request, Router, long_context, router
from bitlens.model.transformer import HookedTransformer
from support.command_line import command_runner
from support.random_models import byte_tokenizer, random_model
from support.speaking_llama import write_speaking_llama

PROMPTS = [prompt[:60] for prompt in shipped_prompts()[:6]]

# Two thousand runs: four standard errors of a share near 0.8, and as much for what a normal
# approximation of some thirty items that change sides is off by.
ERROR = 0.07


@pytest.fixture(autouse=True)
def _one_torch_thread(_settings_restored: None) -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def model() -> HookedTransformer:
    return random_model("llama", tokenizer=byte_tokenizer())


@pytest.fixture(scope="module")
def report(model: HookedTransformer) -> RoutingReport:
    return run_routing(model, PROMPTS, sequential_runs=1)


def test_the_numbers_of_items() -> None:
    """0.8% misrouted at 12.5 points; a quarter of the misrouted items change sides."""
    assert paired(0.008, PUBLISHED_EFFECT, sequential_runs=1).items == 15_695
    assert paired(0.008, PUBLISHED_EFFECT, 0.05, sequential_runs=1).items == 392_442
    assert canaries(0.008, [True]).items == 373
    assert canaries(0.16, [True]).items == 18
    assert canaries(0.008, [True, False]).items == 748
    both_runs = 2 * (2 * 0.39 * 0.61) * 7.8489 / 0.001**2
    assert unpaired(0.008, PUBLISHED_EFFECT).items == pytest.approx(both_runs, rel=1e-3)
    assert conversations_until(0.3, 0.008) == pytest.approx(44.4, abs=0.01)


@pytest.mark.parametrize("rate", [0.008, 0.16])
def test_each_way_of_looking_sees_it_as_often_as_its_formula_says(rate: float) -> None:
    found = canaries(rate, [True, True, False])
    assert abs(found.simulated - 0.95) < ERROR
    assert found.simulated < 1
    for flips in (0.0, 0.05):
        looked = paired(rate, PUBLISHED_EFFECT, flips, sequential_runs=1)
        assert abs(looked.simulated - 0.8) < ERROR
    assert abs(unpaired(rate, PUBLISHED_EFFECT).simulated - 0.8) < ERROR


def test_the_sequential_test_needs_about_as_many() -> None:
    """Looked at after every item, and no later than twice what is fixed beforehand."""
    found = paired(0.16, PUBLISHED_EFFECT, sequential_runs=40)
    assert found.sequential is not None
    assert found.items / 2 < found.sequential < 2 * found.items


def test_what_cannot_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError):
        canaries(0.008, [False])
    with pytest.raises(ValueError, match="effect = 0"):
        paired(0.008, Effect(0.5, 0.1, 0.1))
    with pytest.raises(ValueError, match="effect = 0"):
        unpaired(0.008, Effect(0.5, 0.1, 0.1))
    with pytest.raises(ValueError, match="between 0 and 1"):
        conversations_until(0.3, 0.0)
    monkeypatch.setattr(detection, "_MOST_DISCORDANT", 100)
    assert paired(0.008, Effect(0.5, 0.101, 0.1), sequential_runs=1).sequential is None


def test_a_third_of_users_meet_what_hits_one_request_in_a_hundred() -> None:
    assert abs(users_touched(0.008, 44) - (1 - 0.992**44)) < 0.01
    assert users_touched(0.008, 1) < 0.01


def test_one_model_is_no_distance_from_itself(model: HookedTransformer) -> None:
    tokens = torch.randint(250, (3, 40), generator=torch.Generator().manual_seed(0))
    same = movement(model, model, tokens)
    assert (same.tokens.flips, same.tokens.kl.mean, same.tokens.lost) == (0, 0.0, 0)
    spans = [(each.first, each.last) for each in same.by_position]
    assert spans == [(0, 0), (1, 1), (2, 3), (4, 7), (8, 15), (16, 31), (32, 38)]
    sizes = [last - first + 1 for first, last in spans]
    mean = sum(n * each.right for n, each in zip(sizes, same.by_position, strict=True)) / 39
    assert mean == pytest.approx(float(model(tokens, return_type="loss")), rel=1e-5)
    other = movement(model, long_context(model, 512), tokens)
    assert other.tokens.flips > 0
    assert other.tokens.kl.mean > 0
    # A token alone has position 0, where no RoPE turns anything.
    assert other.by_position[0].change.mean == 0


def test_the_report(model: HookedTransformer, report: RoutingReport) -> None:
    assert (report.injected, report.answered, report.canaries) == (10_000, 0, 6)
    assert report.short != report.long
    assert report.logprobs_differ == 1
    pair = model, long_context(model, 512)
    short, long = (each.generate(PROMPTS, max_new_tokens=16).text for each in pair)
    differing = sum(a != b for a, b in zip(short, long, strict=True))
    assert report.text_differs == differing / 6
    assert set(report.detection) == {"published", "next token"}
    for found in report.detection["published"].values():
        assert [each.method for each in found] == [
            "canaries, bitwise", "paired scores", "paired scores, 5% random flips",
            "unpaired scores",
        ]  # fmt: skip


def test_without_the_check_misroutes_are_answered(
    model: HookedTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of `answered == 0`: requests that name no pool are taken by any."""
    monkeypatch.setattr(experiment, "INJECTED", 40)
    stamped = router.Router.route

    def unstamped(self: Router, request: Request, conversation: str | None = None) -> Any:
        route = stamped(self, request, conversation)
        return router.Route(route.pool, request)

    longer = long_context(model, 512)
    with Router([Pool("short", model), Pool("long", longer)]) as pools:
        asked = [Request("abc", max_new_tokens=2)]
        assert experiment._misroutes_answered(pools, asked) == 0
        monkeypatch.setattr(router.Router, "route", unstamped)
        assert experiment._misroutes_answered(pools, asked) == 40


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_speaking_llama(tmp_path_factory.mktemp("llama"))


def test_the_command(
    llama: Path,
    report: RoutingReport,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = command_runner(capsys, monkeypatch, "postmortem")
    monkeypatch.setattr(routing, "run_routing", lambda model, prompts, progress: report)
    code, out, _ = run(llama, "--routing")
    assert code == 0
    for text in ("0 of 10,000 misroutes answered", "15,695", "392,442", "373", "44.4"):
        assert text in out
    code, out, _ = run(llama, "--routing", "--json")
    answer = json.loads(out)
    assert answer["detection"]["published"]["0.008"][1]["items"] == 15_695
    assert answer["movement"]["by_position"][0]["last"] == 0
    broken = dataclasses.replace(report, answered=1)
    monkeypatch.setattr(routing, "run_routing", lambda model, prompts, progress: broken)
    assert run(llama, "--routing")[0] == 1
    code, _, err = run(llama, "--routing", "--shards", "2")
    assert code == 2
    assert "takes no --shards" in err
