"""The page of a whole dictionary: what it says of features, and how it is searched."""

from __future__ import annotations

import base64
import json
import random
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from bitlens.interp.activations import Packing
from bitlens.interp.activations.read import read_rows, row_norms
from bitlens.interp.activations.sequences import batches
from bitlens.interp.dictionaries import Dictionary
from bitlens.interp.examples.survey import FeatureSurvey, survey_features
from bitlens.interp.pages import Page, feature_page
from bitlens.interp.pages.cards import SHARD
from bitlens.interp.pages.labels import read_labels
from bitlens.interp.pages.page import shard
from bitlens.model.transformer import HookedTransformer
from support.browser import DESK, PHONE
from support.command_line import command_runner
from support.training_runs import HOOK, documents

TEXT = documents(30)


def unpacked(text: str) -> Any:
    return json.loads(zlib.decompress(base64.b64decode(text)))


@pytest.fixture(scope="module")
def dictionary(dictionaries: Mapping[str, Dictionary]) -> Dictionary:
    return dictionaries[HOOK]


@pytest.fixture(scope="module")
def page(model: HookedTransformer, other: HookedTransformer, dictionary: Dictionary) -> Page:
    return feature_page(
        model,
        dictionary,
        text=TEXT,
        split="all",
        n_tokens=3000,
        packing=Packing(64),
        against=other,
        n_against=1000,
        labels={7: "the seventh"},
    )


@pytest.fixture(scope="module")
def cards(page: Page) -> list[dict[str, Any]]:
    return [card for part in page.shards[:-1] for card in unpacked(part)]


@pytest.fixture(scope="module")
def survey(model: HookedTransformer, dictionary: Dictionary) -> FeatureSurvey:
    assert model.tokenizer is not None
    sequences = Packing(64).sequences(TEXT, model.tokenizer)
    return survey_features(model, dictionary, sequences, n_tokens=3000)


@pytest.fixture(scope="module")
def acts(model: HookedTransformer, dictionary: Dictionary) -> torch.Tensor:
    """Dense activations of the same tokens, outliers silent: what a survey must hold."""
    assert model.tokenizer is not None
    found, limit, seen = [], None, 0
    for batch in batches(Packing(64).sequences(TEXT, model.tokenizer), 2048):
        rows = read_rows(model, batch, [HOOK])[HOOK]
        limit = 3 * row_norms(rows).median() if limit is None else limit
        found.append(dictionary.encode(rows) * (row_norms(rows) <= limit)[:, None])
        if (seen := seen + batch.n_tokens) >= 3000:
            break
    return torch.cat(found)


def test_a_survey_is_every_activation(survey: FeatureSurvey, acts: torch.Tensor) -> None:
    assert survey.n_tokens == len(acts)
    for feature in range(acts.shape[1]):
        at, values = survey.of(feature)
        assert torch.equal(at, acts[:, feature].nonzero()[:, 0])
        assert torch.equal(values, acts[at, feature])
    for token in range(0, len(acts), 97):
        begin, end = survey.token_indptr[token : token + 2]
        assert survey.features[begin:end].tolist() == acts[token].nonzero()[:, 0].tolist()


def test_cards_say_what_the_survey_holds(
    cards: list[dict[str, Any]], survey: FeatureSurvey, acts: torch.Tensor
) -> None:
    assert [card["id"] for card in cards] == list(range(acts.shape[1]))
    sequence = torch.searchsorted(survey.starts, torch.arange(len(acts)), right=True) - 1
    for card in cards:
        column = acts[:, card["id"]]
        fired = column[column > 0]
        assert card["density"] == len(fired) / len(acts)
        if not len(fired):
            continue
        assert card["largest"] == float(column.max())
        assert sum(card["histogram"]["counts"]) == len(fired)
        best = sorted(
            (float(column[sequence == s].max()) for s in range(int(sequence[-1]) + 1)), reverse=True
        )
        n_top = card["bands"][0][1]
        tops = [e["a"][e["p"]] / 255 * card["largest"] for e in card["examples"][:n_top]]
        expected = [value for value in best if value > 0][:8]
        assert tops == pytest.approx(expected, abs=card["largest"] / 255)
        assert sum(n for _, n in card["bands"]) == len(card["examples"])
        quarters = fired.sort(descending=True).values
        begin = n_top
        for q, (_, n) in enumerate(card["bands"][1:]):
            low, high = len(quarters) * q // 4, len(quarters) * (q + 1) // 4
            for example in card["examples"][begin : begin + n]:
                value = example["a"][example["p"]] / 255 * card["largest"]
                step = card["largest"] / 255
                assert quarters[high - 1] - step <= value <= quarters[low] + step
            begin += n


