"""What docs/interop.md shows runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import bitlens
import torch


def test_the_judge_example() -> None:
    page = (Path(bitlens.__file__).resolve().parent / "docs" / "interop.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 2
    torch.manual_seed(0)
    namespace: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "interop.md", "exec"), namespace)
    assert namespace["report"].impossible.any()
    assert not namespace["report"].passes()
