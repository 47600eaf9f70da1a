"""The path of RL: distances between policies, rewards beside gold scores, and kills."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from bitlens.alignment.draws import draw_seed
from bitlens.alignment.pipeline.divergence import divergence
from bitlens.alignment.pipeline.optimisation_path import Batch, WatchedReward
from bitlens.alignment.pipeline.page_charts import path_figure
from bitlens.alignment.standin import answer, prompts, refusal
from bitlens.model.load import load
from bitlens.model.training import TrainConfig, rollout, train
from bitlens.model.transformer import HookedTransformer
from support.random_models import MemoryReader
from support.standin_model import speaking_checkpoint

ROWS = [row.to_dict() for row in prompts("benign", 5, seed=0, split="test")]
SETTINGS: dict[str, Any] = {"seed": 1, "max_new_tokens": 6, "chat": True}


def _shifted(change: float) -> HookedTransformer:
    """The model with its embedding moved by noise."""
    checkpoint = speaking_checkpoint()
    assert isinstance(checkpoint.reader, MemoryReader)
    x = checkpoint.reader.tensors["embed.weight"]
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(2)) * x.std()
    checkpoint.reader.tensors["embed.weight"] = x + change * noise
    return load(checkpoint)


def test_a_policy_is_at_no_distance_from_itself(tmp_path: Path) -> None:
    model = _shifted(0)
    found = divergence("sl", model, lambda: model, ROWS, tmp_path / "d", has_gold=True, **SETTINGS)
    assert found.kl == found.low == found.high == found.per_token == 0
    assert found.before == found.after
    assert found.change == 0
    assert found.n == 5


def test_the_distance_is_that_of_whole_distributions(tmp_path: Path) -> None:
    """Against torch's own divergence, at the positions that were sampled."""
    one, other = _shifted(1.0), _shifted(0)
    found = divergence("sl", one, lambda: other, ROWS, tmp_path / "d", has_gold=False, **SETTINGS)
    expected = []
    rows = (tmp_path / "d").read_text().splitlines()
    for row, line in zip(ROWS, rows, strict=True):
        asked = [[{"role": "user", "content": row["text"]}]]
        seed = draw_seed(1, row["id"], "divergence")
        said = rollout(one, asked, n=1, max_new_tokens=6, temperature=1.0, seed=seed)
        at = said.sampled[0].nonzero().flatten() - 1
        p, q = (torch.log_softmax(m(said.tokens)[0, at].double(), 1) for m in (one, other))
        expected.append(float(torch.nn.functional.kl_div(q, p, reduction="sum", log_target=True)))
        assert f'"n_tokens": {len(at)}' in line
    assert found.kl == pytest.approx(sum(expected) / len(expected), rel=1e-9)
    assert found.low < found.kl < found.high
    assert found.before is found.after is found.change is None


def test_rows_that_are_there_need_no_reference(tmp_path: Path) -> None:
    model = _shifted(1.0)
    first = divergence("sl", model, lambda: _shifted(0), ROWS, tmp_path / "d", has_gold=False,
                       **SETTINGS)  # fmt: skip

    def unwanted() -> HookedTransformer:
        raise AssertionError("was asked for")

    again = divergence("sl", model, unwanted, ROWS, tmp_path / "d", has_gold=False, **SETTINGS)
    assert again == first
    with pytest.raises(ValueError, match="of a run with another"):
        divergence("sl", _shifted(2.0), unwanted, ROWS, tmp_path / "d", has_gold=False, **SETTINGS)


def _words(prompts: Sequence[Any], completions: Sequence[str], **_: Any) -> list[float]:
    return [float(len(text.split())) for text in completions]


def test_gold_is_what_the_rules_want(tmp_path: Path) -> None:
    watched = WatchedReward(_words, tmp_path, has_gold=True, has_kl=True)
    request, benign = prompts("standin", 1, seed=0)[0], prompts("benign", 1, seed=0)[0]
    columns = {name: [getattr(row, name) for row in (request, request, benign, benign)]
               for name in request.to_dict()}  # fmt: skip
    texts = [refusal(request), answer(request), answer(benign), answer(benign)]
    assert watched([None] * 4, texts, **columns) == _words([], texts)
    watched.step(3, 9, {"kl": 0.5})
    watched.step(4, 9, {"kl": 0.6})
    (batch,) = watched.batches()
    assert (batch.step, batch.kl, batch.gold, batch.boilerplate) == (3, 0.5, 0.75, 0.5)
    assert batch.length == sum(map(len, texts)) / 4


class _Killed(BaseException):
    pass


def test_a_kill_moves_no_row(tmp_path: Path) -> None:
    """Killed behind a step whose checkpoint was not written: its row is made again, and once."""
    rows = [{**row, "prompt": [{"role": "user", "content": row["text"]}]} for row in ROWS]
    config = TrainConfig(
        method="grpo", steps=5, batch_size=2, samples=3, max_new_tokens=5, lr=1e-3, beta=0.1,
        checkpoint_every=2,
    )  # fmt: skip

    def ran(folder: Path, last: int) -> list[Batch]:
        watched = WatchedReward(_words, folder, has_gold=True, has_kl=True)

        def progress(step: int, total: int, line: dict[str, Any]) -> None:
            watched.step(step, total, line)
            if step == last:
                raise _Killed

        model = load(speaking_checkpoint(), trainable="full")
        train(model, config, data=rows, output=folder, reward=watched, progress=progress)
        return watched.batches()

    whole = ran(tmp_path / "whole", 9)
    with pytest.raises(_Killed):
        ran(tmp_path / "part", 3)
    assert ran(tmp_path / "part", 9) == whole
    assert [batch.step for batch in whole] == [1, 2, 3, 4, 5]
    assert whole[0].kl == 0
    assert whole[-1].kl is not None
    assert whole[-1].kl > 0
    files = [(tmp_path / name / "path.jsonl").read_bytes() for name in ("whole", "part")]
    assert files[0] == files[1]


def test_the_chart_has_what_there_is() -> None:
    batch = Batch(1, 0.1, 2.0, 0.5, 30.0, 0.25)
    path = [dataclasses.replace(batch, step=i, reward=float(i), gold=1 - i / 40) for i in range(40)]
    found = path_figure(path)
    assert found is not None
    assert len(found.rows) == 10
    assert found.rows[0][:4] == ("0 to 3", "0.1000", "1.500", "96.2%")
    assert [words for _, words in found.legend] == ["reward", "good answers"]
    blind = path_figure([dataclasses.replace(each, gold=None, kl=None) for each in path])
    assert blind is not None
    assert blind.rows[0][1] == blind.rows[0][3] == "–"
    assert [words for _, words in blind.legend] == ["reward"]
    assert path_figure([]) is None
    assert "series b" in found.wide
    assert "series b" not in blind.wide
