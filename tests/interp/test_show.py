"""What a notebook shows: drawings and the outputs of caches, verdicts, divergences, generations."""

from __future__ import annotations

import math
import re
import zlib
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import torch
from bitlens.interp import show
from bitlens.interp.monitors import Monitor
from bitlens.interp.show.png import png
from bitlens.model.transformer import HookedTransformer
from bitlens.precision import first_divergence
from bitlens.precision.oracle import Verdict
from support.addressed_toy import ORDER, Toy
from support.random_probes import random_probe
from support.training_runs import speaking_model

PROMPT = "the cat sat"
HOSTILE = "<script>document.title='run'</script>\"'"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> HookedTransformer:
    return speaking_model(tmp_path_factory.mktemp("model"))


def _titles(drawing: Any) -> dict[str, float]:
    """What the mouse says over each cell."""
    pairs = re.findall(r'title="([^"]*): ([^":]+)"', drawing._repr_html_())
    return {unescape(name): float(value) for name, value in pairs}


def test_a_heat_map_says_its_values() -> None:
    x = torch.tensor([[1.0, -2.0], [0.0, math.nan]])
    drawing = show.heatmap(x, rows=["a", HOSTILE], columns=["p", "q"], title=HOSTILE)
    html = drawing._repr_html_()
    assert "<script" not in html
    assert _titles(drawing)["a, q"] == -2.0
    cells = re.findall(r'<td class="number"[^>]*style="([^"]*)"', html)
    assert "--up" in cells[0]
    assert "35%" in cells[0]
    assert "--down" in cells[1]
    assert "70%" in cells[1]
    assert cells[2:] == ["", ""]
    for bad, message in (
        ((torch.zeros(3),), "expected a matrix"),
        ((torch.zeros(201, 200),), "40,200 cells"),
        ((x, ["a"]), "1 row and 2 column labels"),
    ):
        with pytest.raises(ValueError, match=message):
            show.heatmap(*bad)


def test_tokens_are_coloured_by_their_values() -> None:
    drawing = show.tokens(
        ["a", "\n", "<b>", "  ", " c"], torch.tensor([0.5, -1.0, *3 * [math.nan]])
    )
    html = drawing._repr_html_()
    shown = re.findall(r"<span[^>]*>([^<]*)</span>", html)
    assert shown == ["a", "⏎", "&lt;b&gt;", "␣␣", " c"]
    assert html.count("color-mix") == 2
    with pytest.raises(ValueError, match="1 values for 2 tokens"):
        show.tokens(["a", "b"], [1.0])


def test_a_pattern_of_one_head_names_every_value(model: HookedTransformer) -> None:
    _, cache = model.run_with_cache(PROMPT)
    x = cache["pattern", 1]
    names = [f"{i}{token}" for i, token in enumerate(model.to_str_tokens(PROMPT))]
    found = _titles(show.pattern(x, names, heads=[2]))
    for i, query in enumerate(names):
        for j, key in enumerate(names):
            assert found[f"{query}, {key}"] == pytest.approx(float(x[0, 2, i, j]), rel=1e-3)


def test_a_pattern_of_all_heads_is_pictures(model: HookedTransformer) -> None:
    _, cache = model.run_with_cache(PROMPT)
    x = cache["pattern", 0]
    html = show.pattern(x, model.to_str_tokens(PROMPT))._repr_html_()
    assert html.count("data:image/png;base64,") == x.shape[1]
    for bad, message in (
        ((x.expand(2, -1, -1, -1),), "of one sequence"),
        ((x, ["a"]), f"1 tokens for {x.shape[-1]} keys"),
    ):
        with pytest.raises(ValueError, match=message):
            show.pattern(*bad)
    with pytest.raises(IndexError, match="head 9 of"):
        show.pattern(x, heads=[9])


def test_a_picture_holds_its_values() -> None:
    x = torch.tensor([[0.0, 1.0, 0.5], [2.0, -1.0, math.nan]])
    data = png(x)
    begin = data.index(b"IDAT") + 4
    length = int.from_bytes(data[begin - 8 : begin - 4], "big")
    rows = zlib.decompress(data[begin : begin + length])
    assert [rows[1 + 13 * r + 4 * c + 3] for r in range(2) for c in range(3)] == [
        0, 255, 128, 255, 0, 0,
    ]  # fmt: skip


