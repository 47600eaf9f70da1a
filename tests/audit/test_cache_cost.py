"""`bitlens cache-cost`: prices as data, a trace replayed, and the engine's own counts beside it."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from bitlens.audit.cache_cost import (
    Prices,
    TracedRequest,
    measure_first_tokens,
    read_prices,
    read_trace,
    replay,
    share_saved,
)
from bitlens.audit.cache_cost.measure import prefill_flops
from support.command_line import Run, command_runner
from support.random_models import CONFIGS, random_model
from support.speaking_llama import write_speaking_llama

FREE = Prices(input=1.0, output=0.0, read=0.1, write=1.25, minimum=0, ttl=1e9)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return command_runner(capsys, monkeypatch, "cache-cost")


def request(ids: Any, **changes: Any) -> TracedRequest:
    ids = tuple(ids)
    return TracedRequest(
        **{"time": 0.0, "ids": ids, "keep": len(ids), "output": 0, "salt": ""} | changes
    )


@pytest.mark.parametrize(("uses", "saved"), [(2, 0.325), (10, 0.785), (100, 0.8885)])
def test_what_uses_of_a_prefix_save(uses: int, saved: float) -> None:
    """A price of a read of 0.1 is not "90% off": the formula, and the bill of such a trace."""
    prices = read_prices("anthropic-5m")
    assert share_saved(uses, prices) == pytest.approx(saved)
    prefix = 2000
    trace = [request([*range(prefix), prefix + i], keep=prefix) for i in range(uses)]
    found = replay(trace, prices)
    assert found.hits == uses - 1
    price = prices.input / 1e6
    with_cache, without = (
        bill / price - uses for bill in (found.bill, found.bill_without)
    )  # less the tokens after the prefix
    assert 1 - with_cache / without == pytest.approx(saved)


def test_no_number_of_uses_saves_ninety_percent() -> None:
    prices = read_prices("anthropic-5m")
    assert share_saved(1, prices) == -0.25
    assert 0.89 < share_saved(10**6, prices) < 0.9
    hour = read_prices("anthropic-1h")
    assert share_saved(2, hour) < 0 < share_saved(3, hour)
    with pytest.raises(ValueError, match="at least one"):
        share_saved(0, prices)


def test_hits_are_of_the_longest_beginning_kept_in_time_and_salt() -> None:
    prices = dataclasses.replace(FREE, minimum=4, ttl=10.0)
    base = list(range(20))
    trace = [
        request(base),
        request([*base[:12], 99]),  # 12 in common
        request([*base[:3], 98]),  # fewer than the minimum
        request(base, salt="other"),
        request([*base, 1, 2], time=9.0),  # all of the first
        request([*base, 1, 3], time=18.0),  # 21 of the last, which was used 9 seconds ago
        request(base, time=30.0),  # nothing is left
        request(base, time=30.0, keep=0),  # all but the last token is read
        request(base[:3], time=30.0),  # too short to be kept
    ]
    found = [(each.read, each.written, each.plain) for each in replay(trace, prices).requests]
    assert found == [
        (0, 20, 0), (12, 1, 0), (0, 4, 0), (0, 20, 0), (20, 2, 0), (21, 1, 0), (0, 20, 0),
        (19, 0, 1), (0, 0, 3),
    ]  # fmt: skip


def test_a_replay_counts_what_the_engine_finds() -> None:
    torch.set_num_threads(1)
    model, draw = random_model("llama", changes={"n_ctx": 400}), random.Random(0)
    base = [draw.randrange(250) for _ in range(200)]
    trace = []
    for i in range(24):
        own = [draw.randrange(250) for _ in range(draw.randrange(1, 30))]
        trace.append(
            request([*base[: draw.randrange(1, 200)], *own], time=float(i), salt="ab"[i % 2])
        )
    measured = measure_first_tokens(model, trace, ttl=1e9)
    assert list(measured.cached) == [each.read for each in replay(trace, FREE).requests]
    assert sum(measured.cached) > 500
    assert min(*measured.with_cache, *measured.without) > 0


def test_operations_until_the_first_token() -> None:
    config = CONFIGS["llama"]
    whole = prefill_flops(config, 100, 0)
    # What is left after 60 tokens, and these 60 without their logits, are the whole.
    logits = 2 * config.d_model * config.d_vocab
    assert prefill_flops(config, 60, 0) - logits + prefill_flops(config, 100, 60) == whole
    assert prefill_flops(config, 100, 99) < whole / 50


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: "),
        ("[]", "expected an object"),
        ('{"ids": [1], "tokens": 3}', "tokens: no such field"),
        ('{"ids": [1], "prompt": "a"}', "expected one of"),
        ('{"prompt": "a"}', "needs a tokenizer"),
        ('{"ids": []}', "at least one token"),
        ('{"ids": [1.5]}', "at least one token"),
        ('{"ids": [1], "time": -1}', "not before 0.0"),
        ('{"ids": [1], "time": NaN}', "expected seconds"),
        ('{"ids": [1], "keep": 2}', "the prompt has 1 tokens"),
        ('{"ids": [1], "output": true}', "a number of tokens"),
        ('{"ids": [1], "salt": 1}', "expected text"),
    ],
)
def test_lines_that_are_no_requests(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text('{"ids": [1]}\n' + line)
    with pytest.raises(ValueError, match="line 2: ") as error:
        read_trace(path)
    assert message in str(error.value)


def test_prices_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    with pytest.raises(FileNotFoundError, match="anthropic-5m, anthropic-1h"):
        read_prices(str(path))
    good = "input = 1.0\noutput = 2.0\nread = 0.5\nwrite = 1.0\nminimum = 0\nttl = 60\n"
    path.write_text(good)
    assert read_prices(str(path)).read == 0.5
    for text, message in (
        (good + "more = 1", "more"),
        (good.replace("0.5", "-1"), "read = -1"),
        (good.replace("0.5", "inf"), "finite"),
        (good.replace("0.5", '"a"'), "a number"),
        ("input", "prices.toml"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_prices(str(path))


def test_the_command(tmp_path: Path, run: Run) -> None:
    model = write_speaking_llama(tmp_path / "model")
    trace, prices = tmp_path / "trace.jsonl", tmp_path / "prices.toml"
    lines = [{"prompt": "A long beginning, " + end, "output": 5} for end in ("one", "two", "three")]
    trace.write_text("\n".join(map(json.dumps, lines)))
    prices.write_text(
        "input = 1.0\noutput = 0.0\nread = 0.1\nwrite = 1.25\nminimum = 0\nttl = 60\n"
    )
    options = [trace, "--model", model, "--prices", prices]
    code, out, _ = run(*options)
    assert code == 0
    assert "3 requests, 2 of which" in out
    assert "times as long" in out
    for more, unit in (([], "operations"), (["--measure", "--dtype", "fp32"], "seconds")):
        code, out, _ = run(*options, "--json", *more)
        answer = json.loads(out)
        assert answer["tokens"] == {
            "prompt": 65,
            "read": 37,
            "written": 28,
            "plain": 0,
            "output": 15,
        }
        assert answer["bill"] == pytest.approx((37 * 0.1 + 28 * 1.25) / 1e6)
        assert answer["first_token"]["unit"] == unit
    code, _, err = run(trace)
    assert code == 2
    assert "needs a tokenizer" in err
    assert run(trace, "--measure")[0] == 2
