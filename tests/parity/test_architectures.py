"""Random Hugging Face models of every architecture, against a derived error bound.

Truth is transformers in fp64 throughout. docs/accuracy.md derives the bound.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
from bitlens.model.config import ModelConfig
from bitlens.model.sources import open_checkpoint
from support.huggingface_cases import U64, Case, make_case, used
from support.huggingface_configs import ARCHITECTURES

Fault = Callable[[ModelConfig], ModelConfig]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make_case(ARCHITECTURES[request.param], tmp_path_factory.mktemp("model"))


def test_fp64_agrees_with_transformers_in_fp64(case: Case) -> None:
    both = case.bound_transformers * 2 * U64
    assert used(case.logits(dtype="fp64", backend="torch"), case.truth, both) <= 1


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_fp32_is_within_the_bound_of_the_truth(case: Case, backend: str) -> None:
    assert used(case.logits(backend=backend), case.truth, case.bound) <= 1


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_fp32_agrees_with_transformers_in_fp32(case: Case, backend: str) -> None:
    both = case.bound + case.bound_transformers
    assert used(case.logits(backend=backend), case.transformers, both) <= 1


def test_the_bound_is_small_and_holds_for_transformers(case: Case) -> None:
    assert float(case.bound.max()) < 1e-2 * float(case.truth.std())
    assert used(case.transformers, case.truth, case.bound_transformers) <= 1


def scaled(field: str, factor: float) -> Fault:
    def fault(config: ModelConfig) -> ModelConfig:
        return dataclasses.replace(config, **{field: getattr(config, field) * factor})

    return fault


def other_rope_base(factor: float) -> Fault:
    def fault(config: ModelConfig) -> ModelConfig:
        layers = (
            dataclasses.replace(layer, rope_theta=layer.rope_theta * factor)
            for layer in config.layers
        )
        return dataclasses.replace(config, layers=tuple(layers))

    return fault


def no_windows(config: ModelConfig) -> ModelConfig:
    layers = (dataclasses.replace(layer, window=None) for layer in config.layers)
    return dataclasses.replace(config, layers=tuple(layers))


@pytest.mark.parametrize("fault", [scaled("attn_scale", 1.02), other_rope_base(1.05)])
def test_a_fault_leaves_the_bound_in_fp32(case: Case, fault: Fault) -> None:
    assert used(case.changed(fault), case.truth, case.bound) > 1


@pytest.mark.parametrize(
    "fault", [scaled("eps", 1.001), scaled("attn_scale", 1 + 1e-6), other_rope_base(1 + 1e-6)]
)
def test_a_slight_fault_leaves_the_bound_in_fp64(case: Case, fault: Fault) -> None:
    found = case.changed(fault, dtype="fp64", backend="torch")
    assert used(found, case.truth, case.bound_transformers * 2 * U64) > 1


def test_windows_and_bf16_leave_the_bound(case: Case) -> None:
    assert used(case.logits(dtype="bf16"), case.truth, case.bound) > 1
    windows = {layer.window for layer in open_checkpoint(case.path).config.layers} - {None}
    if windows:
        assert used(case.changed(no_windows), case.truth, case.bound) > 1
