"""Edges: exact sums, autograd's values, the same bits however they are computed."""

from __future__ import annotations

import bitlens
import pytest
import torch
from bitlens.interp.circuits.attribution import Attribution, Rows
from bitlens.interp.circuits.replacement import Replacement, replacement_of
from bitlens.interp.circuits.transcoders import layer_transcoders
from bitlens.model.hooks.registry import same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from support.frozen_oracle import FrozenOracle, gamma
from support.random_models import CONFIGS, random_model
from support.random_transcoders import PLACES, random_cross_layer, random_set

MODELS = {name: random_model(name) for name in CONFIGS}
TOKENS = torch.tensor([[7, 3, 1, 4, 1, 5, 9, 2]])


def replaced(name: str, place: int, cross: bool, seed: int, tokens: torch.Tensor) -> Replacement:
    model = MODELS[name]
    read, write = PLACES[place]
    if cross:
        activation = ("topk", "jumprelu", "relu")[seed % 3]
        found = layer_transcoders(
            random_cross_layer(model, read, activation, seed=seed, write=write), model
        )
    else:
        layers = (0, 1, 2) if seed % 2 else (0, 2)
        found = layer_transcoders(random_set(model, read, write, layers=layers, seed=seed), model)
    return replacement_of(model, tokens, found)


def every_target(r: Replacement) -> list[tuple[list[int], Rows]]:
    a = Attribution(r)
    found = []
    for start, stop in r.features.spans.values():
        if stop > start:
            found.append((list(range(start, stop)), a.of_features(torch.arange(start, stop))))
    return found


@settings(max_examples=8)
@given(
    name=st.sampled_from(sorted(CONFIGS)),
    place=st.integers(0, len(PLACES) - 1),
    cross=st.booleans(),
    seed=st.integers(0, 1000),
    n_tokens=st.integers(2, 12),
)
def test_edges_and_bias_sum_to_the_pre_activation(
    name: str, place: int, cross: bool, seed: int, n_tokens: int
) -> None:
    """Of every feature, and of logits, within the bound that fp32's roundings give."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 260, (1, n_tokens), generator=generator)
    r = replaced(name, place, cross, seed, tokens)
    oracle, g = FrozenOracle(r), gamma(r)
    assert g < 1e-3
    for numbers, rows in every_target(r):
        sums = rows.weights.double().sum(1) + rows.bias
        chosen = numbers[:: max(1, len(numbers) // 2)]
        for i in chosen:
            limit = g * oracle.of_feature(i).magnitude
            row = numbers.index(i)
            assert abs(float(sums[row]) - float(r.features.value[i])) <= limit
            # The control: without its largest edge, the sum is not it.
            largest = float(rows.weights[row].abs().max())
            if largest > 2 * limit:
                assert abs(float(sums[row]) - largest - float(r.features.value[i])) > limit
    model = r.frozen.model
    W_U = model.W_U.T.float()
    direction = W_U[5] - W_U.mean(0)
    rows = Attribution(r).of_directions(direction[None])
    logits = r.frozen.logits().double()
    value = float(logits[5] - logits.mean())
    limit = g * (oracle.of_direction(direction).magnitude + float(logits.abs().max()))
    assert abs(float(rows.weights.double().sum() + rows.bias[0]) - value) <= limit


@pytest.mark.parametrize("cross", [False, True])
@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma3"])
def test_edges_are_autograds(name: str, cross: bool) -> None:
    """Every edge, in fp64 with patterns and scales as constants."""
    r = replaced(name, 3, cross, 1, TOKENS)
    oracle, g = FrozenOracle(r), gamma(r)
    n_compared = 0
    for numbers, rows in every_target(r):
        for i in numbers[::40]:
            expected = oracle.of_feature(i)
            row = numbers.index(i)
            limits = g * expected.sizes
            assert bool(((rows.weights[row] - expected.weights).abs() <= limits).all())
            assert abs(float(rows.bias[row]) - expected.bias) <= g * expected.magnitude
            n_compared += int((expected.weights.abs() > 10 * limits).sum())
    assert n_compared > 150  # edges that the bound tells from 0


def test_the_oracle_is_the_models_own_gradient() -> None:
    """The native backend's autograd, hooks holding patterns, scales and MLP outputs fixed."""
    r = replaced("llama", 0, False, 0, TOKENS)
    model, layer = r.frozen.model, 2
    leaf = torch.zeros_like(r.frozen.embed[None], requires_grad=True)
    constants = [(f"blocks.{i}.attn.hook_pattern", r.frozen.patterns[i]) for i in range(3)]
    constants += [(name, scale) for name, scale in r.frozen.scales()[:-1]]
    hooks = [
        (name, lambda x, hook, value=value: value[None].expand_as(x).clone())
        for name, value in constants
    ]
    hooks += [
        (f"blocks.{i}.hook_mlp_out", lambda x, hook, i=i: r.frozen.written[i][None].clone())
        for i in range(layer)
    ]
    hooks.append(("hook_embed", lambda x, hook: x + leaf))
    seen = []
    hooks.append((f"blocks.{layer}.hook_mlp_in", lambda x, hook: seen.append(x)))
    model.run_with_hooks(TOKENS, hooks, return_type=None, stop_at_layer=layer + 1)
    number = r.features.spans[layer][1] - 1
    at, feature = int(r.features.position[number]), r.features.feature[number : number + 1]
    (seen[0][0, at] @ r.transcoders.encoder(layer, feature)[0]).backward()
    assert leaf.grad is not None
    found = (leaf.grad[0].double() * r.frozen.embed.double()).sum(1)
    expected = FrozenOracle(r).of_feature(number)
    last = slice(-TOKENS.shape[1], None)
    limits = gamma(r) * expected.sizes[last]
    assert bool(((found - expected.weights[last]).abs() <= limits).all())
    assert bool((found.abs() > 10 * limits).any())
    assert not bool(found[at + 1 :].any())


def test_bits_do_not_depend_on_the_batch_or_the_threads() -> None:
    r = replaced("mistral", 1, True, 0, TOKENS)
    a = Attribution(r)
    start, stop = r.features.spans[2]
    whole = a.of_features(torch.arange(start, stop))
    for i in (start, stop - 1):
        alone = a.of_features(torch.tensor([i]))
        assert same_bits(alone.weights[0], whole.weights[i - start])
        assert float(alone.bias[0]) == float(whole.bias[i - start])
    bitlens.set_num_threads(1)
    assert same_bits(a.of_features(torch.arange(start, stop)).weights, whole.weights)


def test_patterns_may_be_computed_again() -> None:
    model = MODELS["llama"]
    transcoders = layer_transcoders(random_set(model), model)
    kept = replacement_of(model, TOKENS, transcoders)
    again = replacement_of(model, TOKENS, transcoders, keep_patterns=False)
    assert not again.frozen.patterns._kept
    number = torch.tensor([kept.features.spans[2][0]])
    rows = [Attribution(each).of_features(number) for each in (kept, again)]
    assert same_bits(rows[0].weights, rows[1].weights)


def test_position_0_has_no_features_and_its_error_is_what_the_mlp_wrote() -> None:
    r = replaced("llama", 3, True, 0, TOKENS)
    assert int((r.features.position == 0).sum()) == 0
    for layer in range(r.n_layers):
        b_dec = r.transcoders.b_dec(layer)
        assert b_dec is not None
        assert torch.allclose(r.errors[layer, 0] + b_dec, r.frozen.written[layer][0], atol=1e-6)
