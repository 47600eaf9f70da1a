"""Reports in Chromium: whole at both widths, legible, and asking for nothing."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bitlens.audit.page import render
from bitlens.audit.postmortem import Rate
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
return {overflow: wide.map(e => e.outerHTML.slice(0, 80)), smallest: Math.min(...letters),
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


PAGES: dict[str, Callable[[], str]] = {
    "audit": lambda: render(sample(violated=True)),
    "precision": lambda: precision_page(contents()),
    "postmortem": postmortem,
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


def test_broken_tests_come_first() -> None:
    html = PAGES["precision"]()
    assert html.index("test_broken") < html.index("test_kept")


def test_pages_have_one_stylesheet() -> None:
    sheets = {html().partition("<style>")[2].partition("</style>")[0] for html in PAGES.values()}
    assert len(sheets) == 1
