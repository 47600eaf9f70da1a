"""Mistakes and malice get a clear error from a server, and the next request is served."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from bitlens.model.serving import Router
from bitlens.model.serving.http import create_app
from bitlens.model.serving.http.app import MAX_BODY
from bitlens.model.transformer import HookedTransformer
from support.http_server import TEMPLATE, Server, serving
from support.random_models import byte_tokenizer, random_model

FAILS = "{% if 'boom' in messages[0].content %}{{ raise_exception('no such word') }}{% endif %}"
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "a"}], "max_tokens": 3}
KEPT = b'{"model": "tiny", "prompt": "'


@pytest.fixture(scope="module")
def model() -> HookedTransformer:
    return random_model("llama", tokenizer=byte_tokenizer(FAILS + TEMPLATE), changes={"n_ctx": 512})


@pytest.fixture(scope="module")
def server(model: HookedTransformer) -> Iterator[Server]:
    yield from serving({"only": model})


def is_served(server: Server) -> bool:
    return server.post("/v1/chat/completions", CHAT).status_code == 200


def sent(server: Server, content: Any) -> httpx.Response:
    headers = {"content-type": "application/json"}
    return httpx.post(f"{server.url}/v1/completions", content=content, headers=headers, timeout=60)


def test_a_hundred_megabytes(server: Server) -> None:
    """Refused by their length; without one, read no further than the bound."""
    assert sent(server, b" " * (100 << 20)).status_code == 413
    assert sent(server, (b"a" * (1 << 20) for _ in range(100))).status_code == 413
    app: Any = create_app(server.service)
    n_read, said = 0, list[Any]()

    async def receive() -> dict[str, Any]:
        nonlocal n_read
        n_read += 1
        return {"type": "http.request", "body": b"a" * (1 << 20), "more_body": n_read < 100}

    async def send(message: Any) -> None:
        said.append(message)

    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {
        "type": "http", "method": "POST", "path": "/v1/completions", "headers": headers,
        "query_string": b"", "state": {},
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    assert (said[0]["status"], n_read) == (413, (MAX_BODY >> 20) + 1)
    assert f"at most {MAX_BODY} bytes" in json.loads(said[1]["body"])["error"]["message"]
    assert is_served(server)


@pytest.mark.parametrize("cut", range(1, 55, 9))
def test_a_body_that_ends_early(server: Server, cut: int) -> None:
    """JSON that is cut, and a connection that is."""
    whole = b'{"model": "tiny", "prompt": "a text", "max_tokens": 3}  '
    assert len(whole) > cut
    assert sent(server, whole[: min(cut, 50)]).status_code == 400
    host, _, port = server.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        head = (
            f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        )
        connection.sendall(f"{head}Content-Length: {len(whole)}\r\n\r\n".encode() + whole[:cut])
    assert is_served(server)


def test_bytes_that_are_no_text(server: Server) -> None:
    draw = random.Random(0)
    for _ in range(50):
        noise = draw.randbytes(draw.randrange(1, 9)) + b"\xff"
        assert sent(server, KEPT + noise + b'"}').status_code == 400
    assert sent(server, KEPT + "\ud800".encode("utf-8", "surrogatepass") + b'"}').status_code == 400
    assert is_served(server)


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("/v1/chat/completions", {"max_tokens": -1}),
        ("/v1/chat/completions", {"max_completion_tokens": -5}),
        ("/v1/chat/completions", {"n": -1}),
        ("/v1/completions", {"max_tokens": -1}),
        ("/v1/messages", {"max_tokens": -1}),
        ("/v1/messages", {"max_tokens": 0}),
    ],
)
def test_budgets_below_nothing(server: Server, path: str, change: dict[str, Any]) -> None:
    body = {**CHAT, **change}
    if path == "/v1/completions":
        body["prompt"] = body.pop("messages")[0]["content"]
    answer = server.post(path, body)
    assert answer.status_code == 400
    assert next(iter(change)) in answer.json()["error"]["message"]
    assert is_served(server)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_a_template_that_fails(server: Server, path: str) -> None:
    answer = server.post(path, {**CHAT, "messages": [{"role": "user", "content": "boom"}]})
    assert answer.status_code == 400
    assert "no such word" in answer.json()["error"]["message"]
    assert is_served(server)


def test_a_full_server(model: HookedTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many wait: 429, and those that wait are served. A prompt that no cache holds: 400."""
    goes_on, step, path, chat = threading.Event(), Router.step, "/v1/chat/completions", CHAT
    monkeypatch.setattr(Router, "step", lambda router: goes_on.wait(60) and step(router))
    for server in serving({"only": model}, max_waiting=2):
        router = server.service.router
        with ThreadPoolExecutor(2) as pool:
            waiting = [pool.submit(server.post, path, chat) for _ in range(2)]
            while sum(pool.n_taken for pool in router.pools) < 2:
                time.sleep(0.01)
            full = server.post(path, chat)
            goes_on.set()
            assert [each.result().status_code for each in waiting] == [200, 200]
        assert full.status_code == 429
        assert "wait" in full.json()["error"]["message"]
        assert is_served(server)
    for server in serving({"only": model}, cache_bytes=40_000):
        long = {**CHAT, "messages": [{"role": "user", "content": "a" * 400}]}
        answer = server.post("/v1/chat/completions", long)
        assert answer.status_code == 400
        assert "cache_bytes" in answer.json()["error"]["message"]
        assert is_served(server)


def test_a_clock_that_runs_backwards(model: HookedTransformer) -> None:
    """It neither ends an answer early nor keeps one from ending."""
    times = iter([*range(1000, 0, -1), *([0] * 1_000_000)])
    for server in serving({"only": model}, timeout=5, clock=lambda: float(next(times))):
        for _ in range(3):
            answer = server.post("/v1/chat/completions", {**CHAT, "max_tokens": 20})
            assert answer.status_code == 200
            assert 1 <= answer.json()["usage"]["completion_tokens"] <= 20
