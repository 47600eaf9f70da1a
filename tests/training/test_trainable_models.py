"""Models whose weights can be trained: same forward, every gradient, weights that follow."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import bitlens
import pytest
import torch
from bitlens import _core
from bitlens.model.cache import PrefixCache
from bitlens.model.gradients import weight_kernels
from bitlens.model.hooks.registry import same_bits
from bitlens.model.ops import kernels
from bitlens.model.transformer import HookedTransformer
from support.random_models import CONFIGS, random_checkpoint, random_model

U = 2.0**-24
POLICIES = ("fp32", "bf16", "bf16_weights")
LENGTHS = (11, 7, 258, 2)


def _batch(rows: slice = slice(None), left: bool = False) -> dict[str, torch.Tensor]:
    """Some of four sequences, one longer than a leaf, padded."""
    generator = torch.Generator().manual_seed(5)
    tokens = torch.randint(0, 250, (4, max(LENGTHS)), generator=generator)[rows]
    lengths = torch.tensor(LENGTHS)[rows, None]
    columns = torch.arange(tokens.shape[1])
    mask = columns >= tokens.shape[1] - lengths if left else columns < lengths
    placed = torch.full_like(tokens, 9)
    placed[mask] = tokens[columns < lengths]
    return {"tokens": placed, "attention_mask": mask.long()}


def _weigh(logprobs: torch.Tensor, rows: slice = slice(None)) -> torch.Tensor:
    """A loss whose gradient differs from token to token, in either padding."""
    sizes = torch.arange(1, 5)[rows, None] / 7
    return (logprobs * logprobs.detach() * sizes).sum()


def _gradients(
    model: HookedTransformer, cuts: tuple[int, ...] = (0, 4), left: bool = False
) -> dict[str, torch.Tensor]:
    assert model.trained is not None
    model.trained.clear_gradients()
    for first, last in itertools.pairwise(cuts):
        rows = slice(first, last)
        _weigh(model.logprobs(**_batch(rows, left)), rows).backward()
    return model.trained.gradients()


def _same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(same_bits(a[name], b[name]) for name in a)


LONG = {"n_ctx": 512}


@pytest.mark.parametrize("architecture", CONFIGS)
def test_every_weight_has_a_gradient_near_fp64s(architecture: str) -> None:
    """To a few hundred roundings, as activations' gradients where no bound is derived; the kernels'
    own bounds are in test_weight_gradients.py."""
    checkpoint = random_checkpoint(architecture, **LONG)
    model = bitlens.load(checkpoint, trainable="full")
    double = bitlens.load(checkpoint, dtype="fp64", backend="torch")
    found = _gradients(model)
    assert found.keys() == set(checkpoint.names())
    _weigh(double.logprobs(**_batch())).backward()
    modules = {getattr(module, "address", "embed"): module for module in double.modules()}
    modules["embed"] = double.embed
    for name, gradient in found.items():
        address, _, kind = name.rpartition(".")
        truth = getattr(modules[address], kind).grad
        assert (gradient.double() - truth).norm() <= 300 * U * truth.norm(), name


@contextmanager
def _seen() -> Iterator[list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]]:
    """What the kernel of a linear's gradient was given and made of it, one call each."""
    calls = []
    add = weight_kernels.add_linear_weight_grad

    def spy(sums: torch.Tensor, dy: torch.Tensor, x: torch.Tensor, starts: torch.Tensor) -> None:
        add(sums, dy, x, starts)
        alone = torch.zeros_like(sums)
        add(alone, dy, x, starts)
        calls.append((alone, dy, x))

    with mock.patch.object(weight_kernels, "add_linear_weight_grad", spy):
        yield calls


@pytest.mark.parametrize("dtype", POLICIES)
def test_matrices_gradients_are_within_their_bound(dtype: str) -> None:
    model = random_model("qwen2", dtype=dtype, trainable="full", changes=LONG)
    with _seen() as calls:
        _gradients(model)
    assert len(calls) >= 7 * 3 + 1
    n = 256 + 5
    for found, dy, x in calls:
        exact, size = dy.double().T @ x.double(), dy.double().T.abs() @ x.double().abs()
        assert bool(((found - exact).abs() <= n * U / (1 - n * U) * size).all())


@pytest.mark.parametrize(
    "dtype", ["fp32", "bf16", pytest.param("bf16_weights", marks=pytest.mark.nightly)]
)
def test_cuts_padding_threads_and_recomputation_move_no_bit(dtype: str) -> None:
    model = random_model("gemma3", dtype=dtype, trainable="full", changes=LONG)
    bitlens.set_num_threads(1)
    whole = _gradients(model)
    bitlens.set_num_threads(2)
    for cuts, left in (((0, 4), True), ((0, 1, 2, 3, 4), False), ((0, 3, 4), True)):
        assert _same(_gradients(model, cuts, left), whole), (cuts, left)
    model.gradient_checkpointing_enable()
    assert _same(_gradients(model, (0, 2, 4)), whole)
    halves = [_gradients(model, cuts) for cuts in ((0, 2), (2, 4))]
    apart = {name: kernels.add(halves[0][name], halves[1][name]) for name in whole}
    assert not _same(apart, whole), "sums of parts have other bits than one sum"


def test_instruction_sets_move_no_bit() -> None:
    model = random_model("llama", trainable="full", changes=LONG)
    found = []
    for isa in _core.available_isas():
        _core.set_isa(isa)
        found.append(_gradients(model, (0, 2)))
    assert len(found) > 1
    assert all(_same(other, found[0]) for other in found[1:])


