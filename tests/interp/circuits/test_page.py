"""The examples of docs/circuits.md, on a small model under the names of the page."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import bitlens
import pytest
from bitlens import interp
from bitlens.interp import LayersTrainConfig, LayersTrainResult, evaluate_layers, train_layers
from support.training_runs import documents, speaking_model

PAGE = Path(bitlens.__file__).parent / "docs" / "circuits.md"


def test_the_examples(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With fewer features and tokens, and a text at hand."""
    models = {dtype: speaking_model(tmp_path / "model", dtype=dtype) for dtype in ("fp32", "bf16")}

    def small(model: Any, config: LayersTrainConfig, output: str) -> LayersTrainResult:
        changes: dict[str, Any] = {"d_sae": 64, "k": 4, "n_tokens": 2560, "batch_tokens": 128}
        config = dataclasses.replace(config, **changes, context_size=64)
        return train_layers(model, config, text=documents(), output=output)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bitlens, "load", lambda name, dtype="fp32": models[dtype])
    monkeypatch.setattr(interp, "train_layers", small)
    monkeypatch.setattr(
        interp,
        "evaluate_layers",
        lambda *a, n_tokens: evaluate_layers(*a, text=documents(), split="all", n_tokens=200),
    )
    namespace: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 6
    for block in blocks:
        exec(compile(block, PAGE.name, "exec"), namespace)
    node, graph = namespace["node"], namespace["graph"]
    total = float(graph.weights[namespace["into"]].sum()) + node.bias + node.omitted
    assert total == pytest.approx(node.activation, rel=1e-3)
    assert (tmp_path / "graph.json").is_file()
    assert -1 <= namespace["checked"].spearman <= 1
