"""Monitors: scores with the bits of scoring afterwards, alarms, and what they do to rows."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from bitlens.interp.monitors import Alarm, Monitor
from bitlens.interp.probes import ProbeFileError
from bitlens.model import HookedTransformer
from support.random_models import byte_tokenizer, random_model
from support.random_probes import random_attention, random_probe, whole_scores

HOOKS = ("blocks.1.hook_resid_post", "blocks.0.mlp.hook_post")
AGGREGATES = ("mean", "last", "max", "rolling:3", "ema:0.25")
PROMPTS = [[5, 6, 7], [9], [1, 2, 3, 4, 8]]
N = 9


@pytest.fixture(scope="module")
def model() -> HookedTransformer:
    return random_model("mistral", tokenizer=byte_tokenizer())


def bits(x: torch.Tensor) -> list[int]:
    return x.contiguous().view(torch.int32).tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("n_threads", [1, 2])
def test_scores_have_the_bits_of_scoring_afterwards(
    model: HookedTransformer, n_threads: int
) -> None:
    """Whatever the batch, padding, cache and threads; of all monitors at once, each alone."""
    import bitlens

    bitlens.set_num_threads(n_threads)
    probes = {
        f"{hook}/{a}": random_probe(model, hook, a, i)
        for i, hook in enumerate(HOOKS)
        for a in AGGREGATES
    }
    probes["skips"] = random_probe(model, HOOKS[0], seed=7)
    probes["skips"].skip_first = 2
    monitors = [Monitor(probe, name=name) for name, probe in probes.items()]
    out = model.generate(
        PROMPTS, max_new_tokens=N, temperature=1.0, seed=2, monitors=monitors,
        stop=lambda ids, text: len(ids) == ids[0] % 6 + 2,
    )  # fmt: skip
    assert len(set(out.n_new)) > 1
    plain = model.generate(
        PROMPTS, max_new_tokens=N, temperature=1.0, seed=2,
        stop=lambda ids, text: len(ids) == ids[0] % 6 + 2,
    )  # fmt: skip
    assert torch.equal(out.tokens, plain.tokens)
    assert set(out.scores) == set(probes)
    moved = 0
    for name, probe in probes.items():
        for row in range(len(PROMPTS)):
            real = out.attention_mask[row] == 1
            found = out.scores[name][row]
            assert found[~real].isnan().all()
            expected = whole_scores(model, probe, out.tokens[row][real].tolist())
            assert bits(found[real]) == bits(expected), (name, row)
            other = whole_scores(model, probe, out.tokens[row][real].tolist()[::-1])
            moved += bits(found[real]) != bits(other)
    assert moved == len(probes) * len(PROMPTS)  # the control: other text, other bits


def test_a_stop_ends_its_row_at_the_token_that_raised_it(model: HookedTransformer) -> None:
    free = model.generate(PROMPTS, max_new_tokens=N, min_new_tokens=N)
    tokens = free.tokens[0][free.attention_mask[0] == 1].tolist()
    least = len(PROMPTS[0]) + 2
    for seed in range(50):  # a probe whose largest score stands late enough
        probe = random_probe(model, HOOKS[0], "last", seed)
        scores = whole_scores(model, probe, tokens).tolist()
        first = scores.index(max(scores))
        if least <= first < len(tokens) - 2:
            break
    threshold = max(scores[:first])
    monitor = Monitor(probe, threshold=threshold, rows=[0])
    out = model.generate(PROMPTS, max_new_tokens=N, min_new_tokens=N, monitors=[monitor])
    (alarm,) = out.alarms
    assert (alarm.row, alarm.position) == (0, first)
    assert alarm.score == scores[first]
    assert alarm.token_id == alarm.tokens[-1] == tokens[first]
    assert out.finish_reason == ["alarm", "length", "length"]
    assert out.n_new == [first + 1 - len(PROMPTS[0]), N, N]
    for row in (1, 2):
        assert torch.equal(out.tokens[row], free.tokens[row])


def test_a_prompt_can_raise_an_alarm(model: HookedTransformer) -> None:
    monitor = Monitor(random_probe(model, HOOKS[0]), threshold=-math.inf)
    out = model.generate(PROMPTS, max_new_tokens=N, monitors=[monitor])
    assert out.n_new == [0, 0, 0]
    assert out.finish_reason == ["alarm"] * 3
    assert [(a.row, a.position, a.step) for a in out.alarms] == [(0, 0, 0), (1, 0, 0), (2, 0, 0)]


def test_flags_go_on_and_functions_decide(model: HookedTransformer) -> None:
    probe = random_probe(model, HOOKS[0], "last")
    free = model.generate(PROMPTS, max_new_tokens=N, min_new_tokens=N)
    flag = Monitor(probe, threshold=0.0, on_alarm="flag")
    out = model.generate(PROMPTS, max_new_tokens=N, min_new_tokens=N, monitors=[flag])
    assert torch.equal(out.tokens, free.tokens)
    assert out.finish_reason == ["length"] * 3
    for row in range(3):
        scores = out.scores[flag.name][row]
        above = (scores > 0) & ~scores.isnan()
        rises = above & ~torch.cat([torch.tensor([False]), above[:-1]])
        assert len([a for a in out.alarms if a.row == row]) == int(rises.sum())
    asked: list[Alarm] = []

    def decide(alarm: Alarm) -> bool:
        asked.append(alarm)
        return alarm.row == 2

    out = model.generate(
        PROMPTS, max_new_tokens=N, min_new_tokens=N,
        monitors=[Monitor(probe, threshold=0.0, on_alarm=decide)],
    )  # fmt: skip
    assert asked == out.alarms
    assert out.finish_reason[2] == "alarm"
    assert torch.equal(out.tokens[:2], free.tokens[:2])


def test_a_function_that_raises_ends_its_row_alone(model: HookedTransformer) -> None:
    def fail(alarm: Alarm) -> None:
        if alarm.row == 1:
            raise RuntimeError("no")

    free = model.generate(PROMPTS, max_new_tokens=N, min_new_tokens=N)
    monitor = Monitor(random_probe(model, HOOKS[0]), threshold=-math.inf, on_alarm=fail)
    with pytest.warns(RuntimeWarning, match=r"RuntimeError: no; row 1 ends here"):
        out = model.generate(PROMPTS, max_new_tokens=N, min_new_tokens=N, monitors=[monitor])
    assert out.finish_reason == ["length", "error", "length"]
    assert [a.error for a in out.alarms] == [None, "RuntimeError: no", None]
    for row in (0, 2):
        assert torch.equal(out.tokens[row], free.tokens[row])


def test_text_waits_for_its_score(model: HookedTransformer) -> None:
    probe = random_probe(model, HOOKS[0], "last")
    for hold in (0, 1, 3):
        pieces: list[str] = []
        released: list[int] = []

        def count(tensor: torch.Tensor, hook: Any, into: Any = (released, pieces)) -> None:
            into[0].append(len(into[1]))

        with model.hooks([("hook_embed", count)]):
            out = model.generate(
                "ab",
                max_new_tokens=N,
                min_new_tokens=N,
                monitors=[Monitor(probe, hold=hold)],
                stream=pieces.append,
            )
        assert "".join(pieces) == out.text[0]
        # As pass i begins, i tokens are chosen and i - 1 of them are scored.
        assert len(released) == N + 1
        for i, n in enumerate(released):
            assert n <= max(0, i - hold)
        assert released[-1] > 0


def test_windows_and_thresholds(model: HookedTransformer) -> None:
    probe = random_probe(model, HOOKS[0])
    monitor = Monitor(probe, window=4, on_alarm="flag", name="w")
    out = model.generate([PROMPTS[0]], max_new_tokens=N, monitors=[monitor])
    rolling = random_probe(model, HOOKS[0], "rolling:4")
    assert bits(out.scores["w"][0]) == bits(whole_scores(model, rolling, out.tokens[0].tolist()))
    assert probe.aggregate.kind == "mean"


def test_other_kinds_of_probes(model: HookedTransformer) -> None:
    probe = random_attention(model, HOOKS[0], seed=3)
    out = model.generate(PROMPTS, max_new_tokens=N, monitors=[Monitor(probe, threshold=math.inf)])
    for row in range(3):
        real = out.attention_mask[row] == 1
        found = out.scores[HOOKS[0]][row][real]
        assert bits(found) == bits(whole_scores(model, probe, out.tokens[row][real].tolist()))


def test_edits_are_seen(model: HookedTransformer) -> None:
    """A monitor reads the hook as edits leave it."""

    def zero(tensor: torch.Tensor, hook: Any) -> None:
        tensor.zero_()

    probe = random_probe(model, HOOKS[0], "last")
    with model.hooks([(HOOKS[0], zero)]):
        out = model.generate([1, 2], max_new_tokens=3, monitors=[Monitor(probe)])
    real = out.scores[HOOKS[0]][0]
    assert (real == probe.intercept_[0]).all()


def test_rows_that_stay_as_padding_get_no_score(model: HookedTransformer) -> None:
    """A row that has ended stays in the batch where hook functions run."""
    names: list[int] = []
    probe = random_probe(model, HOOKS[0])
    with model.hooks([(HOOKS[1], lambda tensor, hook: names.append(len(tensor)))]):
        out = model.generate(
            PROMPTS, max_new_tokens=N, temperature=1.0, seed=2, monitors=[Monitor(probe)],
            stop=lambda ids, text: len(ids) == ids[0] % 6 + 2,
        )  # fmt: skip
    assert set(names) == {3}
    assert len(set(out.n_new)) > 1
    for row in range(3):
        real = out.attention_mask[row] == 1
        expected = whole_scores(model, probe, out.tokens[row][real].tolist())
        assert bits(out.scores[HOOKS[0]][row][real]) == bits(expected)


def test_a_stop_frees_its_row_before_the_next_pass(
    model: HookedTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, forward = [], model.forward_last_slice

    def count(tokens: Any, mask: Any, cache: Any, captures: Any) -> torch.Tensor:
        rows.append((len(tokens), len(cache.lengths)))
        return forward(tokens, mask, cache, captures)

    monkeypatch.setattr(model, "forward_last_slice", count)
    probe = random_probe(model, HOOKS[0], "last")
    free = model.generate(PROMPTS, max_new_tokens=N, min_new_tokens=N, monitors=[Monitor(probe)])
    assert rows == [(3, 3)] * (N + 1)
    new = free.scores[HOOKS[0]][0, -N:]
    monitor = Monitor(probe, threshold=float(new[2:-2].max()) - 1e-6, rows=[0])
    rows.clear()
    out = model.generate(PROMPTS, max_new_tokens=N, min_new_tokens=N, monitors=[monitor])
    step = out.alarms[0].step
    assert rows == [(3, 3)] * (step + 1) + [(2, 2)] * (N - step)


def test_flush_to_zero_reaches_no_score(model: HookedTransformer) -> None:
    probe = random_probe(model, HOOKS[0], "ema:0.25")
    probe.coef_, probe.intercept_ = probe.coef_ * 1e-39, torch.zeros(1)
    given = []
    for flush in (False, True):
        torch.set_flush_denormal(flush)
        out = model.generate([1, 2], max_new_tokens=3, monitors=[Monitor(probe)])
        given.append(bits(out.scores[HOOKS[0]]))
    assert given[0] == given[1]
    assert any(0 < abs(b) & 0x7FFFFFFF < 1 << 23 for b in given[0][0])


def test_bad_monitors_are_named(model: HookedTransformer) -> None:
    probe = random_probe(model, HOOKS[0])
    with pytest.raises(ValueError, match="two are called"):
        model.generate([1], monitors=[Monitor(probe), Monitor(probe)])
    with pytest.raises(ValueError, match=r"rows \[3\] of 1"):
        model.generate([1], monitors=[Monitor(probe, rows=[3])])
    narrow = random_probe(model, HOOKS[0])
    narrow.coef_ = narrow.coef_[:, 1:]
    with pytest.raises(ProbeFileError, match="reads"):
        model.generate([1], monitors=[Monitor(narrow)])
    foreign = random_probe(model, HOOKS[0])
    foreign.metadata_ = {"model_fingerprint": "0" * 64}
    with pytest.raises(ProbeFileError, match="train it again"):
        model.generate([1], monitors=[Monitor(foreign)])
    lost = random_probe(model, HOOKS[0])
    lost.hook_names = ("blocks.77.hook_resid_post",)
    with pytest.raises(ProbeFileError, match="no hook"):
        model.generate([1], monitors=[Monitor(lost)])
    with pytest.raises(TypeError, match="cannot watch one generation"):
        model.generate([1], monitors=[Monitor(probe), object()])  # type: ignore[list-item]
    for options in ({"on_alarm": "shout"}, {"hold": -1}, {"threshold": math.nan}, {"margin": -1}):
        with pytest.raises(ValueError, match=next(iter(options))):
            Monitor(probe, **options)  # type: ignore[arg-type]


def test_nan_keeps_the_text_so_far(model: HookedTransformer) -> None:
    def poison(tensor: torch.Tensor, hook: Any) -> None:
        if hook.generation.index == 2:
            tensor[:] = math.nan

    monitor = Monitor(random_probe(model, HOOKS[1]))
    with (
        model.hooks([(HOOKS[1], poison)]),
        pytest.raises(ValueError, match="NaN or infinity") as raised,
    ):
        model.generate([1, 2], max_new_tokens=N, min_new_tokens=N, monitors=[monitor])
    assert raised.value.generated.n_new == [2]  # type: ignore[attr-defined]


def test_on_score_that_raises_keeps_the_text_so_far(model: HookedTransformer) -> None:
    def fail(row: int, position: int, token: int, score: float) -> None:
        if position == 4:
            raise RuntimeError("no")

    monitor = Monitor(random_probe(model, HOOKS[0]), on_score=fail)
    with pytest.raises(RuntimeError, match="no") as raised:
        model.generate([1, 2], max_new_tokens=N, min_new_tokens=N, monitors=[monitor])
    assert raised.value.generated.n_new == [3]  # type: ignore[attr-defined]
