"""The page of an attribution graph, clicked through."""

from __future__ import annotations

import base64
import copy
import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bitlens.interp import Graph, trace
from bitlens.interp.pages import graph_page
from support.browser import DESK, PHONE, Browser
from support.command_line import command_runner
from support.graph_json import random_graph
from support.random_models import byte_tokenizer, random_model
from support.random_transcoders import random_set

GRAPH = random_graph()
FEATURE = next(node for node in GRAPH["nodes"] if node["node_id"].startswith("2_"))


@pytest.fixture
def clicked(opened: Any) -> Callable[..., Browser]:
    def open_graph(*graphs: Any, **options: Any) -> Browser:
        browser: Browser = opened(graph_page(*graphs), **options)
        browser.wait("document.querySelector('canvas')?.dataset.milliseconds")
        return browser

    return open_graph


def _choose(browser: Browser, node: dict[str, Any]) -> None:
    browser.type("input[type=search]", node["node_id"])
    browser.wait("document.querySelectorAll('.side .list .entry').length === 1")
    browser.click(".side .list .entry")
    browser.wait("document.querySelector('.side .facts')")


def _downloaded(browser: Browser, button: str) -> bytes:
    """What a button saves, caught where the page hands it to the browser."""
    browser.run(
        "window.caught = new Promise(resolve => { const make = URL.createObjectURL; "
        "URL.createObjectURL = blob => { blob.arrayBuffer().then(b => resolve(btoa("
        "new Uint8Array(b).reduce((s, x) => s + String.fromCharCode(x), '')))); "
        "return make.call(URL, blob); }; }), 0"
    )
    n = browser.run(
        "[...document.querySelectorAll('.button')].findIndex(b => "
        f"b.textContent === {json.dumps(button)})"
    )
    browser.click(".button", n)
    return base64.b64decode(browser.run("window.caught"))


def test_a_node_shows_its_edges_and_leads_on(clicked: Callable[..., Browser]) -> None:
    browser = clicked(GRAPH)
    _choose(browser, FEATURE)
    into = sorted(
        (link for link in GRAPH["links"] if link["target"] == FEATURE["node_id"]),
        key=lambda link: -abs(link["weight"]),
    )
    n_in, n_out = browser.run(
        "[...document.querySelectorAll('.side h3')].slice(0, 2).map(e => "
        "parseInt(e.textContent.match(/[0-9]+/)))"
    )
    assert n_in == len(into)
    assert n_out == sum(link["source"] == FEATURE["node_id"] for link in GRAPH["links"])
    browser.click(".side .list .entry")
    browser.wait(
        "[...document.querySelectorAll('.side dd')].at(-1).textContent === "
        + json.dumps(into[0]["source"])
    )


def test_pins_groups_and_labels_are_saved_with_the_graph(clicked: Callable[..., Browser]) -> None:
    browser = clicked(GRAPH)
    _choose(browser, FEATURE)
    browser.type(".side input[aria-label='Label of the node']", "a state")
    browser.press("Tab")
    browser.click(".side .button[aria-pressed]")
    browser.type(".side input[aria-label='Name of the group']", "Texas")
    browser.press("Enter")
    browser.wait("document.querySelector('.chip')?.textContent.includes('Texas (1)')")
    found = json.loads(_downloaded(browser, "JSON"))
    expected = copy.deepcopy(GRAPH)
    name = FEATURE["node_id"]
    next(node for node in expected["nodes"] if node["node_id"] == name)["clerp"] = "a state"
    expected["qParams"] |= {
        "pinnedIds": [name], "supernodes": [["Texas", name]], "clickedId": name,
    }  # fmt: skip
    assert found == expected
    # What was saved opens as it was left.
    browser = clicked(found)
    browser.wait("document.querySelector('.chip')?.textContent.includes('Texas (1)')")
    assert browser.run("document.querySelector('.side .facts + *, .side input').value") == "a state"
    browser.click(".chip button")
    browser.wait("!document.querySelector('.chip')")


