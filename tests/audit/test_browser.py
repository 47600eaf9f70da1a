"""The report in headless Chromium: it lays out at both widths and asks for nothing."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from bitlens.audit.page import render
from support.audit_sample import sample

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

# Appended to a copy of the page, without its content security policy: what the layout came to.
_PROBE = """<script>
const wide = [...document.querySelectorAll("main *")].filter(e =>
  e.getBoundingClientRect().right > innerWidth + 1 && !e.closest(".scroll, pre, svg"));
const letters = [...document.querySelectorAll("svg text")].map(e => e.getBoundingClientRect())
  .filter(box => box.width).map(box => box.height);
const visible = [...document.querySelectorAll("section")].every(e => e.offsetHeight > 40);
document.title = JSON.stringify({overflow: wide.map(e => e.outerHTML.slice(0, 80)),
  smallest: Math.min(...letters), visible, width: innerWidth,
  scroll: document.documentElement.scrollWidth,
  fetched: performance.getEntriesByType("resource").length,
  background: getComputedStyle(document.body).backgroundColor});
</script>"""


def _chromium(page: Path, *options: str) -> str:
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--user-data-dir={page.parent / 'profile'}", "--disable-dev-shm-usage"]
    return subprocess.run(
        [*command, *options, page.as_uri()], capture_output=True, text=True, timeout=120, check=True
    ).stdout


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, False), (390, True)])
def test_it_lays_out(tmp_path: Path, width: int, dark: bool) -> None:
    """In a frame, since a headless window is never narrower than 500 pixels."""
    import html
    import json
    import re

    page = re.sub(r"<meta http-equiv[^>]+>", "", render(sample(violated=dark))) + _PROBE
    inner = tmp_path / "inner.html"
    inner.write_text(page.replace("document.title =", "parent.document.title ="), "utf-8")
    frame = f'<iframe srcdoc="{html.escape(inner.read_text("utf-8"))}"'
    outer = tmp_path / "outer.html"
    outer.write_text(f"<title></title>{frame} width={width} height=2000></iframe>", "utf-8")
    options = ["--window-size=1400,2200", "--virtual-time-budget=2000", "--dump-dom"]
    options += ["--force-dark-mode", "--blink-settings=preferredColorScheme=0"] if dark else []
    dom = _chromium(outer, *options)
    found = re.search(r"<title>(.*?)</title>", dom)
    assert found is not None
    layout = json.loads(html.unescape(found[1]))
    assert layout["width"] == width
    assert layout["overflow"] == []
    assert layout["scroll"] <= width
    assert layout["visible"]
    assert layout["fetched"] == 0
    assert layout["smallest"] >= 10, "letters too small to read"
    assert (layout["background"] == "rgb(15, 18, 23)") == dark


def test_it_draws(tmp_path: Path) -> None:
    page, picture = tmp_path / "report.html", tmp_path / "report.png"
    page.write_text(render(sample()), "utf-8")
    _chromium(page, f"--screenshot={picture}", "--window-size=1280,2400")
    data = picture.read_bytes()
    assert struct.unpack(">II", data[16:24]) == (1280, 2400)
    assert len(data) > 50_000, "nearly nothing was drawn"
