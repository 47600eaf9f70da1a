"""A user's first sight: `bitlens.precision`, prompts as text, a divergence in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import bitlens
import pytest
from bitlens.precision.divergence import first_divergence
from support.speaking_llama import write_speaking_llama


def test_precision_is_there_after_import_bitlens() -> None:
    code = "import bitlens; print(bitlens.precision.FORMATS['bf16'].name)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "bf16\n"


def test_a_prompt_is_text_and_the_answer_is_one_line(tmp_path: Path) -> None:
    a, b = (bitlens.load(write_speaking_llama(tmp_path), dtype=d) for d in ("fp32", "bf16"))
    found = first_divergence(a, b, "Once upon")
    assert found.table == first_divergence(a, b, a.to_tokens("Once upon")).table
    assert repr(found).startswith(f"<Divergence free: the runs first differ at {found.first} (by")
    assert len(str(found).splitlines()) > 1
    with pytest.raises(ValueError, match="encodes no text"):
        first_divergence(object(), b, "Once upon")  # type: ignore[arg-type]
