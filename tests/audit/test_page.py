"""The report's HTML, read by a parser: complete, self-contained, escaped, accessible."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
from html.parser import HTMLParser

import pytest
from bitlens.audit.certify import _contract_result
from bitlens.audit.page import render
from bitlens.audit.page.charts import percent
from bitlens.audit.page.histograms import histograms
from bitlens.audit.page.words import enough_prompts
from bitlens.precision.statistics import EquivalencePlan
from support.audit_sample import HOSTILE, sample

VOID = {"meta", "link", "br", "hr", "img", "input"}
SECTIONS = ("verdict", "growth", "divergence", "tokens", "contracts", "ulp", "certificate", "made")


class _Document(HTMLParser):
    """Checks that tags nest, and keeps elements, ids, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def values(self, attribute: str) -> list[str]:
        return [value for _, name, value in self.attributes if name == attribute]


@pytest.mark.parametrize("violated", [False, True])
def test_the_page_is_complete_and_nests(violated: bool) -> None:
    result = sample(violated=violated)
    document = _Document(render(result))
    for section in SECTIONS:
        assert section in document.values("id")
    assert ("violations" in document.values("id")) == violated
    text = " ".join("".join(document.text).split())
    headline = "bf16 broke its contract" if violated else "bf16 kept its contract"
    assert headline in text
    assert "101 of 8,192" in text
    if violated:
        assert "36,112 of 73,728" in text
        assert "truncating_cast" in text


def test_the_interval_of_flips_has_prompts_as_clusters() -> None:
    text = " ".join("".join(_Document(render(sample())).text).split())
    assert "1.23%; 0.97% to 1.50% (95%, prompts as clusters)" in text
    assert text.index("95%, prompts as clusters0.97%") < text.index("were positions independent")


def test_an_unknown_bias_is_not_certified_as_none() -> None:
    op = dataclasses.replace(sample().ops[0], bias_ulp=None)
    assert _contract_result(op).bias_ulp is None


@pytest.mark.parametrize(
    ("share", "shown"),
    [(4.1e-65, "0%"), (0.0, "0%"), (2e-6, "0.0002%"), (0.0123, "1.23%"), (0.5, "50%"), (None, "–")],
)
def test_shares(share: float | None, shown: str) -> None:
    assert percent(share) == shown


def test_nothing_comes_from_outside() -> None:
    document = _Document(render(sample()))
    assert not {"script", "iframe", "img", "link", "object"} & set(document.tags)
    for _, name, value in document.attributes:
        assert not name.startswith("on")
        if name in ("src", "href", "xlink:href", "action"):
            assert value.startswith(("data:", "#"))
    style = "".join(document.text)
    assert "@import" not in style
    assert not re.search(r"url\(|https?://", render(sample()))


def test_what_prompts_and_tokens_hold_is_escaped() -> None:
    page = render(sample())
    assert HOSTILE not in page
    assert "<script" not in page
    assert HOSTILE in "".join(_Document(page).text)


def test_every_chart_has_a_name_and_a_table() -> None:
    document = _Document(render(sample()))
    histograms = len(sample().histograms)
    charts = document.tags.count("figure") - histograms
    assert charts == 4
    assert document.tags.count("caption") == charts + 1, "all histograms have one table"
    drawings = [name for tag, name, value in document.attributes if tag == "svg" and value]
    assert drawings.count("aria-label") == document.tags.count("svg")
    for _, name, value in document.attributes:
        if name in ("x", "y", "width", "height", "cx", "cy", "r"):
            assert float(value) >= 0, f"{name} = {value}"


def test_the_files_to_save_are_what_was_found() -> None:
    result = sample()
    links = [value for value in _Document(render(result)).values("href") if value[:5] == "data:"]
    saved = [base64.b64decode(link.partition("base64,")[2]).decode() for link in links]
    assert result.reproducer is not None
    assert saved[0] == result.reproducer.script
    assert json.loads(saved[1]) == result.to_dict()


