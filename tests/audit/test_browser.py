"""Reports in Chromium: whole at both widths, legible, and asking for nothing."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bitlens.audit.page import render
from bitlens.audit.postmortem import Rate
from bitlens.audit.postmortem.compiled import (
    BlockFindings,
    CompiledReport,
    Judged,
    SamplerFindings,
)
from bitlens.audit.postmortem.compiled.page import page as compiled_page
from bitlens.audit.postmortem.experiment import EXACT, FAULTS
from bitlens.audit.postmortem.page import page as postmortem_page
from bitlens.precision.pytest_plugin.page import page as precision_page
from support.audit_sample import sample
from support.browser import Browser, chromium
from support.precision_sample import contents

_LAYOUT = """(() => {
const wide = [...document.querySelectorAll("main *")].filter(e =>
  e.getBoundingClientRect().right > innerWidth + 1 && !e.closest(".scroll, pre, svg"));
const letters = [...document.querySelectorAll("svg text")].map(e => e.getBoundingClientRect())
  .filter(box => box.width).map(box => box.height);
const cut = [...document.querySelectorAll("svg")].flatMap(svg =>
  [...svg.querySelectorAll("text")].filter(e => e.getBoundingClientRect().width &&
    e.getBoundingClientRect().left < svg.getBoundingClientRect().left - 1));
return {cut: cut.map(e => e.textContent),
  overflow: wide.map(e => e.outerHTML.slice(0, 80)), smallest: Math.min(...letters),
  empty: [...document.querySelectorAll("section")].filter(e => e.offsetHeight <= 40).length,
  scroll: document.documentElement.scrollWidth - innerWidth,
  background: getComputedStyle(document.body).backgroundColor};
})()"""


def postmortem() -> str:
    rates = [
        Rate(sampler, n, 300, *((0, 0, 0) if sampler == EXACT else (7, 20, 340)))
        for sampler in (*FAULTS, EXACT)
        for n in (1, 2, 4, 8)
    ]
    return postmortem_page("synthetic", rates, [("command", "bitlens postmortem x"), ("date", "y")])


def compiled() -> str:
    """The figures of a small model in one operation of each kind, and names that are long."""
    kinds = ("ln1", "attn.attention.products", "mlp.act.silu", "resid_post")
    strict = {kind: Judged(4096, 0) for kind in kinds}
    excess = {kind: Judged(4096, 13 * i) for i, kind in enumerate(kinds)}
    restored = {kind: 0.2 * i for i, kind in enumerate(kinds)}
    both = {"strict": strict, "excess": excess}
    blocks = BlockFindings(2, 64, 63, 60, both, restored, kinds[2:], 1.0)
    samplers = (
        SamplerFindings("strict", 16, 4096, 0, 0, 0, 0, {}),
        SamplerFindings("excess", 16, 4096, 77, 1, 2, 3, {"weights": 1.0}),
    )
    report = CompiledReport("0.0", blocks, samplers)
    return compiled_page("synthetic <b>", report, [("command", "x"), ("date", "y")])


def by_logits() -> str:
    result = sample(violated=False)
    return render(
        dataclasses.replace(
            result, ops=(), histograms=(), reproducer=None, depth="logits", why_logits="it is shut"
        )
    )


PAGES: dict[str, Callable[[], str]] = {
    "audit": lambda: render(sample(violated=True)),
    "precision": lambda: precision_page(contents()),
    "audit by logits": by_logits,
    "postmortem": postmortem,
    "compiled": compiled,
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Fails, and does not skip, where there is none: what pages do is promised."""
    with chromium() as found:
        yield found


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, False), (390, True)])
def test_it_lays_out(browser: Browser, tmp_path: Path, name: str, width: int, dark: bool) -> None:
    file = tmp_path / "page.html"
    file.write_text(PAGES[name](), "utf-8")
    browser.open(file.as_uri(), size=(width, 1200), theme="dark" if dark else "light")
    layout = browser.run(_LAYOUT)
    assert layout["overflow"] == []
    assert layout["cut"] == []
    assert layout["scroll"] <= 0
    assert layout["empty"] == 0
    assert layout["smallest"] >= 10, "letters too small to read"
    assert (layout["background"] == "rgb(15, 18, 23)") == dark
    assert not browser.requests()
    assert not browser.complaints()


def test_control_what_is_too_wide_is_found(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    wide = '<p style="width: 2000px">x</p></main>'
    file.write_text(PAGES["audit"]().replace("</main>", wide), "utf-8")
    browser.open(file.as_uri(), size=(390, 1200))
    layout = browser.run(_LAYOUT)
    assert layout["overflow"]
    assert layout["scroll"] > 0


def test_it_draws(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(PAGES["audit"](), "utf-8")
    browser.open(file.as_uri(), size=(1280, 2400))
    data = browser.picture()
    assert struct.unpack(">II", data[16:24]) == (1280, 2400)
    assert len(data) > 50_000, "nearly nothing was drawn"


def test_excess_precision_in_words() -> None:
    page = PAGES["compiled"]()
    named = "attn.attention.products, mlp.act.silu, resid_post"
    assert f"Excess precision takes {named} outside the contract; forbidden, none is" in page
    assert "No single rounding brings 95% of the positions back (resid_post: 60.0%)" in page
    assert "<td>100.0%</td>" in page
    assert "synthetic &lt;b&gt;" in page
    assert "<b>" not in page
    assert "39 of 4,096 outside" in page


def test_broken_tests_come_first() -> None:
    html = PAGES["precision"]()
    assert html.index("test_broken") < html.index("test_kept")


def test_pages_have_one_stylesheet() -> None:
    sheets = {html().partition("<style>")[2].partition("</style>")[0] for html in PAGES.values()}
    assert len(sheets) == 1
