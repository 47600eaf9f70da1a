"""The page as a widget: Python's side, and the script's with a model like Jupyter's."""

from __future__ import annotations

import base64
import contextvars
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from bitlens.interp import Edit, splice
from bitlens.interp.dictionaries import Dictionary
from bitlens.interp.pages.explore import explored
from bitlens.interp.pages.page import SCRIPT, STYLE, bundle
from bitlens.interp.pages.widget import PageWidget
from bitlens.model.transformer import HookedTransformer
from support.browser import Browser
from support.training_runs import HOOK

PROMPT = "the cat sat on"


class _Asked:
    """A widget whose messages are kept."""

    def __init__(self, widget: PageWidget, monkeypatch: pytest.MonkeyPatch) -> None:
        self.widget = widget
        self.sent: list[dict[str, Any]] = []
        self.ended = threading.Event()
        monkeypatch.setattr(widget, "send", self._keep)

    def _keep(self, event: dict[str, Any]) -> None:
        self.sent.append(event)
        if event["kind"] in ("end", "error"):
            self.ended.set()

    def __call__(self, **request: Any) -> list[dict[str, Any]]:
        self.sent.clear()
        self.ended.clear()
        self.widget._handle_custom_msg({**request, "id": 1}, [])
        assert self.ended.wait(60)
        return list(self.sent)


@pytest.fixture
def asked(
    model: HookedTransformer,
    dictionaries: Mapping[str, Dictionary],
    monkeypatch: pytest.MonkeyPatch,
) -> _Asked:
    return _Asked(PageWidget(*explored(model, PROMPT, dictionaries)), monkeypatch)


def test_the_kernel_steers_as_python_does(
    asked: _Asked, model: HookedTransformer, dictionaries: Mapping[str, Dictionary]
) -> None:
    edit = {"feature": 3, "op": "set", "value": 25.0, "hook_name": HOOK}
    options: dict[str, Any] = {"max_new_tokens": 6, "temperature": 0.0, "seed": 0}
    events = asked(kind="steer", prompt=PROMPT, edits=[edit], **options)
    assert {event["id"] for event in events} == {1}
    done = {event["which"]: event["tokens"] for event in events if event["kind"] == "done"}
    with splice(model, list(dictionaries.values()), edits=[Edit(3, "set", 25.0, hook_name=HOOK)]):
        expected = model.generate(PROMPT, **options)
    assert done["steered"] == expected.tokens[0, -6:].tolist()
    text = "".join(e["text"] for e in events if e["kind"] == "text" and e["which"] == "steered")
    assert text == expected.text[0]


def test_answers_keep_the_context_of_their_question(
    asked: _Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jupyter's kernel looks up there what an answer belongs to; without it, nothing is sent."""
    parent: contextvars.ContextVar[str] = contextvars.ContextVar("parent")
    found: list[str] = []
    keep = asked.widget.send

    def send(event: dict[str, Any]) -> None:
        found.append(parent.get("none"))
        keep(event)

    monkeypatch.setattr(asked.widget, "send", send)
    parent.set("a cell")
    asked(kind="card", dictionary=0, feature=1)
    assert found == ["a cell", "a cell"]


def test_what_is_wrong_is_told_and_what_is_stopped_ends(asked: _Asked) -> None:
    assert "expected one of" in asked(kind="other")[-1]["message"]
    asked.widget._handle_custom_msg({"kind": "stop", "id": 1}, [])
    asked.sent.clear()
    asked.widget._answer({"kind": "card", "dictionary": 0, "feature": 1, "id": 1})
    assert asked.sent == []


def test_the_script_draws_in_a_notebook(asked: _Asked, browser: Browser, tmp_path: Path) -> None:
    """As anywidget runs it: imported as a module, given a model with get, on, off and send."""
    page = tmp_path / "notebook.html"
    page.write_text("<!doctype html><body data-jp-theme-light='false'><div id=cell></div></body>")
    browser.open(page.as_uri())
    state = {
        "data": asked.widget.data,
        "shards": asked.widget.shards,
        "style": bundle(STYLE),
    }
    source = base64.b64encode(bundle(SCRIPT).encode()).decode()
    browser.run(
        f"""(async () => {{
          const bytes = Uint8Array.from(atob('{source}'), c => c.charCodeAt(0));
          const url = URL.createObjectURL(new Blob([bytes], {{type: 'text/javascript'}}));
          const state = {json.dumps(state)};
          const heard = [];
          window.sent = [];
          const model = {{
            get: name => state[name],
            on: (_, f) => heard.push(f),
            off: (_, f) => heard.splice(heard.indexOf(f), 1),
            send(message) {{
              sent.push(message);
              const card = {{id: message.feature, promoted: [], suppressed: [], examples: []}};
              const answer = {{kind: 'card', card, id: message.id}};
              setTimeout(() => [answer, {{kind: 'end', id: message.id}}].forEach(
                event => [...heard].forEach(f => f(event))));
            }},
          }};
          const el = document.getElementById('cell');
          window.leave = (await import(url)).default.render({{model, el}});
        }})()"""
    )
    browser.wait("document.querySelector('.card h2')")
    colour = "getComputedStyle(document.querySelector('.bitlens')).backgroundColor"
    assert browser.run(colour) == "rgb(15, 18, 23)", "the notebook's dark theme is not followed"
    browser.run("document.body.dataset.jpThemeLight = 'true'")
    browser.wait(f"{colour} === 'rgb(246, 247, 249)'")
    browser.click(".card .button")
    browser.wait("document.querySelector('.steering .main')")
    browser.click(".steering .main")
    assert browser.wait("sent.find(m => m.kind === 'steer')?.prompt") == PROMPT
    browser.run("leave()")
    browser.wait("!document.querySelector('.page')")