def test_a_traced_graph_is_drawn_and_read_again(
    clicked: Callable[..., Browser], tmp_path: Path
) -> None:
    model = random_model("llama", tokenizer=byte_tokenizer())
    tokens = torch.tensor([[7, 3, 1, 4]])
    graph = trace(model, tokens, random_set(model), desired_logit_prob=1.0).prune()
    browser = clicked(graph)
    browser.click(".side .list .entry")
    browser.wait("document.querySelector('.side .button[aria-pressed]')")
    browser.click(".side .button[aria-pressed]")
    browser.wait("document.querySelector('.side .button[aria-pressed=true]')")
    path = tmp_path / "graph.json"
    path.write_bytes(_downloaded(browser, "JSON"))
    again = Graph.load(path)
    assert [node.id for node in again.nodes] == [node.id for node in graph.nodes]
    assert torch.equal(again.weights, graph.weights)
    assert len(json.loads(path.read_text())["qParams"]["pinnedIds"]) == 1


def test_filters_leave_what_they_say(clicked: Callable[..., Browser]) -> None:
    browser = clicked(GRAPH)

    def shown() -> int:
        found: int = browser.run("parseInt(document.querySelector('.side h2').textContent)")
        return found

    assert shown() == len(GRAPH["nodes"])
    before = shown()
    browser.click("[aria-label=Filter] .button", 1)
    errors = sum(node["feature_type"].endswith("error") for node in GRAPH["nodes"])
    browser.wait(f"parseInt(document.querySelector('.side h2').textContent) !== {before}")
    assert shown() == len(GRAPH["nodes"]) - errors
    browser.click("[aria-label=Filter] .button", 4)
    browser.wait("parseInt(document.querySelector('.side h2').textContent) === 0")


def test_the_mouse_and_the_keys_go_from_node_to_node(clicked: Callable[..., Browser]) -> None:
    browser = clicked(GRAPH)
    browser.run("document.querySelector('canvas').focus()")
    browser.press("ArrowUp")
    browser.wait("document.querySelector('.side .facts')")
    first = browser.run("[...document.querySelectorAll('.side dd')].at(-1).textContent")
    browser.press("ArrowDown")
    browser.wait(
        f"[...document.querySelectorAll('.side dd')].at(-1).textContent !== {json.dumps(first)}"
    )
    said = browser.run("document.querySelector('.side [role=status]').textContent")
    assert " in, " in said
    browser.press("Enter")
    browser.wait("document.querySelector('.side .button[aria-pressed=true]')")
    browser.press("Escape")
    browser.wait("!document.querySelector('.side .facts')")
    # Over an output the mouse finds its name, and a click its page.
    at = browser.run(
        """(() => {
          const canvas = document.querySelector('canvas'), r = canvas.getBoundingClientRect();
          for (let y = r.top; y < r.bottom; y += 6) for (let x = r.left; x < r.right; x += 6) {
            const clientX = x, clientY = y, bubbles = true;
            canvas.dispatchEvent(new MouseEvent('mousemove', {clientX, clientY, bubbles}));
            if (canvas.title.startsWith('Output')) return [x, y];
          }
        })()"""
    )
    browser.click_at(*at)
    browser.wait("document.querySelector('.side h2').textContent.startsWith('output')")


def test_two_graphs_are_compared(clicked: Callable[..., Browser]) -> None:
    other = random_graph(seed=1)
    browser = clicked(GRAPH, other)
    assert browser.run("document.querySelectorAll('canvas').length") == 2
    ids, others = ({node["node_id"] for node in graph["nodes"]} for graph in (GRAPH, other))
    text = browser.run("document.querySelector('.page').lastElementChild.textContent")
    assert f"{len(ids - others)} nodes of random-0 alone" in text
    assert f"{len(others - ids)} of random-1 alone" in text
    # What one shows, the other does: they are moved together.
    browser.run(
        "document.querySelector('canvas').dispatchEvent(new WheelEvent('wheel', "
        "{deltaY: -60, clientX: 300, clientY: 400, bubbles: true, cancelable: true}))"
    )
    browser.wait(
        "(([a, b]) => a.__zoom.k === b.__zoom.k && a.__zoom.x === b.__zoom.x)"
        "(document.querySelectorAll('canvas'))"
    )