@pytest.mark.parametrize("dtype", POLICIES)
@pytest.mark.parametrize("architecture", CONFIGS)
def test_kernels_follow_the_weights(architecture: str, dtype: str) -> None:
    checkpoint = random_checkpoint(architecture)
    model = bitlens.load(checkpoint, dtype=dtype, trainable="full")
    before, plain = model.fingerprint(), bitlens.load(checkpoint, dtype=dtype)
    tokens = torch.arange(1, 12)[None]
    assert before == plain.fingerprint()
    assert same_bits(model(tokens).detach(), plain(tokens))
    assert model.trained is not None
    generator = torch.Generator().manual_seed(1)
    for value in model.trained.values.values():
        value.add_(torch.randn(value.shape, generator=generator), alpha=0.01)
    model.trained.rewrite()
    anew = bitlens.load(model.trained.checkpoint(), dtype=dtype)
    with torch.no_grad():
        fused = model(tokens)
    assert model.fingerprint() == anew.fingerprint() != before
    assert same_bits(fused, anew(tokens))
    assert not same_bits(fused, plain(tokens))
    assert same_bits(model(tokens).detach(), fused)
    assert same_bits(model.logprobs(tokens).detach(), anew.logprobs(tokens))
    again = bitlens.load(model.trained.checkpoint(), dtype=dtype, trainable="full")
    for each in (model, again):
        each.logprobs(tokens).sum().backward()
    assert again.trained is not None
    assert _same(model.trained.gradients(), again.trained.gradients())


def test_the_source_in_memory_stays_as_it_was() -> None:
    checkpoint = random_checkpoint("qwen2")
    model = bitlens.load(checkpoint, trainable="full")
    before = bitlens.load(checkpoint).fingerprint()
    assert model.trained is not None
    for value in model.trained.values.values():
        value.zero_()
    model.trained.rewrite()
    assert bitlens.load(checkpoint).fingerprint() == before


def test_scored_tokens_alone_are_counted() -> None:
    model = random_model("llama", changes=LONG)
    batch = _batch()
    every = model.logprobs(**batch)
    scored = batch["attention_mask"].bool()
    scored[:, :2] = False
    some = model.logprobs(**batch, scored=scored)
    assert same_bits(some, every.where(scored, 0.0))
    with pytest.raises(ValueError, match="scored: nothing comes before"):
        model.logprobs(**batch, scored=batch["attention_mask"].bool())
    with pytest.raises(ValueError, match="scored: names padding"):
        model.logprobs(**batch, scored=~scored)
    with pytest.raises(ValueError, match="no token is left"):
        model.logprobs(torch.tensor([[5]]))


def test_what_cannot_be_trained_is_refused() -> None:
    checkpoint = random_checkpoint("llama")
    with pytest.raises(ValueError, match="hf_bf16' has no gradients"):
        bitlens.load(checkpoint, dtype="hf_bf16", trainable="full")
    with pytest.raises(ValueError, match="Parameters already"):
        bitlens.load(checkpoint, backend="torch", trainable="full")
    with pytest.raises(ValueError, match="expected 'full', 'lora'"):
        bitlens.load(checkpoint, trainable="half")  # type: ignore[arg-type]
    trained = bitlens.load(checkpoint, trainable="full")
    scaling = {"rope_type": "linear", "factor": 2.0}
    with pytest.raises(ValueError, match="is not trained, are shared"):
        trained.with_rope_scaling(scaling)


def test_hooks_that_edit_a_norm_leave_its_weight_a_gradient() -> None:
    """An edited norm runs in parts, and what comes before a detached edit has no gradient."""
    checkpoint = random_checkpoint("qwen3", **LONG)
    names = ("blocks.1.ln1.hook_scale", "blocks.1.attn.q_norm.hook_normalized")
    hooks = [(name, lambda x, hook: x * 1.25) for name in names]
    model = bitlens.load(checkpoint, trainable="full")
    double = bitlens.load(checkpoint, dtype="fp64", backend="torch")
    for each in (model, double):
        with each.hooks(hooks):
            _weigh(each.logprobs(**_batch())).backward()
    assert model.trained is not None
    found, modules = model.trained.gradients(), dict(double.named_modules())
    for name in ("blocks.1.ln1", "blocks.1.attn.q_norm", "blocks.0.mlp.up", "blocks.2.attn.k"):
        truth = modules[name].weight.grad
        assert (found[f"{name}.weight"].double() - truth).norm() <= 300 * U * truth.norm(), name
    model.trained.clear_gradients()
    with model.hooks([("blocks.1.hook_resid_pre", lambda x, hook: x.detach())]):
        _weigh(model.logprobs(**_batch())).backward()
    found = model.trained.gradients()
    assert "blocks.1.attn.q.weight" in found
    assert "blocks.0.attn.q.weight" not in found


def test_no_page_outlives_a_policy() -> None:
    model = random_model("llama", trainable="full")
    assert model.trained is not None
    cache = PrefixCache(model, 1 << 22)
    ids = list(range(1, 101))

    def logits() -> tuple[torch.Tensor, int]:
        with torch.no_grad(), cache.prompt(ids) as prompt:
            rest = torch.tensor(ids[prompt.n_cached :])
            return model(rest, kv_cache=prompt.kv_cache)[0, -1], prompt.n_cached

    first, again = logits(), logits()
    assert (first[1], again[1]) == (0, 99)
    assert same_bits(first[0], again[0])
    model.trained.values["embed.weight"].mul_(1.5)
    model.trained.rewrite()
    assert cache.match(ids) == 0
    second, n_cached = logits()
    assert n_cached == 0
    with torch.no_grad():
        assert same_bits(second, model(torch.tensor(ids))[0, -1])
    assert not same_bits(second, first[0])
