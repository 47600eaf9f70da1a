"""An audit of a model with soft caps: each judged by its own formula, nothing claimed beyond."""

from __future__ import annotations

import pytest
from bitlens.audit import Plan, audit
from bitlens.audit.paths import ModelPath, bitlens_path
from bitlens.audit.texts import Texts, texts
from support.random_models import byte_tokenizer, random_model

PLAN = Plan(tokens=16, checked=2, rows=4)
PROMPTS = ["Once upon", "def f(x):", "0 1 2"]


def _path(dtype: str) -> ModelPath:
    model = random_model("gemma2", tokenizer=byte_tokenizer(), dtype=dtype)
    return bitlens_path(dtype, dtype, model)


@pytest.fixture(scope="module")
def written() -> Texts:
    return texts(_path("fp32").model, PROMPTS, PLAN.tokens, seed=0)


def test_capped_paths_keep_their_contracts(written: Texts) -> None:
    result = audit("gemma2", _path("fp32"), _path("bf16"), written, PLAN)
    assert result.ok, [op.reason for op in result.violated]
    judged = {op.address for op in result.ops}
    assert {"unembed", "soft_cap", "blocks.1.attn.attention"} <= judged
    assert result.flips.broken_certificates == 0
    assert result.flips.certified > 0
    assert result.flips.proven == 0
    assert any("soft cap" in premise for premise in result.flips.premises)


def test_a_fault_in_the_cap_is_found_at_its_address(written: Texts) -> None:
    a, b = _path("fp32"), _path("bf16")

    def off(original, x, cap):  # type: ignore[no-untyped-def]
        return original(x, cap * (1 + 1e-4))

    with b.model.override("soft_cap", off):
        result = audit("gemma2", a, b, written, PLAN)
    assert [op.address for op in result.violated] == ["soft_cap"]
