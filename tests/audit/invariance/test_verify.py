"""The invariance table: it passes on a sound model, and it is able to fail."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import bitlens
import pytest
import torch
from bitlens.audit.invariance import variations as invariance
from bitlens.audit.invariance import verify
from bitlens.audit.invariance.observation import Tally, cut, n_different, observe
from bitlens.model.ops.policy import NATIVE_POLICIES
from support.tiny_llama import write_tiny_llama

SMALL = invariance.Scope(
    n_tokens=6, chunk_lengths=(2, 5), n_long=40, n_random_cuts=1, generic_tokens=4, every_layer=True
)


@pytest.fixture(scope="module")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llama(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def subject(tiny_llama: Path) -> invariance.Subject:
    return invariance.Subject(bitlens.load(tiny_llama), str(tiny_llama), "fp32", SMALL)


@pytest.mark.parametrize("dtype", NATIVE_POLICIES)
def test_every_promise_holds_on_a_small_model(tiny_llama: Path, dtype: str) -> None:
    seen: list[tuple[str, int, int]] = []
    settings = bitlens.get_num_threads(), bitlens.isa()
    report = verify.verify(
        tiny_llama, dtype=dtype, quick=True, progress=lambda *step: seen.append(step)
    )
    failed = [row for row in report.rows if not row.ok]
    assert not failed
    assert report.ok
    assert [row.varied for row in report.rows] == [name for name, _, _ in seen[:-1]]
    assert seen[-1][1:] == (len(report.rows), len(report.rows))
    assert sum(row.control for row in report.rows) == 2
    assert all(row.evidence for row in report.rows)
    assert any("fused" in text for text in report.not_covered) == (dtype == "hf_bf16")
    assert json.loads(json.dumps(report.to_dict()))["ok"] is True
    assert (bitlens.get_num_threads(), bitlens.isa()) == settings
    assert float(torch.tensor([1e-40]).mul(1.0)) != 0.0


def _row(subject: invariance.Subject, name: str) -> verify.VerifyRow:
    (item,) = (p for p in verify._properties(subject.scope, subject.dtype) if p.name == name)
    return verify._run(item, subject)


def _one_more_ulp(original: Any, *args: Any, **options: Any) -> torch.Tensor:
    """An operation that is off by one bit when it sees more than one row."""
    out = original(*args, **options)
    if out.shape[0] > 1:
        out[0, 0] = torch.nextafter(out[0, 0], torch.tensor(torch.inf))
    return out


@pytest.mark.parametrize("name", ["prompt in chunks", "decode one by one"])
def test_one_moved_bit_is_found(subject: invariance.Subject, name: str) -> None:
    assert _row(subject, name).ok
    subject.__dict__.pop("prefill")
    with subject.model.override("blocks.1.mlp.down", _one_more_ulp):
        row = _row(subject, name)
    assert row.different > 0
    assert not row.ok


def test_a_blind_control_fails_the_report(subject: invariance.Subject) -> None:
    item = verify._Property("blind", "itself", invariance.padding_side, control=True)
    row = verify._run(item, subject)
    assert row.different == 0
    assert not row.ok


def test_an_error_is_a_failed_row_and_settings_come_back(subject: invariance.Subject) -> None:
    def broken(subject: invariance.Subject, tally: Tally) -> str:
        torch.set_flush_denormal(True)
        bitlens.set_num_threads(7)
        raise RuntimeError("no such path")

    threads = bitlens.get_num_threads()
    row = verify._run(verify._Property("broken", "", broken), subject)
    assert row.error == "RuntimeError: no such path"
    assert not row.ok
    assert bitlens.get_num_threads() == threads
    assert float(torch.tensor([1e-40]).mul(1.0)) != 0.0


def test_comparing_nothing_proves_nothing(subject: invariance.Subject) -> None:
    row = verify._run(verify._Property("empty", "", lambda subject, tally: "ran"), subject)
    assert not row.ok


def test_n_different_counts_bits_not_values() -> None:
    x = torch.tensor([0.0, 1.0, torch.nan])
    assert n_different(x, x.clone()) == 0
    assert n_different(x, torch.tensor([-0.0, 1.0, torch.nan])) == 1
    assert n_different(x, x.double()) == 3
    assert n_different(x, x[:2]) == 3


def test_observations_lose_their_padding(subject: invariance.Subject) -> None:
    tokens_BP = torch.tensor([[0, 5, 6], [7, 8, 9]])
    mask_BP = torch.tensor([[0, 1, 1], [1, 1, 1]])
    names = ["blocks.0.attn.hook_pattern", "blocks.0.attn.hook_q"]
    first, second = observe(subject.model, tokens_BP, names, mask_BP)
    assert first["blocks.0.attn.hook_pattern"].shape == (3, 2, 2)
    assert first["blocks.0.attn.hook_q"].shape == (2, 3, 16)
    assert first["logits"].shape == (2, 97)
    assert cut(second, 1, 2)["blocks.0.attn.hook_pattern"].shape == (3, 1, 2)


def test_a_silent_hook_raises(subject: invariance.Subject, monkeypatch: Any) -> None:
    name = "blocks.0.hook_resid_post"
    monkeypatch.setattr("bitlens.model.run.Run.hook", lambda self, name, x: x)
    with pytest.raises(RuntimeError, match="silent"):
        observe(subject.model, subject.rows_BP[:1], [name])


def test_only_native_policies_are_verified(tiny_llama: Path) -> None:
    with pytest.raises(ValueError, match="fp64"):
        verify.verify(tiny_llama, dtype="fp64")
    with pytest.raises(FileNotFoundError):
        verify.verify(tiny_llama / "nothing")


@pytest.mark.nightly
@pytest.mark.parametrize("dtype", NATIVE_POLICIES)
def test_every_promise_holds_on_smollm2(smollm2_path: Path, dtype: str) -> None:
    report = verify.verify(smollm2_path, dtype=dtype)
    assert not [dataclasses.asdict(row) for row in report.rows if not row.ok]


@pytest.mark.nightly
@pytest.mark.parametrize("dtype", NATIVE_POLICIES)
def test_every_promise_holds_on_gemma3(gemma3_path: Path, dtype: str) -> None:
    report = verify.verify(gemma3_path, dtype=dtype)
    assert not [dataclasses.asdict(row) for row in report.rows if not row.ok]
