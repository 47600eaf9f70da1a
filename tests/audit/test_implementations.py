"""Operations computed anew for a reproducer have the bits that the models' own passes had."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from bitlens.audit.implementations import Implementation, eager, native
from bitlens.audit.paths import ModelPath, path_on_trial, reference_path
from bitlens.model.ops.policy import NATIVE_POLICIES
from bitlens.precision.addresses import Site
from bitlens.precision.contract import PrecisionContract
from support.speaking_llama import write_speaking_llama


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_speaking_llama(tmp_path_factory.mktemp("llama"))


def _compare(path: ModelPath, run: Implementation, addresses: list[str]) -> None:
    same: dict[str, bool] = {}

    def visit(site: Site, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        again = run(site.bind(*args, **kwargs), site.contract)
        value = site.view(result)
        same[site.address] = again.dtype == value.dtype and torch.equal(again, value)
        return result

    from contextlib import ExitStack

    with ExitStack() as stack:
        for address in addresses:
            site = path.model.site(address)
            stack.enter_context(path.model.override(address, partial(visit, site)))
        path.model(torch.arange(70))
    assert same == dict.fromkeys(addresses, True)


KINDS = (
    "ln1", "attn.q", "attn.rope_q", "attn.rope_k", "attn.attention", "attn.o", "mlp.gate",
    "mlp.act", "mlp.down",
)  # fmt: skip


@pytest.mark.parametrize("dtype", NATIVE_POLICIES)
def test_native(llama: Path, dtype: str) -> None:
    path, _ = reference_path(str(llama), dtype)
    # Under hf_bf16 the logits are bf16 numbers kept in fp32: the same values, another dtype.
    last = ["ln_final"] if dtype == "hf_bf16" else ["ln_final", "unembed"]
    _compare(path, native, [f"blocks.1.{kind}" for kind in KINDS] + last)


@pytest.mark.parametrize("choice", ["hf", "hf-bf16"])
def test_eager(llama: Path, choice: str) -> None:
    """torch's products may sum in another order for other shapes: these shapes are the same."""
    reference, _ = reference_path(str(llama), "fp32")
    path = path_on_trial(str(llama), choice, reference)
    _compare(path, eager, [f"blocks.1.{kind}" for kind in KINDS] + ["ln_final", "unembed"])


@pytest.mark.parametrize("dtype", NATIVE_POLICIES)
def test_native_of_a_scaled_rope(tmp_path: Path, dtype: str) -> None:
    """Its sites hand frequencies instead of theta."""
    path, _ = reference_path(str(write_speaking_llama(tmp_path, rope_scaling=HALVED)), dtype)
    _compare(path, native, ["blocks.0.attn.rope_q", "blocks.1.attn.rope_k"])


HALVED = {"rope_type": "linear", "factor": 2.0}


def test_inputs_they_lack_are_named() -> None:
    inputs = {"x": torch.zeros(1, 1, 8)}
    with pytest.raises(ValueError, match="rope: the native kernels need 'positions'"):
        native(inputs, PrecisionContract("rope"))
    with pytest.raises(ValueError, match="rope: the eager Llama need 'theta'"):
        eager(inputs, PrecisionContract("rope"))
    tables = {"cos": torch.ones(8, 4), "sin": torch.zeros(8, 4)}
    with pytest.raises(ValueError, match="a row for each position"):
        native(inputs | tables, PrecisionContract("rope"))


def test_an_operation_they_lack_is_named() -> None:
    for run in (native, eager):
        with pytest.raises(ValueError, match=r"gelu: the .* have matmul"):
            run({"x": torch.zeros(1, 1)}, PrecisionContract("gelu"))
