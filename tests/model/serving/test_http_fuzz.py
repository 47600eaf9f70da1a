"""Requests drawn from the server's own OpenAPI schema, whole and damaged: never a 5xx."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from bitlens.model.serving import Engine
from bitlens.model.serving.http import Service, create_app
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.from_schema import Bodies, damaged
from support.http_server import TEMPLATE
from support.random_models import byte_tokenizer, random_model

KNOWN = {
    "model": st.sampled_from(["tiny"] * 9 + ["other"]),
    "pool_fingerprint": st.sampled_from([None] * 9 + ["bl_0"]),
    "n": st.integers(1, 3),
}
"""What a random value would only ever be refused for, or answered slowly."""

JSON = {"content-type": "application/json"}
STATUSES = {200, 400, 404, 413, 421, 429}


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    offered = "{% if tools %}<tool_call>{{ tools | tojson }}{% endif %}"
    model = random_model(
        "llama", tokenizer=byte_tokenizer(offered + TEMPLATE), changes={"n_ctx": 192}
    )
    app = create_app(Service(Engine(model), "tiny", timeout=60))
    options: dict[str, Any] = {"base_url": "http://127.0.0.1", "raise_server_exceptions": False}
    with TestClient(app, **options) as made:
        yield made


PATHS = ["/v1/completions", "/v1/chat/completions", "/v1/messages", "/v1/messages/count_tokens"]


@pytest.mark.parametrize("path", PATHS)
def test_no_body_is_a_fault_of_the_server(client: TestClient, path: str) -> None:
    api = client.app.openapi()  # type: ignore[attr-defined]
    content = api["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    whole = Bodies(api, KNOWN).of(content["schema"])
    seen: Counter[int] = Counter()

    @settings(suppress_health_check=list(HealthCheck))
    @given(whole | damaged(whole))
    def ask(body: Any) -> None:
        sent = {"content": json.dumps(body).encode(), "headers": JSON}
        answer = client.post(path, **sent)
        assert answer.status_code in STATUSES, (answer.status_code, answer.text, body)
        if answer.status_code != 200:
            assert answer.json()["error"]["message"]
        seen[answer.status_code] += 1

    ask()
    # Neither all refused nor all taken; and what comes next is served.
    assert seen[200] >= 1
    assert seen[400] >= 1
    asked = {"model": "tiny", "prompt": "a", "max_tokens": 2}
    assert client.post("/v1/completions", json=asked).status_code == 200
