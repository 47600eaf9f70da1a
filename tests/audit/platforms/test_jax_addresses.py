"""The JAX model's addresses without JAX: torch computes its programs, here and far away."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import pytest
import torch
from bitlens.audit import AuditResult, Plan, run_audit
from bitlens.audit.paths import ModelPath, path_on_trial, reference_path
from bitlens.audit.platforms.jax_process import JaxProcess
from bitlens.audit.platforms.jax_worker import serve
from bitlens.audit.platforms.remote import PlatformError
from bitlens.audit.run import audit
from bitlens.audit.texts import texts
from bitlens.model.interop.jax_addresses import JaxAddresses
from bitlens.model.sources.resolve import open_checkpoint
from bitlens.precision.divergence import first_divergence
from support.random_models import random_checkpoint
from support.speaking_llama import write_speaking_llama
from support.torch_programs import TorchPrograms

PROMPTS = ["Once upon", "def f(x):", "The cat sat on the mat and"]
PLAN = Plan(tokens=16, checked=1, rows=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_speaking_llama(tmp_path_factory.mktemp("llama"), num_key_value_heads=3)


def audited(folder: Path, programs: Any) -> AuditResult:
    a, model = reference_path(str(folder), "fp32")
    assert a.checkpoint is not None
    peer = JaxAddresses(a.checkpoint, torch.float32, programs)
    b = ModelPath("jax", peer, "a stand-in", "fp32", a.vocabulary, None, a.checkpoint)
    return audit("small", a, b, texts(model, PROMPTS, PLAN.tokens, seed=0), PLAN)


def test_every_operation_is_judged_on_a_s_inputs(folder: Path) -> None:
    result = audited(folder, TorchPrograms(open_checkpoint(folder)))
    assert result.ok
    assert result.depth == "operations"
    assert len(result.ops) == 33
    assert all(op.values for op in result.ops)
    assert not result.setting.only_a
    assert not result.setting.only_b
    assert result.flips.flips == 0
    assert result.flips.proven > 0


class _Bent(TorchPrograms):
    """One operation gives another sign."""

    at = "blocks.1.mlp.down"

    def operation(self, address: str, /, *inputs: torch.Tensor) -> torch.Tensor:
        found = super().operation(address, *inputs)
        return -found if address == self.at else found


def test_a_wrong_operation_is_named_and_its_exchange_restores_the_token(folder: Path) -> None:
    result = audited(folder, _Bent(open_checkpoint(folder)))
    assert not result.ok
    assert [op.address for op in result.violated] == [_Bent.at] == [result.divergence.first]
    assert result.flips.flips > 0
    assert result.divergence.tried > 1
    assert _Bent.at in result.divergence.restores


def test_what_xla_fuses_is_judged_by_logits_and_named(folder: Path) -> None:
    checkpoint = open_checkpoint(folder)
    moved = TorchPrograms(checkpoint, moved="blocks.1.resid_mid")
    result = audited(folder, moved)
    assert result.depth == "logits"
    assert result.ops == ()
    assert result.why_logits == (
        "XLA computes across operations: blocks.1.resid_mid has other bits in the whole program "
        "than alone"
    )
    assert result.certificate["contracts"] == {}

    class Returned(TorchPrograms):
        def logits(self, tokens_P: torch.Tensor, /) -> torch.Tensor:
            return super().logits(tokens_P) * 2

    assert "changes the logits" in str(audited(folder, Returned(checkpoint)).why_logits)


@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_biases_and_shared_heads_keep_the_contracts(name: str) -> None:
    """By address, against bitlens' own model of the same weights."""
    import bitlens

    checkpoint = random_checkpoint(name)
    b = JaxAddresses(checkpoint, torch.float32, TorchPrograms(checkpoint))
    tokens = torch.arange(3, 14)
    found = first_divergence(bitlens.load(checkpoint), b, tokens, "lockstep", judge="contract")
    assert found.first is None
    assert all(row.created is not None for row in found.table)


def test_one_sequence_at_a_time(folder: Path) -> None:
    checkpoint = open_checkpoint(folder)
    model = JaxAddresses(checkpoint, torch.float32, TorchPrograms(checkpoint))
    assert model(torch.arange(4)[None]).shape == (1, 4, 256)
    with pytest.raises(ValueError, match="2 sequences"):
        model(torch.arange(8).view(2, 4))
    with pytest.raises(KeyError, match="resid_mid"):
        model.site("blocks.0.resid_middle")


class Remote(JaxProcess):
    """The client over a connection whose other end a thread serves."""

    def __init__(self, programs: Any) -> None:
        self._connection, there = Pipe()
        self._lock = threading.Lock()
        threading.Thread(target=serve, args=(programs, there), daemon=True).start()
        self._answer()


def _failing(self: Any, tokens_P: torch.Tensor, /) -> torch.Tensor:
    raise ValueError("no such\nprogram")


def test_programs_over_a_connection_have_their_bits(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = TorchPrograms(open_checkpoint(folder))
    remote = Remote(programs)
    tokens = torch.arange(5, 17)
    here = programs.watched(tokens)
    pairs: list[tuple[torch.Tensor, torch.Tensor]] = [
        (remote.logits(tokens), programs.logits(tokens)),
        (
            remote.operation("ln_final", here["embed"]),
            programs.operation("ln_final", here["embed"]),
        ),
        *((value, here[address]) for address, value in remote.watched(tokens).items()),
    ]
    assert len(pairs) == 2 + 33
    for there, mine in pairs:
        assert torch.equal(there.view(torch.int32), mine.view(torch.int32))
    assert not torch.equal(here["embed"].view(torch.int32), here["ln_final"].view(torch.int32))
    monkeypatch.setattr(TorchPrograms, "logits", _failing)
    with pytest.raises(PlatformError, match="ValueError: no such program"):
        remote.logits(tokens)
    assert remote.watched(tokens)  # an error ends no process


@pytest.mark.skipif(importlib.util.find_spec("jax") is not None, reason="JAX is installed")
def test_without_jax_the_extra_is_named(folder: Path) -> None:
    with pytest.raises(PlatformError, match=r"bitlens\[platforms\]"):
        run_audit(str(folder), "fp32", "jax", PROMPTS, PLAN)


def test_bad_input(folder: Path, tmp_path: Path) -> None:
    a, _ = reference_path(str(folder), "fp32")
    refused: tuple[tuple[str, Callable[[], object]], ...] = (
        ("choose .*jax-bf16-strict.*onnx", lambda: path_on_trial(str(folder), "jaxx", a)),
        ("shows logits only", lambda: path_on_trial(str(folder), "onnx", a)),
        ("No such file|no such|not found|cannot", lambda: JaxProcess(
            str(tmp_path / "none"), "float32", {})),
    )  # fmt: skip
    for words, run in refused:
        with pytest.raises((ValueError, PlatformError), match=words):
            run()
