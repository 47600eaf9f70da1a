"""`bitlens context-cost`: the counts against PyTorch's counter, the command and the picture."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import bitlens
import pytest
import torch
import typer
from bitlens.audit.context_cost.cost import context_cost, measure_prefill
from bitlens.cli.context_cost import register
from bitlens.model.sources import open_checkpoint
from support.random_models import CONFIGS, random_model
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner, Result

PAGE = Path(bitlens.__file__).resolve().parent / "docs" / "context_cost.md"


@pytest.mark.parametrize("architecture", CONFIGS)
def test_counts_are_torchs_own(architecture: str) -> None:
    """torch computes every score and then masks, and gives logits of every token."""
    model, n = random_model(architecture, backend="torch"), 11
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(torch.arange(n))
    counts = counter.get_flop_counts()["Global"]
    products = {str(op): count for op, count in counts.items()}
    config = model.config
    logits = 2 * config.d_vocab * config.d_model
    cost = context_cost(config, n)
    assert products["aten.bmm"] == 4 * config.n_layers * config.n_heads * config.d_head * n * n
    total = sum(products.values()) - products["aten.bmm"]
    assert total == cost.linear_flops + (n - 1) * logits


def test_attention_counts_visible_pairs() -> None:
    for config in CONFIGS.values():
        for n in (1, 4, 5, 6, 29):
            pairs = sum(min(t + 1, layer.window or n) for layer in config.layers for t in range(n))
            cost = context_cost(config, n)
            assert cost.attention_flops == 4 * config.n_heads * config.d_head * pairs


def test_next_token_is_the_difference_of_two_prompts() -> None:
    for config in CONFIGS.values():
        for n in (1, 4, 29):
            here, there = context_cost(config, n), context_cost(config, n + 1)
            logits = 2 * config.d_vocab * config.d_model
            assert here.next_token_flops == there.model_flops - here.model_flops + logits


def test_cache_bytes_are_those_of_its_pages() -> None:
    model = random_model("gemma3", dtype="bf16")
    cache = model.new_cache()
    model(torch.arange(128), kv_cache=cache)
    pages = [page for i in range(3) for page in (cache.layer(i).k_pages, cache.layer(i).v_pages)]
    used = sum(page[0].nbytes * 2 for page in pages)  # 128 tokens fill two pages of 64
    assert context_cost(model.config, 128, 2).kv_bytes == used


def test_the_famous_ratio_is_attention_alone(smollm2_path: Path) -> None:
    config = open_checkpoint(smollm2_path).config
    short, long = context_cost(config, 32_000), context_cost(config, 200_000)
    assert f"{long.attention_flops / short.attention_flops:.1f}" == "39.1"
    assert f"{long.model_flops / short.model_flops:.1f}" == "33.8"
    crossing = context_cost(config, 6_140), context_cost(config, 6_150)
    assert [cost.attention_share > 0.5 for cost in crossing] == [False, True]


def test_a_prompt_has_a_token() -> None:
    with pytest.raises(ValueError, match="n_tokens = 0"):
        context_cost(CONFIGS["llama"], 0)


def test_measured_are_lengths_within_the_context() -> None:
    seen = []
    seconds = measure_prefill(
        random_model("llama"), [3, 8, 129], rounds=2, progress=lambda *at: seen.append(at)
    )
    assert seconds.keys() == {3, 8}
    assert min(seconds.values()) > 0
    assert seen[-1] == (6, 6)


def run(*arguments: Any) -> Result:
    app = typer.Typer()
    app.callback()(lambda: None)
    register(app)
    return CliRunner().invoke(app, ["context-cost", *map(str, arguments)], env={"COLUMNS": "100"})


def test_the_command(smollm2_path: Path, tmp_path: Path) -> None:
    result = run(smollm2_path)
    assert result.exit_code == 0, result.output
    for text in ("39.1x", "33.8x", "97.0%", "8.583 GiB", "976.5x is attention alone"):
        assert text in result.output
    assert "measured" not in result.output
    shown = [line.split() for line in result.output.splitlines() if line.lstrip()[:1].isdecimal()]
    page = [line.split() for line in PAGE.read_text().splitlines()]
    assert all(line in page for line in shown[:4])


def test_json_and_picture(smollm2_path: Path, tmp_path: Path) -> None:
    picture = tmp_path / "cost.png"
    options = ("--lengths", "4, 2,9000", "--base", "2", "--measure", "--rounds", "1")
    result = run(smollm2_path, *options, "--json", "--dtype", "bf16", "--plot", picture)
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert [row["n_tokens"] for row in answer["lengths"]] == [2, 4, 9000]
    assert answer["lengths"][0]["attention_ratio"] == 1
    assert [row["seconds"] is None for row in answer["lengths"]] == [False, False, True]
    assert answer["lengths"][0]["kv_bytes"] == 2 * 30 * 2 * 3 * 64 * 2
    assert picture.read_bytes().startswith(b"\x89PNG")
    result = run(smollm2_path, *options)
    assert "measured" in result.output


def test_bad_lengths_are_named(smollm2_path: Path) -> None:
    for bad in ("8k", "0", "1,,2"):
        assert isinstance(run(smollm2_path, "--lengths", bad).exception, ValueError)


def test_the_page_runs(smollm2_path: Path) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    namespace: dict[str, Any] = {}
    exec(compile(block, PAGE.name, "exec"), namespace)
    for name, want in re.findall(r"^(\w+) = .*# ([\d.]+)$", block, re.MULTILINE):
        assert f"{namespace[name]:.{len(want.partition('.')[2])}f}" == want
