"""Ranks that do not run the same thing get an error, each of them, and never wait for ever."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import bitlens
import pytest
import torch
from bitlens.model.parallel import Group, GroupError, agreement, from_rank_0, run_in_threads
from bitlens.model.transformer import HookedTransformer
from parallel.sharded import TIMEOUT, checkpoint_of
from support.random_models import random_checkpoint

TOKENS = torch.tensor([[1, 2, 3]])


@pytest.fixture(autouse=True)
def _torch_on_one_thread(_settings_restored: None) -> None:
    torch.set_num_threads(1)


def outcomes(size: int, fn: Callable[[Group], Any]) -> list[Any]:
    """fn's result on each rank, or the error it ended with. No rank may have waited long."""

    def run(group: Group) -> Any:
        try:
            return fn(group)
        except Exception as error:
            return error

    started = time.perf_counter()
    found = run_in_threads(size, run, timeout=TIMEOUT)
    assert time.perf_counter() - started < TIMEOUT
    return found


def load(group: Group, architecture: str = "qwen2", **options: Any) -> HookedTransformer:
    return bitlens.load(checkpoint_of(architecture), group=group, **options)


def check_refused(found: list[Any], message: str) -> None:
    for error in found:
        assert isinstance(error, GroupError), error
        assert message in str(error), error


def test_other_weights_with_equal_settings() -> None:
    """One element of one matrix, in a part that the other ranks do not keep."""
    other = random_checkpoint("qwen2")
    other.reader.tensors["blocks.1.mlp.down.weight"][-1, -1] += 1  # type: ignore[attr-defined]
    checkpoints = [random_checkpoint("qwen2"), other, random_checkpoint("qwen2")]
    found = outcomes(3, lambda group: bitlens.load(checkpoints[group.rank], group=group))
    check_refused(found, "bitlens.load: the ranks differ in weights: rank 1 from rank 0")


def test_other_dtype_or_other_shape() -> None:
    found = outcomes(2, lambda group: load(group, dtype=["fp32", "bf16"][group.rank]))
    check_refused(found, "differ in settings: rank 1 from rank 0")
    found = outcomes(2, lambda group: load(group, ["qwen2", "llama"][group.rank]))
    check_refused(found, "differ in settings")


def test_a_rank_that_cannot_load() -> None:
    def run(group: Group) -> Any:
        return load(group) if group.rank else bitlens.load("/nowhere/model.gguf", group=group)

    first, *others = outcomes(3, run)
    assert isinstance(first, FileNotFoundError)
    check_refused(others, "rank 0 raised an error")


def test_storage_may_differ() -> None:
    def run(group: Group) -> torch.Tensor:
        logits: torch.Tensor = load(group, storage=["packed", "fp32"][group.rank])(TOKENS)
        return logits

    first, second = outcomes(2, run)
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("topic", "call"),
    [
        ("the tokens", lambda model, odd: model(TOKENS + odd)),
        ("the tokens", lambda model, odd: model(TOKENS.expand(1 + odd, -1))),
        ("the arguments", lambda model, odd: model(TOKENS, stop_at_layer=1 + odd)),
        ("the arguments", lambda model, odd: model(TOKENS, return_type=[None, "loss"][odd])),
        (
            "the hooks and overrides",
            lambda model, odd: model.run_with_cache(TOKENS, ["hook_embed"][:odd]),
        ),
        ("the arguments", lambda model, odd: model.generate(TOKENS, max_new_tokens=2 + odd)),
        ("the arguments", lambda model, odd: model.generate(TOKENS, seed=odd)),
        ("rank 2 raised an error", lambda model, odd: model(TOKENS + 1000 * odd)),
        ("different steps", lambda model, odd: (model.generate if odd else model)(TOKENS)),
    ],
)  # fmt: skip
def test_passes_that_differ(topic: str, call: Callable[[HookedTransformer, int], Any]) -> None:
    *others, last = outcomes(3, lambda group: call(load(group), int(group.rank == 2)))
    check_refused(others, topic)
    if "raised" in topic:
        assert isinstance(last, ValueError)
    else:
        check_refused([last], topic)


