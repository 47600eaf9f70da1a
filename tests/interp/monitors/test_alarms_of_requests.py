"""Alarms of an engine's requests: what they end, what is told, and what nobody gets to read."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from bitlens.interp.monitors import Alarm, Monitor
from bitlens.interp.probes import Probe, ProbeFileError
from bitlens.model import HookedTransformer
from bitlens.model.serving import Engine, Handle, MonitorFailed, Request
from support.random_models import byte_tokenizer, random_model
from support.random_probes import random_attention, random_probe, whole_scores

HOOK = "blocks.1.hook_resid_post"
PROMPT = [5, 6, 7]
N = 12
PLAIN = Request(PROMPT, max_new_tokens=N, min_new_tokens=N)
OTHER = Request([1, 2, 3, 4, 8], max_new_tokens=N, min_new_tokens=N, temperature=1.0, seed=3)


@pytest.fixture(scope="module")
def model() -> HookedTransformer:
    return random_model("mistral", tokenizer=byte_tokenizer(), changes={"n_ctx": 320})


@pytest.fixture(scope="module")
def written(model: HookedTransformer) -> list[int]:
    """The tokens of PLAIN and its answer."""
    return model.generate(PROMPT, max_new_tokens=N, min_new_tokens=N).tokens[0].tolist()  # type: ignore[no-any-return]


def sure_at(model: HookedTransformer, tokens: list[int], places: range) -> tuple[Probe, int]:
    """A probe whose score first exceeds its threshold at one of these places, and at which."""
    for seed in range(50):
        probe = random_probe(model, HOOK, "last", seed)
        scores = whole_scores(model, probe, tokens).tolist()
        first = scores.index(max(scores))
        if first in places:
            probe.threshold_ = max(scores[:first])
            return probe, first
    raise LookupError(f"no probe is sure at {places}")


@pytest.fixture(scope="module")
def late(model: HookedTransformer, written: list[int]) -> tuple[Probe, int]:
    """A probe that is sure within the answer, and where."""
    return sure_at(model, written, range(len(PROMPT) + 2, len(written) - 2))


@pytest.fixture
def engine(model: HookedTransformer) -> Iterator[Engine]:
    """An engine that has an unwatched request beside each test's own, and serves the next one."""
    want = model.generate(
        OTHER.prompt, max_new_tokens=N, min_new_tokens=N, temperature=1.0, seed=3
    ).tokens[0, 5:]
    with Engine(model, token_budget=40) as engine:
        beside = engine.submit(OTHER)
        yield engine
        assert beside.result().ids == engine.submit(OTHER).result().ids == want.tolist()
        assert engine.stats().running == engine.stats().waiting == 0
        assert engine.cache.stats().pages_referenced == 0


def watched(*monitors: Monitor, **changes: Any) -> Request:
    return replace(PLAIN, monitors=monitors, **changes)


def test_a_stop_ends_its_request_as_in_generate(
    model: HookedTransformer, engine: Engine, late: tuple[Probe, int], written: list[int]
) -> None:
    probe, first = late
    want = model.generate(
        PROMPT, max_new_tokens=N, min_new_tokens=N, monitors=[Monitor(probe, name="m")]
    )
    handle = engine.submit(watched(Monitor(probe, name="m")))
    twin = engine.submit(watched(Monitor(probe, name="m", on_alarm="flag")))
    pieces = list(handle)
    found = handle.result()
    assert found.finish_reason == "alarm" == want.finish_reason[0]
    assert found.alarms == want.alarms
    (alarm,) = found.alarms
    assert isinstance(alarm, Alarm)
    assert (alarm.monitor, alarm.row, alarm.position) == ("m", 0, first)
    assert alarm.score == whole_scores(model, probe, written)[first]
    assert [*PROMPT, *found.ids] == written[: first + 1] == list(alarm.tokens)
    assert found.text == want.text[0]
    assert [piece.id for piece in pieces] == found.ids[:-1]  # not the token that raised it
    assert found.text.startswith("".join(piece.text for piece in pieces))
    assert twin.result().ids == written[len(PROMPT) :]
    assert twin.result().alarms[0] == alarm


