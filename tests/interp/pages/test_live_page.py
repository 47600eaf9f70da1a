"""A live page: served to who has its address, and writing what Python writes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from bitlens.interp import Edit, explore, splice
from bitlens.interp.dictionaries import Dictionary
from bitlens.interp.pages import Page, graph_page
from bitlens.interp.pages.explore import explored
from bitlens.interp.pages.live import LiveGraph, LivePrompt
from bitlens.interp.pages.server import PageServer
from bitlens.model.transformer import HookedTransformer
from support.browser import Browser
from support.graph_json import random_graph
from support.training_runs import HOOK

PROMPT = "the cat sat on"


@pytest.fixture(scope="module")
def live(
    model: HookedTransformer, dictionaries: Mapping[str, Dictionary]
) -> tuple[Page, LivePrompt]:
    return explored(model, PROMPT, dictionaries)


def _served(server: PageServer) -> Iterator[PageServer]:
    thread = threading.Thread(target=server.run)
    thread.start()
    yield server
    server.close()
    thread.join()


@pytest.fixture
def server(live: tuple[Page, LivePrompt]) -> Iterator[PageServer]:
    yield from _served(PageServer(*live))


def _ask(url: str, **headers: str) -> int:
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_only_who_has_the_address_is_answered(server: PageServer) -> None:
    assert server.url.startswith("http://127.0.0.1:")
    bare, _, token = server.url.partition("?token=")
    assert _ask(server.url) == 200
    assert _ask(bare) == 403
    assert _ask(f"{bare}?token={token[:-1]}") == 403
    assert _ask(server.url, Host=f"evil.example:{server.port}") == 403
    assert _ask(server.url.replace("/?", "/other?")) == 404


def _post(server: PageServer, body: bytes, **headers: str) -> tuple[int, list[Any]]:
    bare, _, token = server.url.partition("?token=")
    headers = {"X-Bitlens-Token": token, **headers}
    request = urllib.request.Request(f"{bare}ask", body, headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, [json.loads(line) for line in answer]
    except urllib.error.HTTPError as error:
        return error.code, []


def test_questions_need_the_token_and_sense(server: PageServer) -> None:
    card = json.dumps({"kind": "card", "dictionary": 1, "feature": 5}).encode()
    status, events = _post(server, card)
    assert status == 200
    assert events[0]["card"]["id"] == 5
    assert _post(server, card, **{"X-Bitlens-Token": "another"})[0] == 403
    assert _post(server, b"[1]")[0] == 400
    for question, message in (
        ({"kind": "card", "dictionary": 0, "feature": 48}, "feature 48 of 48"),
        ({"kind": "other"}, "expected one of"),
        ({"kind": "prompt", "prompt": ""}, "prompt is empty"),
    ):
        status, events = _post(server, json.dumps(question).encode())
        assert status == 200
        assert message in events[-1]["message"]


@pytest.mark.parametrize(("op", "temperature"), [("set", 0.0), ("scale", 1.5), ("ablate", 0.0)])
def test_what_is_steered_is_what_python_writes(
    server: PageServer,
    browser: Browser,
    model: HookedTransformer,
    dictionaries: Mapping[str, Dictionary],
    op: str,
    temperature: float,
) -> None:
    """Token for token, beside the same without edits."""
    browser.open(server.url)
    browser.wait("document.querySelector('.card:not([aria-busy])')")
    feature = browser.run("parseInt(document.querySelector('.card h2').textContent.slice(8))")
    browser.click(".card .button")
    browser.wait("document.querySelector('.steering .edit')")
    choose = (
        "(() => {{ const s = document.querySelector('.steering select'); s.value = '{}'; "
        "s.dispatchEvent(new Event('change', {{bubbles: true}})); }})()"
    )
    browser.run(choose.format(op))
    value = None
    if op != "ablate":
        value = 25.0
        browser.wait("document.querySelector('.steering .edit input[type=number]')")
        browser.type(".steering .edit input[type=number]", "25")
    fields = browser.run("document.querySelectorAll('.steering label input').length")
    assert fields == 3
    for label, text in ((0, "8"), (1, str(temperature)), (2, "3")):
        browser.run(
            f"(() => {{ const f = document.querySelectorAll('.steering label input')[{label}]; "
            f"f.value = '{text}'; f.dispatchEvent(new Event('input', {{bubbles: true}})); }})()"
        )
    browser.click(".steering .main")
    found = json.loads(
        browser.wait(
            "(d => d && JSON.parse(d).steered && d)"
            "(document.querySelector('[data-tokens]')?.dataset.tokens)"
        )
    )
    options: dict[str, Any] = {"max_new_tokens": 8, "temperature": temperature, "seed": 3}
    n_prompt = model.to_tokens(PROMPT).shape[1]
    plain = model.generate(PROMPT, **options)
    edit = Edit(feature, op, value, hook_name=HOOK)  # type: ignore[arg-type]
    with splice(model, list(dictionaries.values()), edits=[edit]):
        steered = model.generate(PROMPT, **options)
    assert found["plain"] == plain.tokens[0, n_prompt:].tolist()
    assert found["steered"] == steered.tokens[0, n_prompt:].tolist()
    if op == "set":
        assert found["plain"] != found["steered"], "the edit changed nothing: a weak test"
    shown = browser.run("document.querySelector('.said.steered').textContent")
    assert shown == steered.text[0]
    assert all(url.startswith(server.url.partition("?")[0]) for url in browser.requests())
    assert browser.complaints() == []


def test_another_prompt_is_asked(server: PageServer, browser: Browser) -> None:
    browser.open(server.url)
    browser.wait("document.querySelector('form textarea')")
    browser.type("form textarea", "a dog ran")
    browser.click("form .main")
    browser.wait("document.querySelector('h1').textContent === 'a dog ran'")
    browser.wait("document.querySelectorAll('.strip button').length")
    browser.click(".strip button", 3)
    browser.wait("document.querySelector('.card .logits')")
    browser.type("form textarea", "")
    browser.click("form .main")
    assert "empty" in browser.wait("document.querySelector('[role=alert]')?.textContent")


def test_a_graph_is_saved_in_its_file(tmp_path: Path, browser: Browser) -> None:
    path = tmp_path / "graph.json"
    path.write_text(json.dumps(random_graph()))
    for server in _served(PageServer(graph_page(path), LiveGraph(path))):
        browser.open(server.url)
        browser.wait("document.querySelector('.side .list .entry')")
        browser.click(".side .list .entry")
        browser.wait("document.querySelector('.side .button[aria-pressed]')")
        browser.click(".side .button[aria-pressed]")
        browser.click(".button.main")
        browser.wait("[...document.querySelectorAll('[role=status]')].at(-1).textContent")
    assert len(json.loads(path.read_text())["qParams"]["pinnedIds"]) == 1


def test_the_command_serves_until_it_is_interrupted(
    model_folder: Path, dictionaries: Mapping[str, Dictionary], tmp_path: Path
) -> None:
    dictionaries[HOOK].save_model(tmp_path / "sae")
    command = [sys.executable, "-m", "bitlens", "explore", PROMPT, "--no-open"]
    command += ["--model", str(model_folder), "--dictionary", str(tmp_path / "sae")]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
        # A test run in the background ignores Ctrl-C, and hands that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    try:
        assert _ask(url) == 200
    finally:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err


def test_without_a_notebook_it_is_a_page(
    model: HookedTransformer, dictionaries: Mapping[str, Dictionary]
) -> None:
    found = explore(model, PROMPT, list(dictionaries.values()))
    assert isinstance(found, Page)
    assert "load_dictionary" in found.data["setup"]
    with pytest.raises(ValueError, match="brings no dictionary for toy"):
        explore(model, PROMPT)
