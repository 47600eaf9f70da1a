"""Monitors of a server: every request is watched, clients are told, and a trail is kept."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest
from bitlens.interp.monitors import AuditTrail, Monitor, read_trail
from bitlens.interp.probes import ProbeFileError
from bitlens.model.serving import Engine
from bitlens.model.serving.http import Service
from bitlens.model.transformer import HookedTransformer
from support.http_server import TEMPLATE, Server, serving
from support.random_models import byte_tokenizer, random_model
from support.random_probes import random_probe

HOOK = "blocks.1.hook_resid_post"
PROMPT = "Once upon a time"
BODY = {"model": "tiny", "prompt": PROMPT, "max_tokens": 12, "temperature": 0}
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 12}
RECORDS: list[Any] = []


@pytest.fixture(scope="module")
def model() -> HookedTransformer:
    return random_model("llama", tokenizer=byte_tokenizer(TEMPLATE), changes={"n_ctx": 512})


@pytest.fixture(scope="module")
def monitor(model: HookedTransformer) -> Monitor:
    """Ends PROMPT's greedy answer in its midst, and nothing before."""
    for seed in range(50):
        probe = random_probe(model, HOOK, "last", seed)
        free = model.generate(PROMPT, max_new_tokens=12, monitors=[Monitor(probe)])
        scores = free.scores[HOOK][0].tolist()
        first = scores.index(max(scores))
        if len(PROMPT) + 4 <= first < len(scores) - 2:
            return Monitor(probe, threshold=max(scores[:first]), name="m")
    raise LookupError("no probe is sure late enough")


@pytest.fixture(scope="module")
def server(model: HookedTransformer, monitor: Monitor) -> Iterator[Server]:
    record = lambda *found: RECORDS.append(found)  # noqa: E731
    yield from serving({"only": model}, monitors=[monitor], record=record)


def test_an_alarm_is_a_content_filter(server: Server, monitor: Monitor) -> None:
    want = server.model.generate(PROMPT, max_new_tokens=12, monitors=[monitor])
    (alarm,) = want.alarms
    n_out = want.n_new[0] - 1
    ids = want.tokens[0, -want.n_new[0] :].tolist()[:n_out]
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none")
    asked: dict[str, Any] = {**BODY, "logprobs": 1, "extra_body": {"return_token_ids": True}}
    (choice,) = client.completions.create(**asked).choices
    extra: Any = choice.model_extra
    assert choice.finish_reason == "content_filter"
    assert extra["token_ids"] == ids  # not the token that raised it
    assert len(extra["token_logprobs"]) == len(choice.logprobs.tokens or ()) == n_out  # type: ignore[union-attr]
    assert extra["alarms"] == [
        {
            "monitor": "m",
            "position": alarm.position,
            "score": alarm.score,
            "threshold": monitor.threshold,
            "decided_by": "score",
        }
    ]
    assert want.text[0].startswith(choice.text)
    text, reason, found = "", None, []
    for chunk in client.completions.create(**asked, stream=True):
        (part,) = chunk.choices
        text, reason = text + part.text, part.finish_reason
        found += (part.model_extra or {}).get("token_ids", []) if reason is None else []
    assert (text, reason, found) == (choice.text, "content_filter", ids)


def test_an_alarm_is_a_refusal_to_clients_of_anthropic(model: HookedTransformer) -> None:
    monitor = Monitor(random_probe(model, HOOK), threshold=-math.inf, name="all")
    for server in serving({"only": model}, monitors=[monitor]):
        client = anthropic.Anthropic(base_url=server.url, api_key="none")
        message = client.messages.create(**CHAT)  # type: ignore[call-overload]
        assert (message.stop_reason, message.content[0].text) == ("refusal", "")
        (alarm,) = message.model_extra["alarms"]
        assert (alarm["monitor"], alarm["threshold"]) == ("all", None)
        assert math.isfinite(alarm["score"])
        events = list(client.messages.create(**CHAT, stream=True))  # type: ignore[call-overload]
        (ended,) = [each for each in events if each.type == "message_delta"]
        assert ended.delta.stop_reason == "refusal"
        chat = server.post("/v1/chat/completions", CHAT).json()["choices"][0]
        assert (chat["finish_reason"], chat["message"]["content"]) == ("content_filter", "")


def test_without_an_alarm_clients_see_that_monitors_ran(server: Server) -> None:
    plain = next(iter(server.model.generate("b", max_new_tokens=2, temperature=0).text))
    body = {**BODY, "prompt": "b", "max_tokens": 2}
    (choice,) = server.post("/v1/completions", body).json()["choices"]
    assert (choice["text"], choice["finish_reason"], choice["alarms"]) == (plain, "length", [])


def test_every_answer_is_on_the_trail_before_its_client_has_it(
    server: Server, tmp_path: Path
) -> None:
    RECORDS.clear()
    said = server.post("/v1/completions", {**BODY, "n": 2}).json()
    ((model, request_id, found),) = RECORDS
    assert said["id"] == f"cmpl-{request_id}"
    trail = AuditTrail(tmp_path / "trail.jsonl")
    trail.append_answers(model, found, request_id)
    lines = list(read_trail(trail.path))
    alone = model.generate(PROMPT, max_new_tokens=12, n=2, monitors=server.service._monitors)
    watched = AuditTrail(tmp_path / "watched.jsonl")
    watched.append(model, alone, request_id)
    want = list(read_trail(watched.path))
    assert [line["finish_reason"] for line in lines] == ["alarm", "alarm"]
    for line in (*lines, *want):
        del line["time"]
    assert lines == want
    assert PROMPT not in trail.path.read_text()


def test_who_hangs_up_is_on_the_trail(server: Server) -> None:
    RECORDS.clear()
    body = {**BODY, "prompt": "b", "max_tokens": 400, "stream": True}
    with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=30) as answer:
        next(answer.iter_lines())
    (choice,) = server.post("/v1/completions", {**BODY, "max_tokens": 400}).json()["choices"]
    assert choice["finish_reason"] == "content_filter"
    while len(RECORDS) < 2:  # the engine ends it within a step
        assert server.service._thread.is_alive()
    assert "cancelled" in {found[0].finish_reason for _, _, found in RECORDS}


def test_an_answer_that_cannot_be_written_down_is_an_error(
    model: HookedTransformer, monitor: Monitor
) -> None:
    def fail(*found: object) -> None:
        raise OSError("no space left")

    for server in serving({"only": model}, monitors=[monitor], record=fail):
        answer = server.post("/v1/completions", BODY)
        assert answer.status_code == 500
        assert "could not be written down" in answer.text
        lines = server.post("/v1/completions", {**BODY, "stream": True}).text.splitlines()
        assert (
            "could not be written down"
            in json.loads(lines[-2].removeprefix("data: "))["error"]["message"]
        )


def test_a_probe_of_another_model_is_refused_at_the_start(model: HookedTransformer) -> None:
    probe = random_probe(model, HOOK)
    probe.metadata_ = {"model_fingerprint": "0" * 64}
    with Engine(model) as engine, pytest.raises(ProbeFileError, match="train it again"):
        Service(engine, "m", timeout=1.0, monitors=[Monitor(probe)])