def test_an_alarm_frees_its_pages_within_its_step(engine: Engine, late: tuple[Probe, int]) -> None:
    handle = engine.submit(watched(Monitor(late[0])))
    while not handle.is_done:
        running = engine.stats().running
        engine.step()
    assert engine.stats().running == running - 1


def test_a_prompt_can_raise_an_alarm(model: HookedTransformer, engine: Engine) -> None:
    long = [i % 200 for i in range(150)]  # read in four passes
    for probe, first in (sure_at(model, long, range(50, 70)), sure_at(model, long, range(90, 110))):
        found = engine.submit(watched(Monitor(probe), prompt=long)).result()
        assert (found.ids, found.text, found.finish_reason) == ([], "", "alarm")
        want = model.generate(long, max_new_tokens=N, monitors=[Monitor(probe)])
        assert found.alarms == want.alarms
        (alarm,) = want.alarms
        assert (alarm.position, alarm.step, list(alarm.tokens)) == (first, 0, long[: first + 1])


def test_functions_decide_and_samples_are_rows(model: HookedTransformer, engine: Engine) -> None:
    options: dict[str, Any] = {"temperature": 1.0, "seed": 4, "n": 3}
    asked: list[Alarm] = []
    probe = random_probe(model, HOOK, "last")
    flag = Monitor(probe, threshold=0.0, on_alarm="flag")
    free = model.generate(PROMPT, max_new_tokens=N, min_new_tokens=N, **options, monitors=[flag])
    chosen = next(alarm for alarm in free.alarms if alarm.step > 4)

    def decide(alarm: Alarm) -> bool:
        asked.append(alarm)
        return (alarm.row, alarm.step) == (chosen.row, chosen.step)

    want = model.generate(
        PROMPT, max_new_tokens=N, min_new_tokens=N, **options,
        monitors=[Monitor(probe, threshold=0.0, on_alarm=decide)],
    )  # fmt: skip
    told, asked = asked, []
    monitor = Monitor(probe, threshold=0.0, on_alarm=decide)
    found = engine.submit(watched(monitor, **options)).results()
    assert len({alarm.step for alarm in told}) > 3
    assert want.finish_reason.count("alarm") == 1
    for row, each in enumerate(found):
        assert each.finish_reason == want.finish_reason[row]
        assert each.ids == want.tokens[row, 3:][: want.n_new[row]].tolist()
        assert each.alarms == [alarm for alarm in want.alarms if alarm.row == row]
        assert each.alarms == [alarm for alarm in asked if alarm.row == row]
    only = engine.submit(watched(Monitor(probe, threshold=0.0, rows=[1]), **options)).results()
    assert [each.finish_reason for each in only] == ["length", "alarm", "length"]


def test_a_function_that_raises_on_an_alarm_ends_its_own_request(
    engine: Engine, late: tuple[Probe, int], written: list[int]
) -> None:
    def fail(alarm: Alarm) -> None:
        raise LookupError("no")

    probe, first = late
    handle = engine.submit(watched(Monitor(probe, name="m", on_alarm=fail)))
    message = f"monitor 'm': its function raised LookupError: no at the alarm of token {first}"
    with (
        pytest.warns(RuntimeWarning, match="LookupError: no; row 0 ends here"),
        pytest.raises(MonitorFailed, match=message) as raised,
    ):
        handle.result()
    (left,) = raised.value.completions  # type: ignore[attr-defined]
    assert [*PROMPT, *left.ids] == written[: first + 1]
    assert (left.finish_reason, left.alarms[0].error) == ("error", "LookupError: no")


