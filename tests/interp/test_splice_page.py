"""The examples of docs/splicing.md, on a random model under the names of the page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import bitlens
import pytest
from bitlens.interp import dictionaries
from bitlens.model.config import LayerConfig
from support.random_dictionaries import random_dictionary
from support.random_models import byte_tokenizer, random_model

PAGE = Path(bitlens.__file__).parent / "docs" / "splicing.md"


def test_the_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"n_layers": 16, "layers": (LayerConfig(),) * 16}
    model = random_model("llama", tokenizer=byte_tokenizer(), changes=changes)
    monkeypatch.setattr(bitlens, "load", lambda name: model)
    monkeypatch.setattr(
        dictionaries,
        "load_dictionary",
        lambda source, model: random_dictionary(model, source.split("/")[1]),
    )
    namespace: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 4
    for block in blocks:
        exec(compile(block, PAGE.name, "exec"), namespace)
    assert namespace["effect"].shape == namespace["acts"][0].shape
    assert namespace["captured"].shape[-1] == namespace["acts"].shape[-1]
