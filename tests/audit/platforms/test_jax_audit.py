"""`bitlens audit --b jax`: the compiled model's operations judged by address, faults named."""

from __future__ import annotations

import importlib.util
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from bitlens.audit import AuditResult, Plan, run_audit
from bitlens.audit.paths import ModelPath, reference_path
from bitlens.audit.run import audit
from bitlens.audit.texts import texts
from bitlens.model.interop import jax_llama, jax_operations, jax_programs, plain_llama
from bitlens.model.interop.jax_addresses import JaxAddresses
from bitlens.model.sources.resolve import open_checkpoint
from support.speaking_llama import write_speaking_llama

HAS_JAX = importlib.util.find_spec("jax") is not None
pytestmark = pytest.mark.skipif(not HAS_JAX, reason="extra platforms is not installed")

PLAN = Plan(tokens=12, checked=1, rows=4)
PROMPTS = ["Once upon", "def f(x):"]
SHAPE = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_speaking_llama(tmp_path_factory.mktemp("llama"), **SHAPE)


def audited(folder: Path, peer: Path | None = None) -> AuditResult:
    """In this process, with whatever is patched into the model's code; `peer` has the weights."""
    a, model = reference_path(str(folder), "fp32")
    assert a.checkpoint is not None
    programs = jax_programs.JaxPrograms(open_checkpoint(peer or folder), "float32")
    b = JaxAddresses(a.checkpoint, torch.float32, programs)
    path = ModelPath("jax", b, "XLA through JAX", "fp32", a.vocabulary, None, a.checkpoint)
    result = audit("small", a, path, texts(model, PROMPTS, PLAN.tokens, seed=0), PLAN)
    jax_operations.require_jax().clear_caches()  # of programs that nobody runs again
    return result


def test_all_operations_keep_their_contracts(folder: Path) -> None:
    result = audited(folder)
    assert result.depth == "operations"
    assert result.ok
    assert len(result.ops) == 33
    assert all(op.values for op in result.ops)
    assert result.flips.flips == 0


Patch = pytest.MonkeyPatch
Fault = Callable[[Path, Patch, random.Random], str]
"""Plants itself; returns the address that has to be named."""


def wrong_base(folder: Path, patch: Patch, draws: random.Random) -> str:
    factor = draws.choice([0.5, 0.8, 1.25, 2.0, 50.0])

    def rotation(config: Any, n: int) -> Any:
        layers = tuple(replace(x, rope_theta=x.rope_theta * factor) for x in config.layers)
        return plain_llama.rotation(replace(config, layers=layers), n)

    patch.setattr(jax_programs, "rotation", rotation)
    return "blocks.0.attn.rope_q"


def missing_upcast(folder: Path, patch: Patch, draws: random.Random) -> str:
    """One layer rounds to bf16 what it should keep: alone and within the whole program."""
    at = f"blocks.{draws.randrange(2)}.{draws.choice(['ln2', 'mlp.down', 'attn.o', 'mlp.act'])}"

    def bent(address: str, run: Callable[..., Any], *inputs: Any) -> Any:
        found = run(*inputs)
        return found.astype("bfloat16").astype(found.dtype) if address == at else found

    own = jax_operations.operation

    def operation(
        config: Any, weights: Any, turn: Any, keep: Any, address: str, *inputs: Any
    ) -> Any:
        return bent(address, partial(own, config, weights, turn, keep, address), *inputs)

    class Bent(jax_programs.JaxPrograms):
        def operation(self, address: str, /, *inputs: torch.Tensor) -> torch.Tensor:
            found = super().operation(address, *inputs)
            return found.bfloat16().float() if address == at else found

    for module in (jax_llama, jax_programs):
        patch.setattr(module, "operation", operation)
    patch.setattr(jax_programs, "JaxPrograms", Bent)
    return at


def transposed_head(folder: Path, patch: Patch, draws: random.Random) -> str:
    order = draws.choice([[1, 0, 2, 3], [0, 2, 1, 3], [3, 1, 2, 0]])
    own = jax_operations._attention

    def attention(config: Any, *inputs: Any) -> Any:
        z_Pn = own(config, *inputs)
        return z_Pn.reshape(len(z_Pn), 4, -1)[:, order].reshape(z_Pn.shape)

    patch.setattr(jax_operations, "_attention", attention)
    return "blocks.0.attn.attention"


