"""A browser for all tests of pages, and a small model with a dictionary to look at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import bitlens
import pytest
from bitlens.interp.dictionaries import Dictionary
from bitlens.interp.examples import Examples, collect_examples
from bitlens.interp.pages import Page
from bitlens.model.transformer import HookedTransformer
from support.browser import Browser, chromium
from support.random_dictionaries import random_dictionary
from support.training_runs import HOOK, documents, speaking_model


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Fails, and does not skip, where there is none: what pages do is promised."""
    with chromium() as found:
        yield found


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages") / "toy"
    folder.mkdir()
    speaking_model(folder)
    return folder


@pytest.fixture(scope="session")
def model(model_folder: Path) -> HookedTransformer:
    return speaking_model(model_folder)


@pytest.fixture(scope="session")
def other(model_folder: Path) -> HookedTransformer:
    """The same model in bf16."""
    return bitlens.load(model_folder, dtype="bf16")


@pytest.fixture(scope="session")
def dictionaries(model: HookedTransformer) -> dict[str, Dictionary]:
    """Two layers."""
    hooks = (HOOK, "blocks.1.hook_resid_post")
    return {hook: random_dictionary(model, hook, seed=i) for i, hook in enumerate(hooks)}


@pytest.fixture(scope="session")
def examples(
    model: HookedTransformer, dictionaries: Mapping[str, Dictionary]
) -> dict[str, Examples | None]:
    return {
        hook: collect_examples(model, dictionary, documents(30), n_tokens=3000, window=12)
        for hook, dictionary in dictionaries.items()
    }


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Any:
    """A function that opens a page in the browser, as a file."""

    def open_page(page: Page, **options: Any) -> Browser:
        browser.open(page.save(tmp_path / "page.html").as_uri(), **options)
        browser.wait("document.querySelector('.page h1')")
        return browser

    return open_page
