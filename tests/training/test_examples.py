"""Rows of JSONL files as tokens: which count, in which order, and which rows are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from bitlens.model.training import TrainConfig, train
from bitlens.model.training.dataset import Dataset
from bitlens.model.training.examples import Example, ExampleReader, read_rows
from support.random_models import EOS, byte_tokenizer
from support.training_models import TEMPLATE, small_model

pytestmark = pytest.mark.filterwarnings("ignore:the chat template marks turns")
TOKENIZER = byte_tokenizer(TEMPLATE)
READER = ExampleReader(TOKENIZER, 40)


def _counted(example: Example) -> str:
    ids = [i for i, kept in zip(example.ids, example.scored(), strict=True) if kept]
    return TOKENIZER.decode(ids, skip_special=False)


def test_a_completion_counts_with_the_token_that_ends_it() -> None:
    example = READER.text({"prompt": "2+2=", "completion": "4"})
    assert _counted(example) == "4<eos>"
    assert TOKENIZER.decode(example.ids[:4]) == "2+2="


def test_what_the_assistant_says_counts() -> None:
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d"},
    ]
    reader = ExampleReader(TOKENIZER, 200)
    assert _counted(reader.text({"messages": messages})) == "b</>d</>"
    row = {"prompt": messages[:3], "completion": messages[3:]}
    assert _counted(reader.text(row)) == "d</>"


def test_every_token_of_a_text_counts_but_its_first() -> None:
    assert _counted(READER.text({"text": "hello"})) == "ello<eos>"


def test_long_texts_are_cut_and_pieces_never_cross_them() -> None:
    pieces = [piece for text in ("a" * 95, "b") for piece in READER.pieces({"text": text})]
    assert [len(piece.ids) for piece in pieces] == [40, 40, 16, 2]
    assert [len(set(piece.ids) - {EOS}) for piece in pieces] == [1, 1, 1, 1]


def test_pairs_have_a_label() -> None:
    pair = READER.pair({"prompt": "p", "chosen": "yes", "rejected": "no", "label": 0.75})
    assert (_counted(pair.chosen), _counted(pair.rejected)) == ("yes<eos>", "no<eos>")
    assert pair.label == 0.75
    assert READER.pair({"prompt": "p", "chosen": "yes", "rejected": "no"}).label == 1.0


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "p", "completion": ""}, "completion: expected a text"),
        ({"prompt": "", "completion": "c"}, "prompt: expected a text"),
        ({"completion": "c"}, "prompt: expected a text"),
        ({"prompt": "p" * 60, "completion": "c"}, "62 tokens, max_length is 40"),
        ({"messages": []}, "messages: expected a conversation"),
        ({"messages": [{"role": "user", "content": "a"}]}, "nothing in it counts"),
        ({"text": 3}, "text: expected a text, not 3"),
    ],
)
def test_rows_that_teach_nothing_are_named(
    tmp_path: Path, row: dict[str, Any], message: str
) -> None:
    data = [{"prompt": "a", "completion": "b"}, row]
    config = TrainConfig(method="sft", steps=1, max_length=40)
    model = small_model()
    model.tokenizer = TOKENIZER
    with pytest.raises(ValueError, match=f"data, row 2: {message}"):
        train(model, config, data=data, output=tmp_path)


def test_pairs_that_are_none_are_refused() -> None:
    pair = {"prompt": "p", "chosen": "yes", "rejected": "no"}
    with pytest.raises(ValueError, match="are the same"):
        READER.pair({**pair, "rejected": "yes"})
    with pytest.raises(ValueError, match="label = 2"):
        READER.pair({**pair, "label": 2})
    with pytest.raises(ValueError, match="rejected: expected a text"):
        READER.pair({"prompt": "p", "chosen": "yes"})


def test_files_are_read_line_by_line(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [{"text": "a"}, {"text": "é"}]
    file.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n", encoding="utf-8")
    assert read_rows(file) == rows
    file.write_text('{"text": "a"}\n{"text": \n', encoding="utf-8")
    with pytest.raises(ValueError, match="line 2"):
        read_rows(file)
    file.write_text("[1]\n", encoding="utf-8")
    with pytest.raises(ValueError, match="line 1: expected a JSON object"):
        read_rows(file)
    with pytest.raises(ValueError, match="no rows"):
        read_rows([])


def test_each_pass_has_every_example_once_in_another_order() -> None:
    data = Dataset(range(20), held_out=3, seed=0)
    drawn = [example for step in range(1, 18) for example in data.batch(step, 4)]
    passes = [drawn[i : i + 17] for i in range(0, 68, 17)]
    assert all(sorted([*each, *data.held_out]) == list(range(20)) for each in passes)
    assert len({tuple(each) for each in passes}) == 4
    assert data.batch(9, 4) == drawn[32:36]
    assert Dataset(range(20), held_out=3, seed=1).batch(1, 4) != drawn[:4]
