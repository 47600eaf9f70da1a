"""Two pools behind one address, as clients meet them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from bitlens.model.serving import long_context
from support.http_server import TEMPLATE, Server, serving
from support.random_models import byte_tokenizer, random_model


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    model = random_model("llama", tokenizer=byte_tokenizer(TEMPLATE))
    yield from serving({"short": model, "long": long_context(model, 512)})


def turn(n: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": "a" * n}]


def ask(server: Server, path: str, n: int, **options: Any) -> httpx.Response:
    body = {"model": "tiny", "messages": turn(n), "max_tokens": 3, **options}
    return server.post(path, body)


PATHS = ["/v1/chat/completions", "/v1/messages"]


@pytest.mark.parametrize("path", PATHS)
def test_answers_say_which_pool_they_are_of(server: Server, path: str) -> None:
    short, long = httpx.get(f"{server.url}/v1/pools").json()["data"]
    assert (short["name"], short["context"], long["name"], long["context"]) == (
        "short", 128, "long", 512,
    )  # fmt: skip
    for n, pool in ((20, short), (200, long)):
        fingerprint = pool["pool_fingerprint"]
        answer = ask(server, path, n).json()
        assert answer["system_fingerprint"] == fingerprint
        assert ask(server, path, n, pool_fingerprint=fingerprint).json().keys() == answer.keys()
    named = ask(server, path, 20, pool_fingerprint=long["pool_fingerprint"])
    assert named.json()["system_fingerprint"] == long["pool_fingerprint"]
    assert ask(server, path, 200, pool_fingerprint=short["pool_fingerprint"]).status_code == 400
    refused = ask(server, path, 20, pool_fingerprint="bl_0")
    assert refused.status_code == 421
    assert "short" in refused.json()["error"]["message"]


@pytest.mark.parametrize("path", PATHS)
def test_conversations_stay_where_they_are(server: Server, path: str) -> None:
    short, long = (pool.fingerprint for pool in server.service.router.pools)
    before = server.service.router.n_moved
    for n, pool in ((20, short), (200, long), (20, long)):
        answer = ask(server, path, n, conversation=path).json()
        assert answer["system_fingerprint"] == pool
    assert ask(server, path, 20, conversation="other").json()["system_fingerprint"] == short
    assert server.service.router.n_moved == before + 1


def test_an_answer_without_a_length_ends_with_its_pool(server: Server) -> None:
    asked = {"model": "tiny", "messages": turn(20), "logit_bias": {"257": -100}}
    usage = server.post("/v1/chat/completions", asked).json()["usage"]
    assert usage["total_tokens"] == 128


def test_metrics_by_pool(server: Server) -> None:
    assert ask(server, PATHS[0], 200).status_code == 200
    metrics = httpx.get(f"{server.url}/metrics").text
    assert 'bitlens_pool_requests_refused_total{pool="long"} 0.0' in metrics
    taken = [line for line in metrics.splitlines() if "taken_total{" in line]
    assert [line.split()[0].partition("{")[2] for line in taken] == [
        'pool="short"}', 'pool="long"}',
    ]  # fmt: skip
    assert float(taken[1].split()[1]) > 0
