"""The widget in JupyterLab and in the notebook of version 7, clicked through in a browser."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from bitlens.interp import Edit, splice
from bitlens.interp.dictionaries import Dictionary
from bitlens.model.transformer import HookedTransformer
from support.browser import Browser
from support.jupyter import TOKEN, notebook, served
from support.training_runs import HOOK

pytest.importorskip("jupyterlab", reason="extra jupyter is not installed")
pytestmark = pytest.mark.nightly

PROMPT = "the cat sat on"
OPEN = {"lab": "lab/tree/look.ipynb", "notebook": "notebooks/look.ipynb"}
RUN_ALL = "void window.jupyterapp.commands.execute('notebook:run-all-cells')"

KERNEL = "window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel"


@pytest.fixture
def folder(model_folder: Path, dictionaries: Mapping[str, Dictionary], tmp_path: Path) -> Path:
    dictionaries[HOOK].save_model(tmp_path / "sae")
    cells = [
        "import bitlens\n"
        "from bitlens.interp import explore, load_dictionary\n"
        f"model = bitlens.load({str(model_folder)!r})\n"
        "sae = load_dictionary('sae', model=model)\n"
        f"explore(model, {PROMPT!r}, sae)"
    ]
    (tmp_path / "look.ipynb").write_text(notebook(cells))
    return tmp_path


@pytest.mark.parametrize("app", sorted(OPEN))
def test_the_widget_runs(
    app: str,
    folder: Path,
    browser: Browser,
    model: HookedTransformer,
    dictionaries: Mapping[str, Dictionary],
) -> None:
    """It draws, and steers in the kernel: token for token what Python writes here."""
    with served(app, folder) as address:
        browser.open(f"{address}{OPEN[app]}?token={TOKEN}")
        browser.wait("window.jupyterapp?.commands.hasCommand('notebook:run-all-cells')")
        browser.wait("document.querySelector('.jp-Notebook .jp-CodeCell')")
        browser.wait(f"{KERNEL}?.connectionStatus === 'connected' && {KERNEL}.status === 'idle'")
        browser.run(RUN_ALL)
        browser.wait("document.querySelector('.jp-OutputArea .bitlens .card:not([aria-busy])')")
        assert "cat" in browser.run("document.querySelector('.bitlens .strip').textContent")
        feature = browser.run("parseInt(document.querySelector('.card h2').textContent.slice(8))")
        browser.click(".bitlens .card .button")
        browser.wait("document.querySelector('.bitlens .steering .edit')")
        for label, text in enumerate(("8", "0", "3")):
            browser.run(
                f"(() => {{ const f = document.querySelectorAll('.steering label input')[{label}]; "
                f"f.value = '{text}'; f.dispatchEvent(new Event('input', {{bubbles: true}})); }})()"
            )
        value = float(browser.run("document.querySelector('.steering .edit input').value"))
        browser.click(".bitlens .steering .main")
        found = json.loads(
            browser.wait(
                "(d => d && JSON.parse(d).steered && d)"
                "(document.querySelector('[data-tokens]')?.dataset.tokens)"
            )
        )
        away = [url for url in browser.requests() if not url.startswith(address)]
        assert away == []
    n_prompt = model.to_tokens(PROMPT).shape[1]
    options: dict[str, Any] = {"max_new_tokens": 8, "temperature": 0.0}
    with splice(model, dictionaries[HOOK], edits=[Edit(feature, "set", value)]):
        steered = model.generate(PROMPT, **options)
    assert found["steered"] == steered.tokens[0, n_prompt:].tolist()
    assert found["plain"] == model.generate(PROMPT, **options).tokens[0, n_prompt:].tolist()