def shifted_tokens(folder: Path, patch: Patch, draws: random.Random) -> str:
    own, by = jax_operations.operation, draws.choice([-1, 1])

    def operation(
        config: Any, weights: Any, turn: Any, keep: Any, address: str, *inputs: Any
    ) -> Any:
        x = inputs[0]
        if address == "embed":
            x = jax_operations.require_jax().numpy.roll(x, by)
        return own(config, weights, turn, keep, address, x, *inputs[1:])

    for module in (jax_llama, jax_programs):
        patch.setattr(module, "operation", operation)
    return "embed"


def old_checkpoint(folder: Path, patch: Patch, draws: random.Random) -> str:
    """Every weight of one matrix is a thousandth off, as a step of training before."""
    import transformers

    factory: Any = transformers.AutoModelForCausalLM
    peer = factory.from_pretrained(folder)
    layer, name = draws.randrange(2), draws.choice(["down", "gate", "up"])
    weight = getattr(peer.model.layers[layer].mlp, f"{name}_proj").weight
    generator = torch.Generator().manual_seed(draws.randrange(2**31))
    with torch.no_grad():
        weight.mul_(1 + 1e-3 * torch.randn(weight.shape, generator=generator))
    peer.save_pretrained(folder / "old")
    return f"blocks.{layer}.mlp.{name}"


FAULTS: tuple[Fault, ...] = (
    wrong_base, missing_upcast, transposed_head, shifted_tokens, old_checkpoint,
)  # fmt: skip


def found_with(fault: Fault, folder: Path, draws: random.Random) -> tuple[str, AuditResult]:
    with pytest.MonkeyPatch.context() as patch:
        at = fault(folder, patch, draws)
        old = folder / "old"
        return at, audited(folder, old if old.exists() else None)


def test_a_missing_upcast_is_named(tmp_path: Path) -> None:
    folder = write_speaking_llama(tmp_path / "1", seed=1, **SHAPE)
    at, result = found_with(missing_upcast, folder, random.Random(1))
    assert not result.ok
    assert [op.address for op in result.violated] == [at]


@pytest.mark.nightly
def test_faults_in_a_hundred_draws_are_named(tmp_path: Path) -> None:
    missed, named = [], Counter[str]()
    for seed in range(100):
        fault = FAULTS[seed % len(FAULTS)]
        folder = write_speaking_llama(tmp_path / str(seed), seed=seed, **SHAPE)
        at, result = found_with(fault, folder, random.Random(seed))
        first = result.violated[0].address if result.violated else None
        named[fault.__name__] += first == at
        if first != at or result.ok:
            missed.append((fault.__name__, seed, at, first, result.why_logits))
    print(f"named in 100 draws: {dict(named)}; missed: {missed}")
    assert not missed


@pytest.mark.nightly
def test_right_models_in_twenty_five_draws(tmp_path: Path) -> None:
    accused = []
    for seed in range(25):
        result = audited(write_speaking_llama(tmp_path / str(seed), seed=seed, **SHAPE))
        if not result.ok or result.depth != "operations":
            accused.append((seed, result.violated, result.why_logits))
    assert not accused


@pytest.mark.nightly
def test_excess_precision_keeps_no_operation_apart(folder: Path) -> None:
    """Each in a process with its flag. It is skipped if this XLA leaves no rounding out."""
    import jax

    strict = run_audit(str(folder), "hf_bf16", "jax-bf16-strict", PROMPTS, PLAN)
    assert strict.ok
    assert strict.depth == "operations"
    assert all(op.values for op in strict.ops)
    excess = run_audit(str(folder), "hf_bf16", "jax-bf16", PROMPTS, PLAN)
    if excess.depth == "operations":
        pytest.skip(f"XLA of JAX {jax.__version__} left no rounding out")
    assert "has other bits in the whole program than alone" in str(excess.why_logits)


@pytest.mark.nightly
def test_smollm2() -> None:
    plan = Plan(tokens=64, checked=1, rows=4)
    result = run_audit("smollm2-135m-instruct", "fp32", "jax", plan=plan, prompts=PROMPTS)
    assert result.ok
    assert result.depth == "operations"
    assert len(result.judged) == 30 * 15 + 3
    assert result.flips.broken_certificates == 0
