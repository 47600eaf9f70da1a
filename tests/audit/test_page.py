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
from support.audit_sample import HOSTILE, sample

VOID = {"meta", "link", "br", "hr", "img", "input"}
SECTIONS = ("verdict", "growth", "divergence", "tokens", "contracts", "ulp", "certificate")


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
            assert value.startswith("data:")
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
    charts = document.tags.count("figure")
    assert charts >= 4 + len(sample().histograms)
    assert document.tags.count("caption") == charts
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
