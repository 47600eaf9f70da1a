"""The page of a prompt, clicked through."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from bitlens.interp.dictionaries import Dictionary
from bitlens.interp.examples import Examples
from bitlens.interp.lenses import JacobianLens, LogitLens, read_lens
from bitlens.interp.pages import Page, prompt_page
from bitlens.model.transformer import HookedTransformer
from support.browser import DESK, PHONE, Browser
from support.command_line import command_runner
from support.training_runs import HOOK

PROMPT = "the cat sat on a mat"
HOSTILE = (
    "</script><script>document.title='run'</script>"
    "<img src=x onerror=document.title='run'>\u2028'\""
)


@pytest.fixture(scope="module")
def page(
    model: HookedTransformer,
    other: HookedTransformer,
    dictionaries: Mapping[str, Dictionary],
    examples: Mapping[str, Examples | None],
) -> Page:
    return prompt_page(model, PROMPT, dictionaries, examples=examples, against=other)


def _features(browser: Browser) -> list[int]:
    found: list[int] = browser.run(
        "[...document.querySelectorAll('.list .entry .id')].map(e => Number(e.textContent))"
    )
    return found


def test_it_holds_what_the_dictionary_says(
    page: Page, model: HookedTransformer, dictionaries: Mapping[str, Dictionary]
) -> None:
    _, cache = model.run_with_cache(PROMPT, names_filter=HOOK)
    acts = dictionaries[HOOK].encode(cache[HOOK][0])
    shown = page.data["layers"][0]
    for position, row in enumerate(shown["features"]):
        expected = {f: a for f, a in enumerate(acts[position].tolist()) if a}
        assert dict(row) == pytest.approx(expected, abs=5e-5)
        assert [a for _, a in row] == sorted((a for _, a in row), reverse=True)
    assert page.data["tokens"] == model.to_str_tokens(PROMPT)


def test_it_says_what_the_other_policy_changes(
    page: Page,
    model: HookedTransformer,
    other: HookedTransformer,
    dictionaries: Mapping[str, Dictionary],
) -> None:
    logits, logits_b = model(PROMPT)[0], other(PROMPT)[0]
    flips = [flip["position"] for flip in page.data["against"]["flips"]]
    assert flips == (logits.argmax(-1) != logits_b.argmax(-1)).nonzero()[:, 0].tolist()
    for layer, (hook, dictionary) in zip(page.data["layers"], dictionaries.items(), strict=True):
        a, b = (
            dictionary.encode(m.run_with_cache(PROMPT, names_filter=hook)[1][hook][0]) > 0
            for m in (model, other)
        )
        for i, change in enumerate(layer["changes"]):
            if i in layer["outliers"]:
                continue
            assert change["gained"] == (b[i] & ~a[i]).nonzero()[:, 0].tolist()
            assert change["lost"] == (a[i] & ~b[i]).nonzero()[:, 0].tolist()


def test_the_logit_lens_ends_with_the_model(model: HookedTransformer) -> None:
    found = read_lens(LogitLens(model), PROMPT, n_tokens=3)
    probabilities = torch.softmax(model(PROMPT)[0], dim=-1)
    assert torch.equal(found.tokens[-1, :, 0], probabilities.argmax(-1))
    assert torch.equal(found.probabilities[-1], probabilities.topk(3).values)
    _, cache = model.run_with_cache(PROMPT, names_filter="blocks.0.hook_resid_post")
    early = model.unembed(model.ln_final(cache["blocks.0.hook_resid_post"][0]))
    assert torch.equal(found.tokens[0], torch.softmax(early, dim=-1).topk(3).indices)
    with pytest.raises(ValueError, match="one sequence, got 2"):
        read_lens(LogitLens(model), ["a cat", "a dog"])


def test_the_jacobian_lens_stands_beneath(
    model: HookedTransformer, dictionaries: Mapping[str, Dictionary]
) -> None:
    """Of an identity it is the logit lens; of another matrix it is not."""
    d = model.config.d_model
    shown = []
    for matrix in (torch.eye(d), -torch.eye(d)):
        lens = JacobianLens(model, matrix[None], {})
        page = prompt_page(model, PROMPT, dictionaries, jacobian_lens=lens)
        shown.append([each["rows"] for each in page.data["lenses"]])
    assert shown[0][0] == shown[0][1] == shown[1][0]
    assert shown[1][1][0] != shown[1][0][0]
    assert shown[1][1][1] == shown[1][0][1]


def test_a_token_shows_its_features_and_a_feature_its_page(page: Page, opened: Any) -> None:
    browser = opened(page)
    browser.wait("document.querySelectorAll('.strip button').length")
    browser.click(".strip button", 4)
    assert browser.run("document.querySelectorAll('.strip button')[4].ariaPressed") == "true"
    expected = [f for f, _ in page.data["layers"][0]["features"][4]]
    n_first = len(expected) + sum(
        len(page.data["layers"][0]["changes"][4][what]) for what in ("gained", "lost")
    )
    assert set(expected) <= set(_features(browser)[:n_first])
    browser.click(".list .entry", 1)
    feature = _features(browser)[1]
    browser.wait(
        f"document.querySelector('.card h2')?.textContent.startsWith('Feature {feature} ')"
    )
    assert browser.wait("document.querySelectorAll('.card .example').length") > 0
    peak = browser.run("getComputedStyle(document.querySelector('.example .peak')).backgroundColor")
    assert peak != "rgba(0, 0, 0, 0)"
    # The strip is coloured by this feature now: tokens without it are blank.
    first = [dict(row) for row in page.data["layers"][0]["features"]]
    silent = next(i for i, row in enumerate(first) if feature not in row)
    assert (
        browser.run(f"document.querySelectorAll('.strip button')[{silent}].style.background") == ""
    )
    assert browser.run("document.querySelectorAll('.strip button')[4].style.background")
    assert not browser.complaints()
    assert not browser.requests()


def test_labels_are_kept_on_the_page(page: Page, opened: Any) -> None:
    browser = opened(page)
    browser.wait("document.querySelector('.card .label-field')")
    browser.type(".card .label-field", "felines")
    browser.press("Tab")
    assert browser.wait("document.querySelector('.list .entry .words b')?.textContent") == "felines"


def test_edits_are_written_as_python_that_runs(
    page: Page, opened: Any, model: HookedTransformer, dictionaries: Mapping[str, Dictionary]
) -> None:
    browser = opened(page)
    browser.wait("document.querySelector('.card .example')")
    browser.click(".card .button")
    browser.wait("document.querySelector('.steering .edit')")
    browser.type(".steering .edit input[type=number]", "3.5")
    browser.press("Tab")
    code = browser.wait("document.querySelector('.steering code').textContent")
    feature = _features(browser)[0]
    assert f'Edit({feature}, "set", 3.5, hook_name="{HOOK}")' in code
    exec(
        compile(code, "page", "exec"), {"model": model, "dictionaries": list(dictionaries.values())}
    )
    browser.click(".steering .edit .button")
    browser.wait("!document.querySelector('.steering')")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE])
def test_it_lays_out(page: Page, opened: Any, size: tuple[int, int], theme: str) -> None:
    browser = opened(page, size=size, theme=theme)
    browser.wait("document.querySelector('.card .example')")
    assert browser.too_wide() == []
    assert browser.run(
        "[...document.querySelectorAll('.list .entry')].every(e => "
        "e.querySelector('.words').getBoundingClientRect().right <= "
        "e.querySelector('.number').getBoundingClientRect().left)"
    ), "what a feature is about runs into its number"
    assert browser.run("document.documentElement.scrollWidth") <= size[0]
    assert browser.names() == []
    dark = "rgb(15, 18, 23)"
    background = browser.run("getComputedStyle(document.querySelector('.bitlens')).backgroundColor")
    assert (background == dark) == (theme == "dark")
    assert browser.complaints() == []


def test_the_keyboard_reaches_a_feature(page: Page, opened: Any) -> None:
    browser = opened(page)
    browser.wait("document.querySelector('.card .example')")
    for _ in range(200):
        browser.press("Tab")
        if browser.run("document.activeElement.closest('.list') !== null"):
            break
    feature = browser.run("document.activeElement.querySelector('.id').textContent")
    browser.press("Enter")
    browser.wait(f"document.querySelector('.card h2').textContent.startsWith('Feature {feature} ')")


def test_hostile_text_runs_nothing(
    model: HookedTransformer,
    dictionaries: Mapping[str, Dictionary],
    examples: Mapping[str, Examples | None],
    opened: Any,
) -> None:
    labels = dict.fromkeys(range(48), HOSTILE)
    page = prompt_page(model, HOSTILE, dictionaries, examples=examples, labels=labels)
    browser = opened(page)
    browser.wait("document.querySelector('.card .example')")
    assert HOSTILE in browser.run("document.querySelector('h1').textContent")
    assert HOSTILE in browser.run("document.querySelector('.words b').textContent")
    assert browser.run("document.title") != "run"
    assert browser.run("document.querySelectorAll('main img, main script').length") == 0
    assert not browser.requests()
    # Control: the policy refuses a script that got in all the same.
    browser.run(
        "(() => { const s = document.createElement('script'); "
        "s.textContent = \"document.title = 'run'\"; document.body.append(s); })()"
    )
    assert browser.run("document.title") != "run"
    assert any("Content Security Policy" in text for text in browser.complaints())


def test_the_page_weighs_little(page: Page) -> None:
    data = json.dumps(dict(page.data)).encode()
    shards = sum(map(len, page.shards))
    assert len(page.html().encode()) - len(data) - shards < 150_000


def test_a_notebook_shows_it_in_a_sandbox(page: Page) -> None:
    frame = page._repr_html_()
    sandbox = re.search(r'sandbox="([^"]*)"', frame)
    assert sandbox is not None
    assert "allow-same-origin" not in sandbox[1]


def test_an_empty_prompt_is_refused(
    model: HookedTransformer, dictionaries: Mapping[str, Dictionary]
) -> None:
    with pytest.raises(ValueError, match="prompt is empty"):
        prompt_page(model, "", dictionaries)


def test_the_command_writes_it(
    model_folder: Path,
    dictionaries: Mapping[str, Dictionary],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dictionaries[HOOK].save_model(tmp_path / "sae")
    run = command_runner(capsys, monkeypatch, "features")
    options = ("--model", model_folder, "--dictionary", tmp_path / "sae")
    path = tmp_path / "page.html"
    code, out, _ = run(PROMPT, *options, "--html", path, "--against", "bf16")
    assert code == 0
    assert str(path) in out
    assert "What flipped" in path.read_text("utf-8")
    for arguments, message in (
        (("--feature", 1, "--html", path), "shows a prompt"),
        ((PROMPT, "--against", "bf16"), "goes with --html"),
    ):
        code, _, err = run(*arguments, *options)
        assert code == 2
        assert message in err