def test_a_function_of_scores_that_raises_ends_its_own_request(
    engine: Engine, model: HookedTransformer, written: list[int]
) -> None:
    def fail(row: int, position: int, token: int, score: float) -> None:
        if position == 6:
            raise LookupError("no")

    handle = engine.submit(watched(Monitor(random_probe(model, HOOK), on_score=fail)))
    with pytest.raises(LookupError, match="no") as raised:
        handle.result()
    (left,) = raised.value.completions  # type: ignore[attr-defined]
    assert [*PROMPT, *left.ids] == written[:6]  # the token at 6 was not scored
    assert left.finish_reason == "error"
    assert len(left.scores[HOOK]) == 6


def test_nan_ends_its_own_request(
    engine: Engine, model: HookedTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = model.forward_last_slice

    def poisoned(tokens: Any, mask: Any, cache: Any, captures: Any) -> torch.Tensor:
        logits = forward(tokens, mask, cache, captures)
        captures.found[HOOK][1] = math.nan  # of the second request
        return logits

    bad = engine.submit(watched(Monitor(random_probe(model, HOOK))))
    good = engine.submit(watched(Monitor(random_probe(model, HOOK))))
    engine.step()
    with monkeypatch.context() as patch:
        patch.setattr(model, "forward_last_slice", poisoned)
        engine.step()
    with pytest.raises(ValueError, match="NaN or infinity"):
        bad.result()
    assert good.result().finish_reason == "length"


@pytest.mark.parametrize("stop", [None, "zz"])
@pytest.mark.parametrize("hold", [0, 1, 3])
def test_a_token_is_handed_out_after_its_score(
    engine: Engine, model: HookedTransformer, hold: int, stop: str | None
) -> None:
    scored: list[int] = []

    def tell(row: int, position: int, token: int, score: float) -> None:
        scored.append(position)

    probe = random_probe(model, HOOK)
    handle = engine.submit(watched(Monitor(probe, hold=hold, on_score=tell), stop=stop))
    pieces, ahead = list(handle.take()), []
    while not handle.is_done:
        engine.step()
        pieces += handle.take()
        n_scored = max(0, len(scored) - len(PROMPT))
        ahead.append(len([piece for piece in pieces if piece.id is not None]) - n_scored)
    assert scored == list(range(len(PROMPT) + N))
    assert set(ahead[3:-1]) == {{0: 1, 1: 0, 3: -2}[hold]}
    assert ahead[-1] == 0
    assert "".join(piece.text for piece in pieces) == handle.result().text
    assert (
        handle.result().text == model.generate(PROMPT, max_new_tokens=N, min_new_tokens=N).text[0]
    )


@pytest.mark.parametrize("stop", [None, "zz"])
def test_what_was_not_scored_by_the_deadline_is_none_of_the_answer(
    model: HookedTransformer, written: list[int], stop: str | None
) -> None:
    now = [0.0]
    with Engine(model, clock=lambda: now[0]) as engine:
        monitor = Monitor(random_probe(model, HOOK))
        timed = engine.submit(watched(monitor, stop=stop, deadline=1.0, logprobs=0))
        plain = engine.submit(replace(PLAIN, stop=stop, deadline=1.0))
        for _ in range(5):
            engine.step()
        now[0] = 2.0
        engine.step()
        found, ids = timed.result(), plain.result().ids
        assert found.finish_reason == plain.result().finish_reason == "deadline"
        assert found.ids == ids[:-1] == written[len(PROMPT) :][:4]
        assert len(found.logprobs or ()) == 4
        assert len(found.scores[HOOK]) == len(PROMPT) + 4
        assert not found.scores[HOOK].isnan().any()
        pieces = list(timed.take())
        assert [piece.id for piece in pieces if piece.id is not None] == found.ids
        assert "".join(piece.text for piece in pieces) == found.text


def test_functions_may_cancel_but_not_wait(engine: Engine, model: HookedTransformer) -> None:
    handles: list[Handle] = []

    def cancel(row: int, position: int, token: int, score: float) -> None:
        if position == 5:
            for handle in handles[:2]:
                handle.cancel()

    def cancel_and_fail(row: int, position: int, token: int, score: float) -> None:
        if position == 5:
            handles[2].cancel()
            raise LookupError("too late")

    def wait(row: int, position: int, token: int, score: float) -> None:
        handles[1].result()

    probe = random_probe(model, HOOK)
    handles.append(engine.submit(watched(Monitor(probe, on_score=cancel))))
    handles.append(engine.submit(PLAIN))
    handles.append(engine.submit(watched(Monitor(probe, on_score=cancel_and_fail))))
    waits = engine.submit(watched(Monitor(probe, on_score=wait)))
    with pytest.raises(RuntimeError, match="let the function return first"):
        waits.result()
    for handle in handles:
        assert handle.result().finish_reason == "cancelled"
    assert len(handles[0].result().ids) == 2
    assert [piece.id for piece in handles[0].take() if piece.id is not None] == handles[
        0
    ].result().ids


def test_monitors_that_do_not_fit_are_named(engine: Engine, model: HookedTransformer) -> None:
    probe = random_probe(model, HOOK)
    foreign, lost = random_probe(model, HOOK), random_probe(model, HOOK)
    foreign.metadata_ = {"model_fingerprint": "0" * 64}
    lost.hook_names = ("blocks.77.hook_resid_post",)
    bad: list[tuple[list[Any], type[Exception], str]] = [
        ([Monitor(foreign)], ProbeFileError, "train it again"),
        ([Monitor(lost)], ProbeFileError, "no hook"),
        ([Monitor(probe), Monitor(probe)], ValueError, "two are called"),
        ([Monitor(probe, rows=[1])], ValueError, r"rows \[1\] of 1"),
        ([Monitor(probe), object()], TypeError, "cannot watch one generation"),
    ]
    for monitors, kind, message in bad:
        with pytest.raises(kind, match=message):
            engine.submit(watched(*monitors))


def mood(i: int) -> dict[str, Any]:
    """Returns the action of a crowd's i-th monitor on an alarm."""

    def sometimes(alarm: Alarm) -> bool:
        if i % 8 == 3 and alarm.position > 6:
            raise LookupError("no")
        return i % 8 == 7

    return {"on_alarm": ["stop", "flag", "flag", sometimes][i % 4], "hold": i % 3}


@pytest.mark.filterwarnings("ignore:monitor .* its function raised:RuntimeWarning")
def test_a_crowd_of_moods_disturbs_nobody(model: HookedTransformer) -> None:
    """32 requests with other monitors each: stops, flags, errors; each as it is alone."""
    requests = [
        Request(
            [(i * 7 + k) % 250 for k in range(1 + i % 9)], max_new_tokens=4 + i % 11, seed=i,
            temperature=1.0,
            monitors=[
                Monitor(random_probe(model, HOOK, "last", i), name="a", threshold=0.5, **mood(i)),
                Monitor(random_attention(model, HOOK, i), name="b", **mood(i)),
            ],
        )
        for i in range(32)
    ]  # fmt: skip

    def end(handle: Handle) -> Any:
        try:
            found, error = handle.result(), None
        except (MonitorFailed, LookupError) as raised:
            (found,), error = raised.completions, str(raised)  # type: ignore[union-attr]
        scores = {name: x.view(torch.int32).tolist() for name, x in found.scores.items()}
        return found.ids, found.text, found.finish_reason, found.alarms, scores, error

    alone = []
    for request in requests:
        with Engine(model) as engine:
            alone.append(end(engine.submit(request)))
    assert {reason for _, _, reason, *_ in alone} == {"alarm", "length", "error"}
    with Engine(model, token_budget=50) as engine:
        handles = [engine.submit(request) for request in requests]
        assert [end(handle) for handle in reversed(handles)] == alone[::-1]
        assert engine.cache.stats().pages_referenced == 0