def test_the_lens_ends_with_what_the_model_says(model: HookedTransformer) -> None:
    html = show.logit_lens(model, PROMPT)._repr_html_()
    first = re.findall(r"<tr>(.*?)</tr>", html)[1]
    assert model.tokenizer is not None
    expected = model.tokenizer.token_strings(model(PROMPT)[0].argmax(-1).tolist())
    shown = [unescape(cell) for cell in re.findall(r"<td[^>]*>([^<]*)</td>", first)]
    assert shown == [token.replace("\n", "⏎").replace("\t", "⇥") for token in expected]
    assert first.count("font-weight: 700") == len(expected)
    rows = show.logit_lens(model, PROMPT, every=2)._repr_html_().count('scope="row"')
    assert rows == 1  # the last of two layers


def test_attribution_adds_up_to_the_logit(model: HookedTransformer) -> None:
    logits = model(PROMPT)[0]
    for position in (-1, 2):
        for wrong in (None, "b"):
            drawing = show.attribution(model, PROMPT, "a", wrong, position=position)
            found = float(drawing.title.rpartition(": ")[2])
            expected = float(logits[position, model.to_single_token("a")])
            if wrong is not None:
                expected -= float(logits[position, model.to_single_token(wrong)])
            assert found == pytest.approx(expected, abs=2e-3)
            parts = {n: v for n, v in _titles(drawing).items() if n.endswith(", adds")}
            assert sum(parts.values()) == pytest.approx(expected, abs=5e-3)
    assert sum("head" in name for name in _titles(drawing)) == (
        model.config.n_layers * model.config.n_heads
    )


def test_a_drawing_is_saved_as_a_page(tmp_path: Path) -> None:
    path = show.tokens(["a"], [1.0], title=HOSTILE).save(tmp_path / "strip.html")
    text = path.read_text("utf-8")
    assert "default-src 'none'" in text
    assert "<script" not in text


def test_a_cache_lists_its_names(model: HookedTransformer) -> None:
    _, cache = model.run_with_cache(PROMPT)
    html = cache._repr_html_()
    assert "blocks.*.hook_resid_post" in html
    rows = re.findall(r"<tr>(.*?)</tr>", html)[1:]
    counts = [int(re.findall(r'class="number">([\d,]+)<', row)[0]) for row in rows]
    assert sum(counts) == len(cache)


def test_a_generation_shows_its_texts(model: HookedTransformer) -> None:
    out = model.generate([PROMPT, "a"], max_new_tokens=5)
    html = out._repr_html_()
    cells = re.findall(r'<td class="words">(.*?)</td>', html, re.DOTALL)
    rows = zip(out.finish_reason, out.text, strict=True)
    assert [unescape(cell) for cell in cells] == [cell for row in rows for cell in row]
    assert "alarm of" not in html


def test_a_generation_shows_its_alarms(model: HookedTransformer) -> None:
    probe = random_probe(model, "blocks.1.hook_resid_post")
    monitor = Monitor(probe, threshold=-math.inf, name="<m>")
    out = model.generate(PROMPT, max_new_tokens=5, monitors=[monitor])
    (alarm,) = out.alarms
    html = out._repr_html_()
    assert "<td>&lt;m&gt;</td>" in html
    cells = html.split("alarm of")[1]
    assert f'"number">{alarm.position}<' in cells
    assert f'"number">{alarm.score:.4g}<' in cells


def test_a_verdict_says_whether_it_holds() -> None:
    good = Verdict(True, 0.5, 0.01, (0,), "close <to> the end", 0, 0, 8, 0.4)
    bad = Verdict(False, 2.0, 0.01, (0,), "outside", 3, 0, 8, 4.0)
    assert "within its contract" in good._repr_html_()
    assert "title good" in good._repr_html_()
    assert "&lt;to&gt;" in good._repr_html_()
    assert "3 of 8 values outside" in bad._repr_html_()
    assert "title bad" in bad._repr_html_()


def test_a_divergence_shows_what_differs() -> None:
    def half_more(original: Any, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = original(x, w)
        return y + 0.5

    a, b = Toy(), Toy()
    with b.override(ORDER[1], half_more):
        found = first_divergence(a, b, torch.arange(9), "lockstep")
    html = found._repr_html_()
    assert f"the difference is created by {ORDER[1]}" in html
    assert html.count("<tr>") == 1 + sum(
        row.exceeds(row.free) or row.exceeds(row.created) for row in found.table
    )
    assert f"<td>{ORDER[0]}</td>" not in html
