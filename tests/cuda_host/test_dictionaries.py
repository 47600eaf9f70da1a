"""Dictionaries: CUDA kernels on the executor select, decode and splice with the CPU's bits."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from bitlens.interp.dictionaries import kernels as dictionaries
from bitlens.interp.splicing import Edit, splice
from bitlens.model.load import load
from hypothesis import given
from hypothesis import strategies as st
from support.cuda_host import (
    ORDERS,
    assert_same_bits,
    host_dictionaries,
    host_library,
    host_model,
    launching,
    threads_in_order,
)
from support.random_dictionaries import random_dictionary
from support.random_models import random_checkpoint

SPECIAL = torch.tensor([0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan, 1e-45, 1.0])


@pytest.fixture(params=ORDERS)
def order(request: pytest.FixtureRequest) -> Iterator[None]:
    with threads_in_order(request.param):
        yield


def matrix(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def same_indices(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    return found.dtype is wanted.dtype and torch.equal(found.cpu(), wanted)


@pytest.mark.parametrize(("n", "k"), [(1, 1), (40, 7), (257, 257), (1500, 32)])
def test_top_k(order: None, n: int, k: int) -> None:
    """Ties, zeros of both signs, infinities, NaN, and a row of nothing else."""
    x = matrix(4, n)
    x[1], x[2] = SPECIAL.repeat(n)[:n], math.nan
    x[3, n // 2 :] = x[3, 0]
    with launching("top_k"):
        values, indices = host_dictionaries().top_k(x, k)
    wanted = dictionaries.top_k(x, k)
    assert same_indices(indices, wanted.indices)
    assert_same_bits(values, wanted.values)


@given(
    st.lists(st.sampled_from(SPECIAL.tolist()) | st.floats(width=32), min_size=1, max_size=600),
    st.integers(1, 600),
    st.sampled_from(["up", "down", "3", "19"]),
)
def test_any_row_has_the_same_top_k(values: list[float], k: int, order: str) -> None:
    x, k = torch.tensor([values], dtype=torch.float32), min(k, len(values))
    with threads_in_order(order):
        found, indices = host_dictionaries().top_k(x, k)
    wanted = dictionaries.top_k(x, k)
    assert same_indices(indices, wanted.indices)
    assert_same_bits(found, wanted.values)


@pytest.mark.parametrize("d", [1, 83, 300])
def test_sums_of_few_rows(order: None, d: int) -> None:
    table, coefs, bias = matrix(50, d, seed=1), matrix(600, seed=2), matrix(d, seed=3)
    generator = torch.Generator().manual_seed(4)
    indices = torch.randint(-1, 50, (600,), dtype=torch.int32, generator=generator)
    starts, gpu = torch.tensor([0, 0, 7, 550, 600]), host_dictionaries()
    for added in (bias, None):
        with launching("weighted_sums"):
            found = gpu.weighted_sums(coefs, indices, starts, table, added)
        assert_same_bits(found, dictionaries.weighted_sums(coefs, indices, starts, table, added))
    x = matrix(4, d, seed=5)
    with launching("gathered_dots"):
        found = gpu.gathered_dots(x, indices, starts, table)
    assert_same_bits(found, dictionaries.gathered_dots(x, indices, starts, table))
    turned = dictionaries.weighted_sums(
        coefs[7:550].flip(0), indices[7:550].flip(0), torch.tensor([0, 543]), table, bias
    )
    ours = gpu.weighted_sums(coefs, indices, starts, table, bias)
    assert not torch.equal(ours[2].cpu(), turned[0])  # the order shows


@pytest.mark.parametrize("d", [1, 256, 577])
def test_norms_of_rows(order: None, d: int) -> None:
    x, gpu = matrix(4, d), host_dictionaries()
    x[2] = 0.0
    with launching("sums_of_squares"):
        assert_same_bits(gpu.sums_of_squares(x), dictionaries.sums_of_squares(x))
    ours, wanted = x.clone(), x.clone()
    with launching("unit_rows"):
        gpu.unit_rows_(ours)
    dictionaries.unit_rows_(wanted)
    assert_same_bits(ours, wanted)


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Dictionaries run on the executor, as on a GPU where their tensors are there."""
    if host_library().device.type == "cpu":
        monkeypatch.setattr(dictionaries, "on_gpu", lambda x: host_dictionaries())
    return monkeypatch


PLACES = {
    "topk": ("blocks.1.hook_resid_post", None),
    "jumprelu": ("blocks.1.hook_resid_mid", None),
    "gated": ("blocks.0.hook_attn_out", None),
    "skip_transcoder": ("blocks.1.ln2.hook_normalized", "blocks.1.mlp.hook_out"),
}


@pytest.mark.parametrize("architecture", PLACES)
def test_a_dictionary_inside_a_model(on_gpu: pytest.MonkeyPatch, architecture: str) -> None:
    checkpoint = random_checkpoint("llama")
    theirs, tokens = load(checkpoint), torch.tensor([[7, 3, 1, 4], [1, 5, 9, 2]])
    dictionary = random_dictionary(theirs, *PLACES[architecture], architecture)
    edits = [Edit(3, "add", 2.0)]
    before = host_library().launches()
    dictionary.to(host_library().device)
    with splice(host_model(checkpoint, "fp32"), dictionary, edits=edits) as spliced:
        found = {"logits": spliced(tokens).cpu(), **spliced.run_with_cache(tokens)[1]}
    after = host_library().launches()
    assert after["weighted_sums"] > before["weighted_sums"]
    on_gpu.undo()
    dictionary.to("cpu")
    with splice(theirs, dictionary, edits=edits) as spliced:
        wanted = {"logits": spliced(tokens), **spliced.run_with_cache(tokens)[1]}
    assert host_library().launches() == after
    assert found.keys() == wanted.keys()
    for name, x in wanted.items():
        if x.is_floating_point():
            assert_same_bits(found[name], x)
    assert not torch.equal(found["logits"], theirs(tokens))


def test_rows_on_another_device_are_refused() -> None:
    dictionary = random_dictionary(load(random_checkpoint("llama")), "blocks.1.hook_resid_post")
    with pytest.raises(ValueError, match="move it with to"):
        dictionary.encode(torch.empty(2, dictionary.cfg.d_in, device="meta"))
