"""A real compiler's excess precision: named by contracts, put back one rounding at a time.

Judged on small models. XLA decides which roundings it leaves out, so what is asserted of the flag
on is what holds whatever it does.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from bitlens.audit.postmortem import shipped_prompts
from bitlens.audit.postmortem.compiled.blocks import BlockFindings, _fewest, judge_blocks
from bitlens.audit.postmortem.compiled.samplers import BATCH, judge_samplers
from bitlens.model.interop.jax_arrays import same_rows
from bitlens.model.load import load
from bitlens.model.sources.resolve import open_checkpoint
from hypothesis import given
from hypothesis import strategies as st
from support.command_line import command_runner
from support.speaking_llama import write_speaking_llama

HAS_JAX = importlib.util.find_spec("jax") is not None
needs_jax = pytest.mark.skipif(not HAS_JAX, reason="extra platforms is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_speaking_llama(tmp_path_factory.mktemp("compiled"))


@pytest.fixture(scope="module")
def found(folder: Path) -> BlockFindings:
    tokens_NP = torch.randint(1, 256, (2, 16), generator=torch.Generator().manual_seed(0))
    return judge_blocks(open_checkpoint(folder), tokens_NP, lambda what, done, total: None)


@needs_jax
@pytest.mark.nightly
def test_with_the_flag_off_every_operation_keeps_its_contract(found: BlockFindings) -> None:
    assert found.stated == found.rows == 64
    assert len(found.judged["strict"]) == 19
    assert all(each.values > 0 for each in found.judged["strict"].values())
    assert not found.violated("strict")


@needs_jax
@pytest.mark.nightly
def test_with_the_flag_on_the_operation_is_named_and_a_rounding_restores(
    found: BlockFindings,
) -> None:
    """It is skipped, naming the version, if this XLA leaves no rounding out."""
    import jax

    if not found.moved:
        pytest.skip(f"XLA of JAX {jax.__version__} left no rounding out")
    assert found.violated("excess")
    assert found.together == 1
    assert set(found.fewest) <= set(found.restored)
    best = max(found.restored.values())
    assert best >= 0.95 or len(found.fewest) > 1  # the report says why not


@needs_jax
@pytest.mark.nightly
def test_the_sampler(folder: Path) -> None:
    prompts = [prompt[:20] for prompt in shipped_prompts()[: BATCH + 3]]
    strict, excess = judge_samplers(load(folder), prompts, lambda what, done, total: None)
    assert strict.prompts == excess.prompts == BATCH
    assert strict.other_values == strict.other_candidates == strict.tokens_changed == 0
    assert strict.restored == {}
    assert excess.values == BATCH * 256
    with pytest.raises(ValueError, match="at least 16"):
        judge_samplers(load(folder), prompts[:3], lambda what, done, total: None)


@needs_jax
@pytest.mark.nightly
def test_the_command_with_jax(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    run = command_runner(capsys, monkeypatch, "postmortem")
    page = tmp_path / "page.html"
    code, out, error = run(folder, "--xla", "--n-prompts", "16", "--json", "--output", page)
    assert code == 0, error
    assert "XLA through JAX" in page.read_text("utf-8")
    report = json.loads(out)
    assert report["blocks"]["stated"] == report["blocks"]["rows"]
    assert [each["flag"] for each in report["samplers"]] == ["strict", "excess"]


@given(st.sets(st.integers(0, 7)), st.sets(st.integers(0, 7)))
def test_the_fewest_roundings_are_those_that_matter(needed: set[int], others: set[int]) -> None:
    """All of `needed` are left if nothing comes back without one of them."""
    addresses = tuple(str(i) for i in sorted(needed | others))

    def share(names: tuple[str, ...]) -> float:
        return float(needed <= {int(name) for name in names})

    kept = _fewest(addresses, share, lambda what, done, total: None)
    assert {int(name) for name in kept} == needed


def test_rows_are_compared_by_their_bits() -> None:
    a = torch.tensor([[0.0, 1.0], [2.0, 3.0]], dtype=torch.bfloat16)
    assert same_rows(a, a.clone()).tolist() == [True, True]
    b = a.clone()
    b[0, 0] = -0.0
    assert same_rows(a, b).tolist() == [False, True]


def test_bad_input(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = command_runner(capsys, monkeypatch, "postmortem")
    code, _, error = run(folder, "--xla", "--noise")
    assert code == 2
    assert "--noise, --xla: one at a time" in error
    code, _, error = run(folder, "--xla", "--shards", "1,2")
    assert code == 2
    assert "--xla prints its report: it takes no --shards, --plot" in error
    if not HAS_JAX:
        code, _, error = run(folder, "--xla")
        assert code == 2
        assert "bitlens[platforms]" in error
