"""Weights under TransformerLens's names: every value as it is stored, on every backend."""

from __future__ import annotations

from typing import Any

import bitlens
import pytest
import torch
from bitlens.model.ops.packed import pack
from bitlens.model.transformer import HookedTransformer
from bitlens.model.weights.checkpoint import Format, StoredMatrix
from support.random_models import CONFIGS, byte_tokenizer, random_checkpoint, random_model

LOADS: list[dict[str, Any]] = [
    {},
    {"dtype": "bf16"},
    {"backend": "torch", "dtype": "fp64"},
]


@pytest.fixture(params=LOADS, ids=str)
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = request.param
    return found


@pytest.mark.parametrize("architecture", CONFIGS)
def test_projections_use_the_views(architecture: str, options: dict[str, Any]) -> None:
    checkpoint = random_checkpoint(architecture)
    c = checkpoint.config
    model = bitlens.load(checkpoint, **options)
    dtype = model.ops.policy.activation

    def stored(name: str) -> torch.Tensor:
        return checkpoint.matrix(f"{name}.weight").dequantize().to(model.ops.policy.weight)

    for i in range(c.n_layers):
        for name, view, heads in (
            ("q", model.W_Q, c.n_heads),
            ("k", model.W_K, c.n_key_value_heads),
            ("v", model.W_V, c.n_key_value_heads),
        ):
            W_HhD = stored(f"blocks.{i}.attn.{name}").view(heads, c.d_head, c.d_model)
            for head in range(c.n_heads):
                own = W_HhD[head // (c.n_heads // heads)]
                assert torch.equal(view[i, head], own.T.to(dtype))
        W_Hhd = model.W_O[i]
        assert torch.equal(W_Hhd.flatten(0, 1), stored(f"blocks.{i}.attn.o").T.to(dtype))
        for name, view in (("gate", model.W_gate), ("up", model.W_in), ("down", model.W_out)):
            assert torch.equal(view[i], stored(f"blocks.{i}.mlp.{name}").T.to(dtype))
    unembed = "embed" if c.tie_embeddings else "unembed"
    assert torch.equal(model.W_U, stored(unembed).T.to(dtype))
    tokens = torch.tensor([3, 1, 4])
    _, cache = model.run_with_cache(tokens, names_filter="hook_embed")
    assert torch.equal(model.W_E[tokens], cache["embed"][0])


def test_biases() -> None:
    checkpoint = random_checkpoint("qwen2")
    model = bitlens.load(checkpoint)
    shared = checkpoint.vector("blocks.1.attn.k.bias").view(3, 10).repeat_interleave(2, 0)
    assert torch.equal(model.b_K[1], shared)
    assert torch.equal(model.b_Q[1].flatten(), checkpoint.vector("blocks.1.attn.q.bias"))
    for name, shape in (("b_O", (3, 42)), ("b_gate", (3, 72)), ("b_out", (3, 42)), ("b_U", (260,))):
        assert torch.equal(getattr(model, name), torch.zeros(shape))
    everywhere = random_model("llama", changes={"attn_out_bias": True, "mlp_bias": True})
    assert bool(everywhere.b_O.all())
    assert bool(everywhere.b_gate.all())


def test_quantised_blocks_are_widened_exactly() -> None:
    model = random_model("llama")
    blocks = torch.randint(0, 256, (42, 2 * 34), dtype=torch.uint8)
    blocks.view(42, 2, 34)[..., :2] = torch.tensor([0.5], dtype=torch.float16).view(torch.uint8)
    stored = StoredMatrix(Format.Q8_0, 42, 64, blocks)
    linear = model.blocks[0].attn.o
    linear.weight = pack(stored)
    assert torch.equal(linear.matrix(42), stored.dequantize())


def test_layers_alone_are_their_operations() -> None:
    model = random_model("gemma3")
    tokens = torch.tensor([[3, 1, 4], [1, 5, 9]])
    logits, cache = model.run_with_cache(tokens)
    normed = model.ln_final(cache["resid_post", -1])
    assert torch.equal(normed, cache["unembed.hook_in"])
    assert torch.equal(model.unembed(normed), logits)
    assert torch.equal(model.unembed(normed[0, 1]), logits[0, 1])
    assert torch.equal(model.embed(tokens), cache["embed"])


def test_directions_of_tokens() -> None:
    model = random_model("gemma3", tokenizer=byte_tokenizer())
    one = model.tokens_to_residual_directions("a")
    assert torch.equal(one, model.W_U[:, 97] * model.ln_final.w)
    many = model.tokens_to_residual_directions(torch.tensor([[97, 98]]), fold_ln=False)
    assert torch.equal(many, model.W_U[:, [97, 98]].T[None])
    with pytest.raises(ValueError, match="not in the vocabulary"):
        model.tokens_to_residual_directions(260)
    with pytest.raises(ValueError, match="not a single token but"):
        model.tokens_to_residual_directions("ab")


def test_gradients_reach_the_weights() -> None:
    model: HookedTransformer = random_model("llama", backend="torch")
    model.W_V[1, 0].sum().backward()
    assert model.blocks[1].attn.v.weight.grad is not None
