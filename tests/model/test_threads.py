"""One model, many threads: what a call installs belongs to that call."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from bitlens.model.hooks.registry import HookPoint, same_bits
from bitlens.model.transformer import HookedTransformer
from bitlens.precision.divergence import first_divergence
from bitlens.precision.divergence.first_divergence import Mode
from bitlens.precision.divergence.stream import Stream
from support.random_models import random_model
from support.shared_model import Outcome, run_threads, uses

TOKENS = torch.tensor([[1, 2, 3, 4, 5, 6, 7], [9, 8, 7, 6, 5, 4, 3]])
BACKENDS = ("native", "torch")
RESID = "blocks.1.hook_resid_pre"
THREADS = 8
MODES: tuple[Mode, ...] = ("free", "lockstep")


@pytest.fixture(autouse=True)
def _one_torch_thread() -> None:
    """The tensors are tiny: threads would only wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(params=BACKENDS)
def model(request: pytest.FixtureRequest) -> HookedTransformer:
    return random_model("llama", backend=request.param)


def elsewhere(fn: Callable[[], Any]) -> Any:
    """What fn gives in a thread of its own, which inherits nothing."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(fn()))
    thread.start()
    thread.join()
    (result,) = found
    return result


def halve(tensor: torch.Tensor, *, hook: HookPoint) -> torch.Tensor:
    return tensor * 0.5


def mixed(model: HookedTransformer, seconds: float, threads: int = THREADS) -> Outcome:
    """Every thread makes every use of the model, with tokens of its own."""
    tokens = [torch.roll(TOKENS, i, 1) for i in range(threads)]
    return run_threads([uses(model, each) for each in tokens], seconds)


def check(outcome: Outcome, model: HookedTransformer, threads: int = THREADS) -> None:
    assert not outcome.errors, outcome.errors[:3]
    assert outcome.wrong.total() == 0, outcome.wrong
    assert all(outcome.results[name] >= threads for name in uses(model, TOKENS))


def test_threads_that_share_a_model_get_what_they_would_get_alone() -> None:
    model = random_model("llama")
    check(mixed(model, 5), model)


def test_threads_that_share_a_torch_model_get_what_they_would_get_alone() -> None:
    model = random_model("llama", backend="torch")
    check(mixed(model, 0, threads=3), model, threads=3)


@pytest.mark.nightly
@pytest.mark.parametrize("options", [{}, {"dtype": "bf16"}, {"backend": "torch"}], ids=repr)
@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_threads_for_a_minute(name: str, options: dict[str, Any]) -> None:
    model = random_model(name, **options)
    check(mixed(model, 60), model)


def test_control_a_hook_on_the_model_reaches_every_thread() -> None:
    model = random_model("llama")
    plain = {"forward": lambda: {"logits": model(TOKENS)}}

    def edit() -> dict[str, torch.Tensor]:
        model.add_hook(RESID, halve)
        try:
            return {"logits": model(TOKENS)}
        finally:
            model.reset_hooks()

    outcome = run_threads([plain, {"edit": edit}], 0.5)
    assert not outcome.errors
    assert outcome.wrong["forward"] > 0


def _doubled(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return original(*args, **kwargs) * 2


INSTALLATIONS: dict[str, Callable[[Any, Callable[[], object]], Any]] = {
    "run_with_hooks": lambda model, meanwhile: model.run_with_hooks(
        TOKENS, [(RESID, _editor(meanwhile))]
    ),
    "hooks": lambda model, meanwhile: _in(model.hooks([(RESID, halve)]), meanwhile),
    "backward hooks": lambda model, meanwhile: _in(
        model.hooks(bwd_hooks=[(RESID, halve)]), meanwhile
    ),
    "override": lambda model, meanwhile: _in(
        model.override("blocks.0.mlp.down", _doubled), meanwhile
    ),
}


def _editor(meanwhile: Callable[[], object]) -> Any:
    def fn(tensor: torch.Tensor, *, hook: HookPoint) -> torch.Tensor:
        meanwhile()
        return tensor * 0.5

    return fn


def _in(block: Any, meanwhile: Callable[[], object]) -> None:
    with block:
        meanwhile()


@pytest.mark.parametrize("installation", INSTALLATIONS)
def test_another_thread_sees_nothing_of_it(model: HookedTransformer, installation: str) -> None:
    expected = model(TOKENS)
    found: list[torch.Tensor] = []
    INSTALLATIONS[installation](model, lambda: found.append(elsewhere(lambda: model(TOKENS))))
    assert len(found) == 1
    assert same_bits(found[0], expected)
    assert found[0].requires_grad is expected.requires_grad


def test_a_block_reaches_the_threads_that_carry_its_context(model: HookedTransformer) -> None:
    expected = model.run_with_hooks(TOKENS, [(RESID, halve)])
    with model.hooks([(RESID, halve)]):
        context = contextvars.copy_context()
    assert same_bits(elsewhere(lambda: context.run(model, TOKENS)), expected)
    assert not same_bits(model(TOKENS), expected)


def test_a_call_inside_a_hook_has_hooks_of_its_own(model: HookedTransformer) -> None:
    expected, inner = model(TOKENS), []

    def fn(tensor: torch.Tensor, *, hook: HookPoint) -> torch.Tensor:
        inner.append(model(TOKENS))
        return tensor * 0.5

    assert not same_bits(model.run_with_hooks(TOKENS, [(RESID, fn)]), expected)
    assert len(inner) == 1
    assert same_bits(inner[0], expected)


def test_a_hook_that_is_added_during_a_pass_waits_for_the_next(model: HookedTransformer) -> None:
    calls: list[str] = []

    def late(tensor: torch.Tensor, *, hook: HookPoint) -> None:
        calls.append(hook.name)

    def adds(tensor: torch.Tensor, *, hook: HookPoint) -> None:
        model.reset_hooks()
        model.add_hook(RESID, late)
        model.add_hook("unembed.hook_in", late)

    model.add_hook("hook_embed", adds)
    model.add_hook(RESID, halve)
    expected = model.run_with_hooks(TOKENS, [])
    assert calls == []
    assert not same_bits(expected, model(TOKENS))
    assert calls == [RESID, "unembed.hook_in"]


def test_hooks_run_from_the_models_to_the_calls(model: HookedTransformer) -> None:
    calls: list[str] = []

    def say(word: str) -> Any:
        return lambda tensor, hook: calls.append(word)

    with model.hooks([(RESID, say("outer"))]), model.hooks([(RESID, say("inner"))]):
        model.add_hook(RESID, say("model"))
        model.run_with_hooks(TOKENS, [(RESID, say("call"))])
        model.reset_hooks()
        model(TOKENS)
    assert calls == ["model", "outer", "inner", "call", "outer", "inner"]


def test_blocks_may_end_in_any_order(model: HookedTransformer) -> None:
    first, second = model.hooks([(RESID, halve)]), model.hooks([(RESID, halve)])
    once = model.run_with_hooks(TOKENS, [(RESID, halve)])
    plain = model(TOKENS)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert same_bits(model(TOKENS), once)
    second.__exit__(None, None, None)
    assert same_bits(model(TOKENS), plain)


def test_a_stream_of_a_pass_carries_what_its_user_installed() -> None:
    model, peer = random_model("llama"), random_model("llama")
    with peer.override("blocks.0.mlp.down", _doubled):
        for mode in MODES:
            report = first_divergence(model, peer, TOKENS[:1], mode=mode)
            assert report.first == "blocks.0.mlp.down"
    assert first_divergence(model, peer, TOKENS[:1]).first is None


def test_a_stream_of_a_pass_is_unseen_by_other_threads(model: HookedTransformer) -> None:
    expected = model(TOKENS)
    sites = {address: model.site(address) for address in model.op_addresses}
    with Stream(model, TOKENS, sites) as stream:
        stream.take("embed")
        assert same_bits(elsewhere(lambda: model(TOKENS)), expected)
        assert same_bits(stream.finish(), expected)


def test_ctx_belongs_to_the_model() -> None:
    model = random_model("llama")

    def count(tensor: torch.Tensor, *, hook: HookPoint) -> None:
        hook.ctx["calls"] = int(str(hook.ctx.get("calls", 0))) + 1

    elsewhere(lambda: model.run_with_hooks(TOKENS, [(RESID, count)]))
    model.run_with_hooks(TOKENS, [(RESID, count)])
    assert model.hook_dict[RESID].ctx == {"calls": 2}


def test_threads_may_ask_for_the_fingerprint_at_once() -> None:
    expected = random_model("llama").fingerprint()
    model = random_model("llama")
    together = threading.Barrier(THREADS)
    found: list[str] = []

    def ask() -> None:
        together.wait()
        found.append(model.fingerprint())

    threads = [threading.Thread(target=ask) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * THREADS