def test_pictures_are_saved(clicked: Callable[..., Browser]) -> None:
    browser = clicked(GRAPH)
    svg = _downloaded(browser, "SVG").decode()
    root = ElementTree.fromstring(svg)
    words = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert "layer 2" in words
    assert svg.count("<path") >= 5
    png = _downloaded(browser, "PNG")
    assert png.startswith(b"\x89PNG")
    assert not browser.complaints()
    assert not browser.requests()


def test_4000_nodes_are_drawn_and_moved(clicked: Callable[..., Browser]) -> None:
    """In a second from the page's start, and thirty times in another; of the processor's time,
    since other tests may run beside."""
    tokens = tuple(f" t{i}" for i in range(10))
    graph = random_graph(3780, 24, tokens)
    assert len(graph["nodes"]) >= 4000
    browser = clicked(graph)
    assert 0 < browser.busy() < 1
    before = browser.busy()
    browser.run(
        """(async () => {
          const canvas = document.querySelector('canvas');
          for (let i = 0; i < 30; i++) {
            const frames = canvas.dataset.frames;
            canvas.dispatchEvent(new WheelEvent('wheel', {deltaY: i % 2 ? 60 : -60, clientX: 400,
              clientY: 400, bubbles: true, cancelable: true}));
            while (canvas.dataset.frames === frames) await new Promise(requestAnimationFrame);
          }
        })()""",
        seconds=300,
    )
    assert 0 < browser.busy() - before < 1


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE])
def test_it_lays_out(clicked: Callable[..., Browser], size: tuple[int, int], theme: str) -> None:
    browser = clicked(GRAPH, random_graph(seed=1), size=size, theme=theme)
    assert browser.too_wide() == []
    assert browser.names() == []
    assert browser.complaints() == []


def test_hostile_text_runs_nothing(clicked: Callable[..., Browser]) -> None:
    hostile = "</script><img src=x onerror=document.title='run'>"
    graph = json.loads(json.dumps(GRAPH).replace('"A"', json.dumps(hostile)))
    graph["metadata"] |= {"prompt": hostile, "slug": hostile}
    for node in graph["nodes"]:
        node["clerp"] = hostile
    browser = clicked(graph)
    browser.click(".side .list .entry")
    browser.wait("document.querySelector('.side .facts')")
    assert browser.run("document.querySelectorAll('main img').length") == 0
    assert browser.run("document.title") != "run"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g.pop("nodes"), "no 'nodes'"),
        (lambda g: g["nodes"][0].pop("layer"), "no 'layer'"),
        (lambda g: g["nodes"][0].update(ctx_idx=3), "position 3 of 3 tokens"),
        (lambda g: g["nodes"][0].update(layer="x"), "invalid literal"),
        (lambda g: g["links"][0].update(source="nowhere"), "a link to 'nowhere'"),
        (lambda g: g["nodes"][0].update(node_id=g["nodes"][1]["node_id"]), "two nodes of one"),
    ],
)
def test_what_is_no_graph_is_refused(change: Callable[[Any], Any], message: str) -> None:
    graph = copy.deepcopy(GRAPH)
    change(graph)
    with pytest.raises(ValueError, match=message):
        graph_page(graph)


def test_the_command_writes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, output = tmp_path / "graph.json", tmp_path / "graph.html"
    path.write_text(json.dumps(GRAPH))
    run = command_runner(capsys, monkeypatch, "explore")
    code, out, _ = run("--graph", path, "--graph", path, "--html", output)
    assert code == 0
    assert str(output) in out
    assert output.exists()
    path.write_text("{")
    code, _, err = run("--graph", path, "--html", output)
    assert code == 2
    assert "no JSON" in err