def test_neighbours_fire_together(cards: list[dict[str, Any]], acts: torch.Tensor) -> None:
    """The shares are exact for features that fire no more often than is counted."""
    active = (acts > 0).double()
    checked = 0
    for card in cards:
        mine = active[:, card["id"]]
        if not 2 <= mine.sum() <= 400:
            continue
        together = mine @ active
        cosine = together / (mine.sum() * active.sum(0).clamp(min=1)).sqrt()
        cosine[card["id"]] = 0
        best = card["neighbours"][0]
        assert float(cosine[best[0]]) == pytest.approx(float(cosine.max()))
        assert best[1] == pytest.approx(float(together[best[0]] / mine.sum()))
        checked += 1
    assert checked > 10


def test_stability_counts_the_same_tokens(
    cards: list[dict[str, Any]],
    survey: FeatureSurvey,
    other: HookedTransformer,
    dictionary: Dictionary,
) -> None:
    assert other.tokenizer is not None
    sequences = Packing(64).sequences(TEXT, other.tokenizer)
    found = survey_features(other, dictionary, sequences, n_tokens=1000)
    assert found.n_tokens < survey.n_tokens
    changed = 0
    for card in cards:
        a = {i for i in survey.of(card["id"])[0].tolist() if i < found.n_tokens}
        b = set(found.of(card["id"])[0].tolist())
        stability = card["stability"]
        assert stability == {
            "name": "bf16",
            "fired": len(a),
            "kept": len(a & b),
            "gained": len(b - a),
        }
        changed += len(a ^ b)
    assert changed, "bf16 changed no feature: nothing was compared"


def test_search_by_text_token_label_and_number(
    page: Page, cards: list[dict[str, Any]], opened: Any
) -> None:
    browser = opened(page)
    browser.wait("document.querySelectorAll('.hits .entry').length")

    def hits(query: str) -> list[int]:
        browser.type("input[type=search]", query)
        browser.wait("document.querySelector('[role=status]').textContent !== 'reading'")
        found: list[int] = browser.run(
            "[...document.querySelectorAll('.hits .id')].map(e => Number(e.textContent))"
        )
        return found

    by_density = sorted(range(len(cards)), key=lambda f: -cards[f]["density"])
    assert hits("") == by_density[:60]
    assert hits("SEVENTH")[0] == 7
    assert hits("31")[0] == 31
    example = next(card for card in cards if card["examples"])
    text = "".join(example["examples"][0]["t"])[3:9].upper()
    assert example["id"] in hits(text)
    assert hits("nowhere to be found") == []
    browser.type("input[type=search]", "31")
    browser.wait("document.querySelectorAll('.hits .entry').length")
    browser.click(".hits .entry")
    browser.wait("document.querySelector('.card h2')?.textContent.startsWith('Feature 31 ')")
    assert browser.run("location.hash") == "#feature=31"
    assert not browser.complaints()
    assert not browser.requests()


def test_bands_and_neighbours_are_clicked(page: Page, cards: list[Any], opened: Any) -> None:
    browser = opened(page)
    browser.wait("document.querySelector('.card .example')")
    feature = browser.run("parseInt(document.querySelector('.card h2').textContent.slice(8))")
    browser.click(".card .tabs .button", 4)
    lowest = cards[feature]["examples"][-1]
    value = lowest["a"][lowest["p"]] / 255 * cards[feature]["largest"]
    browser.wait("document.querySelectorAll('.card .tabs .button')[4].ariaPressed === 'true'")
    shown = browser.run(
        "[...document.querySelectorAll('.example .value')].map(e => +e.textContent)"
    )
    assert shown[-1] == pytest.approx(value, rel=0.06)
    browser.click(".card .list .entry")
    neighbour = cards[feature]["neighbours"][0][0]
    browser.wait(
        f"document.querySelector('.card h2')?.textContent.startsWith('Feature {neighbour} ')"
    )


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE])
def test_it_lays_out(page: Page, opened: Any, size: tuple[int, int], theme: str) -> None:
    browser = opened(page, size=size, theme=theme)
    browser.wait("document.querySelector('.card .example')")
    assert browser.too_wide() == []
    assert browser.names() == []
    assert browser.complaints() == []


