"""Random Hugging Face models of every RoPE type, against a derived error bound: logits, and every
operation in lockstep.

Truth is transformers in fp64 throughout. docs/accuracy.md derives the bound.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import bitlens
import pytest
import torch
import transformers
from bitlens.model.config import ModelConfig
from bitlens.model.config_error import ConfigError
from bitlens.model.interop.transformers_addresses import TransformersAddresses
from bitlens.model.rope.scaling import LongRope, RopeScaling
from support.error_bounds import operation_bound
from support.huggingface_cases import TRANSFORMERS, U64, Case, make_case, rope, used
from support.huggingface_configs import D_HEAD, FIXED_ROPE, LLAMA, ROPE_OF_LENGTH, THETA


@pytest.fixture(scope="module", params=FIXED_ROPE)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make_case(FIXED_ROPE[request.param], tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module", params=[(name, n) for name in ROPE_OF_LENGTH for n in (6, 16)])
def following(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Of a length within the trained context of 8, and beyond it."""
    name, n = request.param
    return make_case(ROPE_OF_LENGTH[name], tmp_path_factory.mktemp("model"), (n,))


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_fp32_agrees_with_transformers(case: Case, backend: str) -> None:
    found = case.logits(backend=backend)
    assert used(found, case.truth, case.bound) <= 1
    assert used(found, case.transformers, case.bound + case.bound_transformers) <= 1
    assert float(case.bound.max()) < 1e-2 * float(case.truth.std())


def test_fp64_agrees_with_transformers_in_fp64(case: Case) -> None:
    both = case.bound_transformers * 2 * U64
    assert used(case.logits(dtype="fp64", backend="torch"), case.truth, both) <= 1


def test_what_follows_the_length_agrees_on_the_torch_backend(following: Case) -> None:
    found = following.logits(backend="torch")
    assert used(found, following.truth, following.bound) <= 1
    both = following.bound_transformers * 2 * U64
    assert used(following.logits(dtype="fp64", backend="torch"), following.truth, both) <= 1


def test_what_follows_the_length_is_refused_where_bits_are_promised(following: Case) -> None:
    with pytest.raises(ConfigError, match=r'tokens?.s bits .* backend="torch"'):
        bitlens.load(following.path)


def with_scaling(change: Callable[[RopeScaling], RopeScaling | None]) -> Callable[..., ModelConfig]:
    def changed(config: ModelConfig) -> ModelConfig:
        layers = tuple(
            dataclasses.replace(layer, rope_scaling=change(layer.rope_scaling))
            if layer.rope_scaling is not None
            else layer
            for layer in config.layers
        )
        return dataclasses.replace(config, layers=layers)

    return changed


def times(share: float) -> Callable[[Any], RopeScaling]:
    """The same scaling with its factor, or its last divisors, so many times as large."""

    def change(scaling: Any) -> RopeScaling:
        if not isinstance(scaling, LongRope):
            return dataclasses.replace(scaling, factor=scaling.factor * share)
        lists = (scaling.short_factor, scaling.long_factor)
        short, long = (tuple(share * x for x in factors) for factors in lists)
        return dataclasses.replace(scaling, short_factor=short, long_factor=long)

    return change


def test_faults_leave_the_bound(case: Case) -> None:
    for change in (lambda scaling: None, times(1.1)):
        assert used(case.changed(with_scaling(change)), case.truth, case.bound) > 1
    slight = with_scaling(times(1 + 1e-6))
    found = case.changed(slight, dtype="fp64", backend="torch")
    assert used(found, case.truth, case.bound_transformers * 2 * U64) > 1


def test_ntk_is_transformers_with_the_longer_base(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """By argument: transformers has no name for it."""
    factor = 4.0
    longer = THETA * factor ** (D_HEAD / (D_HEAD - 2))
    path = tmp_path_factory.mktemp("model")
    case = make_case(transformers.LlamaConfig(**LLAMA, rope_parameters=rope(longer)), path)
    config = json.loads((path / "config.json").read_text())
    config["rope_parameters"]["rope_theta"] = THETA
    (path / "config.json").write_text(json.dumps(config))
    scaling = {"rope_type": "ntk", "factor": factor}
    for backend in ("native", "torch"):
        found = case.logits(backend=backend, rope_scaling=scaling)
        assert used(found, case.truth, case.bound) <= 1
    assert used(case.logits(), case.truth, case.bound) > 1
    found = case.logits(backend="torch", dtype="fp64", rope_scaling=scaling)
    assert used(found, case.truth, case.bound_transformers * 2 * U64) <= 1


def test_a_scaling_by_argument_replaces_the_checkpoints_own(case: Case) -> None:
    fields = json.loads((case.path / "config.json").read_text())["rope_parameters"]
    own = case.logits()
    assert torch.equal(case.logits(rope_scaling=fields), own)
    fields = {"full_attention": {"rope_type": "linear", "factor": 3.0}}
    assert not torch.equal(case.logits(rope_scaling=fields), own)


# Every operation in lockstep

Values = dict[str, torch.Tensor]


def our_values(case: Case, **options: Any) -> tuple[Values, Values]:
    """What every operation gives for the first prompt, and transformers' bound on it."""
    tokens_P = case.tokens_BP[0]
    values, bounds = {}, {}
    with ExitStack() as stack, torch.no_grad():
        ours = bitlens.load(case.path, **options)
        reference = bitlens.load(case.path, dtype="fp64", backend="torch")

        def keep(address: str) -> Callable[..., torch.Tensor]:
            def fn(operation: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
                values[address] = operation(*args, **kwargs)
                return values[address]

            return fn

        def bound(address: str) -> Callable[..., torch.Tensor]:
            def fn(operation: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
                name = address.rpartition(".")[2]
                bounds[address] = operation_bound(TRANSFORMERS, name, args, kwargs)
                y: torch.Tensor = operation(*args, **kwargs)
                return y

            return fn

        for address in ours.op_addresses:
            stack.enter_context(ours.override(address, keep(address)))
            stack.enter_context(reference.override(address, bound(address)))
        ours(tokens_P[None])
        reference(tokens_P[None])
    return values, bounds


def in_lockstep(case: Case, ours: Values) -> Values:
    """What transformers' operations give when everything before them is ours, in our shapes."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        case.path, attn_implementation="eager", dtype=torch.float32
    )
    peer, found = TransformersAddresses(model.eval()), {}

    def swap(address: str) -> Callable[..., Any]:
        heads_first = ".rope_" in address

        def fn(operation: Any, *args: Any, **kwargs: Any) -> Any:
            y = operation(*args, **kwargs)
            shown = y.transpose(1, 2) if heads_first else y
            found[address] = shown.reshape(ours[address].shape)
            mine = ours[address].view(shown.shape)
            return mine.transpose(1, 2) if heads_first else mine

        return fn

    with ExitStack() as stack, torch.no_grad():
        assert set(peer.op_addresses) == set(ours)
        for address in peer.op_addresses:
            stack.enter_context(peer.override(address, swap(address)))
        peer(case.tokens_BP[0])
    return found


def check_lockstep(case: Case, **options: Any) -> None:
    ours, bounds = our_values(case, **options)
    theirs = in_lockstep(case, ours)
    for address, y in ours.items():
        assert used(theirs[address], y, 2 * bounds[address].clamp(min=1e-300)) <= 1, address


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_every_operation_agrees_in_lockstep(case: Case, backend: str) -> None:
    check_lockstep(case, backend=backend)


def test_every_operation_agrees_in_lockstep_where_it_follows_the_length(following: Case) -> None:
    check_lockstep(following, backend="torch")
