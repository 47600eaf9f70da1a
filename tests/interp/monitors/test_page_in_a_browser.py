"""The page of a watched generation in a browser: colours, alarms, no script whatever is said."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from bitlens.interp.monitors import Alarm, Explanation
from bitlens.interp.monitors.page import ScoredToken, WatchedText, page
from support.browser import Browser, chromium

HOSTILE = (
    "</span><script>document.title='run'</script><img src=x onerror=document.title='run'>\u2028'\""
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


def watched(threshold: float = 1.0) -> WatchedText:
    said = [("Hello", None), (" mild", -3.0), (" near", 0.9), (" over", 1.3), (HOSTILE, 9.0)]
    tokens = [ScoredToken(text, score, is_new=i > 1) for i, (text, score) in enumerate(said)]
    explanation = Explanation(
        tuple(range(12)), (2.5, *[-0.1] * 11), -0.25, 0.5, 1e-7, 4e-7, (3, 4), (1.5, -0.2)
    )
    alarm = Alarm("m", 0, 3, 7, 1.3, threshold, "score", 2, (1, 2, 3, 7), explanation)
    return WatchedText(HOSTILE, threshold, "alarm", tokens, [alarm])


def colours(browser: Browser) -> list[str]:
    found: list[str] = browser.run(
        "[...document.querySelectorAll('.text span')].map(e => getComputedStyle(e).backgroundColor)"
    )
    return found


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_shows_scores_and_alarms_and_runs_nothing(
    browser: Browser, tmp_path: Path, theme: str
) -> None:
    path = tmp_path / "watched.html"
    path.write_text(page(HOSTILE, {"model": HOSTILE}, [watched()]), encoding="utf-8")
    browser.open(path.as_uri(), theme=theme)  # type: ignore[arg-type]
    none, cool, pale, warm, hot = map(channels, colours(browser))
    assert none[3] == 0
    assert all(blue > red for red, _, blue, _ in (cool, pale))  # below the threshold
    assert all(red > blue for red, _, blue, _ in (warm, hot))  # above
    assert cool[3] > pale[3] > 0  # stronger further away
    assert hot[3] > warm[3] > 0
    said = browser.run("document.querySelector('.text').innerText")
    assert said.startswith("Hello mild near over</span><script>")
    assert browser.run("document.querySelectorAll('.prompt').length") == 2
    assert browser.run("document.querySelector('.text span:nth-child(4)').title") == "1.3"
    assert browser.run("document.querySelector('section .alarm').innerText") == "1 alarm"
    rows = browser.run(
        "[...document.querySelectorAll('table tr')].map(e => e.innerText.split('\\t'))"
    )
    assert rows[1] == ["feature 0", "+2.5"]
    assert [row[0] for row in rows[11:]] == [
        "2 other features", "not reconstructed", "bias", "rounding (at most 4.0e-07)",
    ]  # fmt: skip
    named = browser.run("[...document.querySelectorAll('section code')].map(e => e.innerText)")
    assert named == [" over", HOSTILE]
    assert browser.run("document.title") == HOSTILE
    assert browser.run("document.scripts.length + document.images.length") == 0
    assert browser.requests() == []
    assert browser.complaints() == []


def test_an_endless_threshold_colours_nothing(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "calm.html"
    calm = WatchedText("m", math.inf, "length", [ScoredToken("a", 3.0, is_new=True)], [])
    path.write_text(page("t", {}, [calm]), encoding="utf-8")
    browser.open(path.as_uri())
    assert [channels(c)[3] for c in colours(browser)] == [0]
    assert browser.run("document.querySelector('.calm').innerText") == "0 alarms"


def channels(colour: str) -> list[float]:
    """Red, green, blue and opacity of what a browser computes."""
    found = [float(part) for part in colour.partition("(")[2].rstrip(")").split(",")]
    return found if len(found) == 4 else [*found, 1.0]