def _large_page(n_features: int) -> Page:
    """A dictionary of random English, with texts as long as a real one's."""
    source = random.Random(0)
    words = ["".join(source.choices("etaoinshrdlu", k=source.randint(2, 9))) for _ in range(20_000)]
    empty = {"promoted": [], "suppressed": [], "largest": 0.0, "examples": [], "density": 0.0}
    cards = [{"id": f, **empty} for f in range(n_features)]
    index = {
        "density": [source.random() for _ in range(n_features)],
        "by_density": list(range(n_features)),
        "about": [[source.choices(words, k=3), source.choices(words, k=4)] for _ in cards],
        "texts": [" ".join(source.choices(words, k=100)) for _ in cards],
    }
    parts = [cards[i : i + SHARD] for i in range(0, n_features, SHARD)]
    described = {
        "hook_name": HOOK, "hook_name_out": HOOK, "d_sae": n_features, "first_shard": 0,
        "shard_size": SHARD, "index_shard": len(parts), "labels": {},
    }  # fmt: skip
    data = {"view": "features", "model": "random", "facts": [], "dictionaries": [described]}
    return Page("random", data, (*map(shard, parts), shard(index)))


@pytest.mark.nightly
def test_9216_features_are_searched_in_50_milliseconds(opened: Any) -> None:
    browser = opened(_large_page(9216))
    browser.wait("document.querySelectorAll('.hits .entry').length")
    took = []
    for query in ("the", "hello", "de", "nothing at all", "31"):
        browser.type("input[type=search]", query)
        browser.wait("document.querySelector('[role=status]').textContent !== ''")
        took.append(
            float(browser.run("document.querySelector('[data-milliseconds]').dataset.milliseconds"))
        )
    assert min(took) > 0
    assert sorted(took)[len(took) // 2] < 50, took


def test_labels_are_read_from_every_format(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    for written in (
        {"3": "cats"},
        {HOOK: {"3": "cats"}},
        [{"index": "3", "description": "cats", "modelId": "gpt2"}],
    ):
        path.write_text(json.dumps(written))
        assert read_labels(path) == {3: "cats"}
    for written in ("[1]", '{"a": {"3": "x"}, "b": {}}', "{", '{"x": "cats"}'):
        path.write_text(written)
        with pytest.raises(ValueError, match=r"labels\.json: no labels"):
            read_labels(path)


def test_labels_from_a_function(model: HookedTransformer, dictionary: Dictionary) -> None:
    def loudest(card: dict[str, Any]) -> str | None:
        return f"up to {card['largest']:.1f}" if card["id"] % 2 else None

    page = feature_page(model, dictionary, text=TEXT, split="all", n_tokens=500, labels=loudest)
    labels = page.data["dictionaries"][0]["labels"]
    assert set(labels) == set(range(1, 48, 2))
    assert labels[1]["source"] == "by loudest"
    assert labels[1]["text"].startswith("up to ")


def test_the_command_writes_it(
    model_folder: Path,
    dictionary: Dictionary,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dictionary.save_model(tmp_path / "sae")
    text = tmp_path / "text.jsonl"
    text.write_text("\n".join(json.dumps({"text": document}) for document in TEXT))
    run = command_runner(capsys, monkeypatch, "sae", "dashboard")
    output = tmp_path / "features.html"
    code, out, err = run(
        model_folder, tmp_path / "sae", "--text", text, "--split", "all", "--n-tokens", 800,
        "--context-size", 64, "--output", output,
    )  # fmt: skip
    assert code == 0, err
    assert str(output) in out
    assert "bitlens-shard-0" in output.read_text("utf-8")
