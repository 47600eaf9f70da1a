"""The kernels of docs/own_kernels.md keep and break what the page says, in ten lines or so each."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import bitlens
from bitlens.precision.operations import OPERATIONS

PAGE = Path(bitlens.__file__).resolve().parent / "docs" / "own_kernels.md"


def test_the_examples() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert len(blocks) >= 12
    namespace: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), namespace)
    for block in blocks:
        bodies = re.findall(r"^def .*\n(?:    .*\n|\n(?=    ))+", block, re.MULTILINE)
        assert all(len(body.splitlines()) <= 10 for body in bodies)


def test_every_family_has_an_example() -> None:
    text = PAGE.read_text("utf-8")
    for family in ("rms_norm", "log_softmax", "conv1d", "sigmoid", "clamped_swiglu", "attention"):
        assert f'"{family}"' in text
    for family in ("quantize", "moe_gate", "rank_sum", "adam_step"):
        assert family in OPERATIONS
        assert f'PrecisionContract("{family}"' in text
