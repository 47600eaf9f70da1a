"""Draws pictures into docs/images: `make images`, which has benchmarks draw the others.

Runs SmolLM2 on a text and clicks through the pages in Chromium, as the tests do.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import bitlens
from bitlens.audit import Plan, render, run_audit
from bitlens.audit.postmortem import run_postmortem, shipped_prompts
from bitlens.audit.postmortem.plot import plot
from bitlens.interp import explore, feature_page, graph_page, load_dictionary, show
from bitlens.interp.pages import Page
from support.browser import DESK, PHONE, Browser, Theme, chromium
from support.graph_json import random_graph

IMAGES = Path(__file__).resolve().parent / "images"
MODEL = "smollm2-135m-instruct"
SAE = "smollm2-135m-instruct/blocks.15.hook_resid_post"
PROMPT = "The Eiffel Tower stands in the city of Paris, which is the capital of France."
N_TOKENS = 10_000


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
        _graph(browser, graph_page(_graph_json()).save(at / "graph.html"))
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


def _graph(browser: Browser, path: Path) -> None:
    browser.open(path.as_uri(), DESK, "dark")
    browser.wait("document.querySelector('canvas')?.dataset.milliseconds")
    browser.wait("document.querySelector('.side .facts')")
    browser.picture(IMAGES / "graph_page.png")


def _graph_json() -> dict[str, object]:
    """A graph drawn by chance, with pins and a group as a user would leave them."""
    tokens = ("The", " capital", " of", " the", " state", " containing", " Dallas", " is")
    graph = random_graph(220, 18, tokens)
    here = [node["node_id"] for node in graph["nodes"] if node["ctx_idx"] == 6]
    pinned = [name for name in here if "_error_" not in name]
    output = graph["nodes"][-2]["node_id"]
    graph["metadata"]["slug"] = "example"
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