def test_hooks_that_return_other_bits() -> None:
    def run(group: Group) -> Any:
        def noise(tensor: torch.Tensor, hook: Any) -> torch.Tensor:
            return tensor + torch.randn(tensor.shape)

        with (model := load(group)).hooks([("blocks.1.hook_resid_pre", noise)]):
            return model(TOKENS)

    check_refused(outcomes(2, run), "the hook on blocks.1.hook_resid_pre: the ranks differ in")


def test_a_hook_that_raises_on_one_rank_leaves_all_able_to_go_on() -> None:
    def run(group: Group) -> Any:
        def fragile(tensor: torch.Tensor, hook: Any) -> None:
            if group.rank == 1:
                raise KeyError("mine")

        model = load(group)
        try:
            with model.hooks([("blocks.1.attn.hook_z", fragile)]):
                model(TOKENS)
        except (KeyError, GroupError) as error:
            return error, model(TOKENS)

    (first, logits), (second, again) = outcomes(2, run)
    check_refused([first], "the hook on blocks.1.attn.hook_z: rank 1 raised an error")
    assert isinstance(second, KeyError)
    assert torch.equal(logits, again)


def test_an_override_that_returns_other_bits() -> None:
    def run(group: Group) -> Any:
        def scaled(original: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
            y: torch.Tensor = original(*args, **kwargs)
            return y * (1 + group.rank)

        with (model := load(group)).override("blocks.0.mlp.up", scaled):
            return model(TOKENS)

    check_refused(outcomes(2, run), "the override of blocks.0.mlp.up")


def test_a_rank_that_ends_ends_the_others() -> None:
    def run(group: Group) -> Any:
        model = load(group)
        if group.rank == 1:
            raise KeyboardInterrupt
        return model(TOKENS)

    with pytest.raises(KeyboardInterrupt):
        run_in_threads(3, run, timeout=TIMEOUT)

    def returns_early(group: Group) -> Any:
        model = load(group)
        return None if group.rank == 1 else model(TOKENS)

    with pytest.raises(GroupError, match="another rank ended"):
        run_in_threads(2, returns_early, timeout=2.0)


def test_the_first_cause_is_raised() -> None:
    def run(group: Group) -> Any:
        if group.rank == 2:
            raise ZeroDivisionError
        return group.all_gather(torch.zeros(1))

    with pytest.raises(ZeroDivisionError):
        run_in_threads(3, run, timeout=TIMEOUT)


def test_gathering_different_shapes_is_an_error() -> None:
    found = outcomes(2, lambda group: group.all_gather(torch.zeros(1 + group.rank)))
    check_refused(found, "gather different things")


def test_agreement_without_a_group_says_nothing() -> None:
    with agreement(None, "a step", "a topic") as statement:
        statement.say("a topic", TOKENS)
    assert statement.digest() == b""
    assert from_rank_0(None, b"alone") == b"alone"


def test_rank_0_decides() -> None:
    values = [b"first", b"", b"the longest of them"]
    assert run_in_threads(3, lambda g: from_rank_0(g, values[g.rank])) == [b"first"] * 3


def test_arguments_that_cannot_be() -> None:
    with pytest.raises(TypeError, match=r"group: expected a torch\.distributed group"):
        bitlens.load(checkpoint_of("llama"), group=3)
    found = outcomes(2, lambda group: load(group, backend="torch"))
    assert all("group: only native kernels" in str(error) for error in found)
    found = outcomes(2, lambda group: load(group, dtype="fp64"))
    assert all(isinstance(e, ValueError) and "fp64" in str(e) for e in found)


def test_gradients_over_ranks_are_refused() -> None:
    vector = torch.zeros(1, requires_grad=True)

    def backward(group: Group) -> Any:
        return load(group).run_with_hooks(TOKENS, bwd_hooks=[("hook_embed", lambda g, hook: None)])

    def forward(group: Group) -> Any:
        return load(group).run_with_hooks(TOKENS, [("hook_embed", lambda x, hook: x + vector)])

    for run in (backward, forward):
        for error in outcomes(2, run):
            assert isinstance(error, ValueError)
            assert "none over several ranks" in str(error)


def test_a_group_of_one_is_no_group() -> None:
    (model,) = run_in_threads(1, load)
    assert model.group is None
    assert model.vocab_start == 0
