"""Draws pictures into docs/images: `make images`, which has benchmarks draw the others.

Runs SmolLM2 on a text and clicks through the pages in Chromium, as the tests do.
"""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

import bitlens
from bitlens.audit import Plan, render, run_audit
from bitlens.audit.postmortem import run_postmortem, shipped_prompts
from bitlens.audit.postmortem.plot import plot
from bitlens.interp import explore, feature_page, graph_page, load_dictionary, show
from bitlens.interp.dictionaries import Dictionary
from bitlens.interp.pages import Page
from bitlens.interp.pages.explore import explored
from bitlens.interp.pages.server import PageServer
from support.browser import DESK, PHONE, Browser, Theme, chromium
from support.graph_json import random_graph

IMAGES = Path(__file__).resolve().parent / "images"
MODEL = "smollm2-135m-instruct"
SAE = "smollm2-135m-instruct/blocks.15.hook_resid_post"
PROMPT = "The Eiffel Tower stands in the city of Paris, which is the capital of France."
N_TOKENS = 10_000
TOKENS = ("The", " capital", " of", " the", " state", " containing", " Dallas", " is")


def main() -> None:
    model = bitlens.load(MODEL)
    bf16 = bitlens.load(MODEL, dtype="bf16")
    sae = load_dictionary(SAE, model=model)
    prompt = explore(model, PROMPT, sae, against=bf16)
    assert isinstance(prompt, Page)
    with chromium() as browser, tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        _prompt(browser, prompt.save(at / "prompt.html"), "prompt_page.png", DESK, "light")
        _prompt(browser, prompt.save(at / "prompt.html"), "prompt_page_phone.png", PHONE, "dark")
        _steering(browser, model, sae)
        _graph(browser, graph_page(_graph_json()).save(at / "graph.html"), "graph_page.png", "dark")
        both = _graph_json(60, 8, seed=1), _graph_json(60, 8, seed=2)
        _graph(browser, graph_page(*both).save(at / "two.html"), "graphs_compared.png", "light")
        _drawings(browser, model, at)
        features = feature_page(model, sae, n_tokens=N_TOKENS)
        _features(browser, features.save(at / "features.html"))
        _audit(browser, at / "report.html")
    rates = run_postmortem(model, shipped_prompts()[:300], (1, 2, 4, 8))
    plot(rates, IMAGES / "postmortem.png", f"{MODEL}, 300 prompts")


def _audit(browser: Browser, path: Path) -> None:
    result = run_audit(MODEL, plan=Plan(tokens=64, checked=4))
    path.write_text(render(result, f"bitlens audit {MODEL} --tokens 64 --checked 4"), "utf-8")
    browser.open(path.as_uri(), (1280, 1800))
    browser.picture(IMAGES / "audit.png")


def _prompt(browser: Browser, path: Path, name: str, size: tuple[int, int], theme: Theme) -> None:
    browser.open(path.as_uri(), size, theme)
    browser.wait("document.querySelector('.card .example')")
    browser.picture(IMAGES / name)


def _features(browser: Browser, path: Path) -> None:
    browser.open(path.as_uri(), DESK)
    browser.wait("document.querySelector('.hits .entry')")
    browser.type("input[type=search]", "football")
    browser.wait("document.querySelector('[role=status]').textContent.includes('features')")
    browser.wait("document.querySelector('.card .example')")
    browser.run("document.activeElement.blur()")
    browser.picture(IMAGES / "feature_page.png")


def _steering(browser: Browser, model: bitlens.model.HookedTransformer, sae: Dictionary) -> None:
    """A feature of teams and sport, held at 120, beside what is written without it."""
    server = PageServer(*explored(model, "I like the football team because", sae))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        browser.open(server.url, (1280, 620))
        browser.wait("document.querySelector('.card:not([aria-busy])')")
        browser.run(
            "[...document.querySelectorAll('.entry')].find(e => /^582/.test(e.textContent)).click()"
        )
        browser.wait("document.querySelector('.card h2').textContent.includes('582')")
        browser.click(".card .button")
        browser.wait("document.querySelector('.steering .edit input[type=number]')")
        browser.type(".steering .edit input[type=number]", "120")
        browser.click(".steering .main")
        browser.wait("document.querySelector('[data-tokens]')?.dataset.tokens.includes('steered')")
        browser.run("document.activeElement.blur()")
        browser.run("document.querySelector('.steering').scrollIntoView({block: 'start'})")
        browser.picture(IMAGES / "steering.png")
    finally:
        server.close()
        thread.join()


def _graph(browser: Browser, path: Path, name: str, theme: Theme) -> None:
    browser.open(path.as_uri(), DESK, theme)
    browser.wait("document.querySelector('canvas')?.dataset.milliseconds")
    browser.wait("document.querySelector('.side .facts')")
    browser.picture(IMAGES / name)


def _graph_json(n_features: int = 220, n_layers: int = 18, seed: int = 0) -> dict[str, object]:
    """A graph drawn by chance, with pins and a group as a user would leave them."""
    graph = random_graph(n_features, n_layers, TOKENS, seed)
    here = [node["node_id"] for node in graph["nodes"] if node["ctx_idx"] == 6]
    pinned = [name for name in here if "_error_" not in name]
    output = graph["nodes"][-2]["node_id"]
    graph["metadata"]["slug"] = f"example-{seed}"
    graph["qParams"] |= {
        "pinnedIds": pinned[2:7],
        "supernodes": [["a group", *pinned[3:5]]],
        "clickedId": output,
    }
    return graph


def _drawings(browser: Browser, model: bitlens.model.HookedTransformer, folder: Path) -> None:
    prompt = "Paris is the capital of"
    _, cache = model.run_with_cache(prompt)
    tokens = model.to_str_tokens(prompt)
    drawn = [
        show.pattern(cache["pattern", 20], tokens, title="Attention in layer 20"),
        show.logit_lens(model, prompt, every=4),
        show.attribution(model, prompt, " France", " Italy"),
    ]
    page = folder / "drawings.html"
    body = "".join(f'<div style="margin-bottom: 28px">{d._repr_html_()}</div>' for d in drawn)
    page.write_text(f'<meta charset="utf-8"><body style="margin: 24px">{body}', "utf-8")
    browser.open(page.as_uri(), (900, 1350))
    browser.picture(IMAGES / "drawings.png")


if __name__ == "__main__":
    main()