def test_numbers_without_value_are_not_in_the_json() -> None:
    data = json.loads(sample().to_json())
    assert data["schema"] == "bitlens.audit/1"
    assert data["ok"] is True
    assert json.loads(sample(violated=True).to_json())["violated"] == ["blocks.7.mlp.down"]


def test_the_contract_is_a_sentence_under_the_verdict() -> None:
    text = " ".join("".join(_Document(render(sample())).text).split())
    sentence = "The contract: bf16 storage, fp32 sums, one rounding at each output."
    assert text.index("kept its contract") < text.index(sentence) < text.index("next tokens flip")


def test_how_it_was_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    whole = sample()
    setting = dataclasses.replace(whole.setting, digests={"model A": "ab" * 32})
    pages = [render(dataclasses.replace(whole, setting=setting), "bitlens audit x") for _ in "12"]
    assert pages[0] == pages[1]
    text = " ".join("".join(_Document(pages[0]).text).split())
    for fact in ("bitlens audit x", "1970-01-02 00:00 UTC", "model A, SHA-256", "ab" * 32):
        assert fact in text
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    assert "1970-01-02" not in render(whole)


def test_navigation_leads_to_every_section() -> None:
    for violated in (False, True):
        document = _Document(render(sample(violated=violated)))
        anchors = {value[1:] for value in document.values("href") if value.startswith("#")}
        assert anchors == set(document.values("id")) - {"verdict"}


def test_too_few_prompts_are_said_to_be_and_how_many_are_enough() -> None:
    whole = sample()
    shown = dataclasses.replace(whole.flips.equivalence, equivalent=False, p_value=0.3)
    few = dataclasses.replace(whole.flips, flips=0, prompts=6, positions=288, equivalence=shown)
    words = enough_prompts(dataclasses.replace(whole, flips=few))
    assert words == "6 prompts are too few to show that fewer than 0.05 flip: 59 are enough"
    for n, enough in ((58, False), (59, True)):  # what the test itself says of them
        found = EquivalencePlan("flips", margin=0.05).test_rate([False] * n, list(range(n)))
        assert found.equivalent is enough
    assert enough_prompts(whole) == ""


def test_colours_are_for_what_is_wrong() -> None:
    """Flips are what rounding does: a figure, no alarm."""
    assert re.findall(r'class="tile (\w+)"', render(sample())) == []
    assert re.findall(r'class="tile (\w+)"', render(sample(violated=True))) == ["bad"]
    assert "up to 100% is normal" in render(sample())


def test_only_unusual_histograms_are_unfolded() -> None:
    whole = sample()
    odd = dataclasses.replace(whole.histograms[3], bias_ulp=-0.4, bias_z=-90.0)
    found = (*whole.histograms[:3], odd, *whole.histograms[4:])
    shown = histograms(dataclasses.replace(whole, histograms=found))
    assert shown is not None
    assert [figure.title for figure in shown.unusual] == [odd.kind]
    assert len(shown.others) == len(found) - 1
    assert len(shown.rows) == len(found)
    none = histograms(whole)
    assert none is not None
    assert not none.unusual
    assert "None is unusual" in render(whole)


def test_no_chart_is_empty() -> None:
    whole = sample()
    still = tuple(
        dataclasses.replace(op, free_error=0.0, created_error=0.0, values=0) for op in whole.ops
    )
    flips = dataclasses.replace(whole.flips, margins=())
    page = render(dataclasses.replace(whole, ops=still, flips=flips, histograms=()))
    assert "svg" not in _Document(page).tags
    assert "Nothing was judged" in page


def test_a_model_of_one_layer_without_flips_or_divergence_renders() -> None:
    from bitlens.audit.result import Divergence

    whole = sample(layers=1)
    flips = dataclasses.replace(whole.flips, flips=0, examples=())
    ops = tuple(dataclasses.replace(op, free_error=0.0, created_error=0.0) for op in whole.ops)
    result = dataclasses.replace(
        whole,
        ops=ops,
        flips=flips,
        reproducer=None,
        divergence=Divergence("bits", None, None, None, None),
    )
    text = "".join(_Document(render(result)).text)
    assert "nowhere" in text
    assert "Any other bit counts" in text
