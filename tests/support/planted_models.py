"""Models built by hand, whose circuits are known, and transcoders that describe them.

A residual stream of five subspaces, a dimension a token in each: the token itself, the token
before, what was copied, a middle step, the output that the unembedding reads.
"""

from __future__ import annotations

import torch
from bitlens.interp.dictionaries import (
    CrossLayerConfig,
    CrossLayerTranscoder,
    Dictionary,
    DictionaryConfig,
)
from bitlens.model.config import LayerConfig, ModelConfig
from bitlens.model.load import load
from bitlens.model.transformer import HookedTransformer
from bitlens.model.weights.checkpoint import Checkpoint
from support.random_models import MemoryReader, tensor_shapes

N_TOKENS = 8
D_HEAD = 16
TOKEN, BEFORE, COPIED, MIDDLE, OUTPUT = (slice(i, i + N_TOKENS) for i in range(0, 40, N_TOKENS))
D_MODEL = 40

# RoPE's first pair turns by one radian a position, the others hardly at all.
_CONFIG = ModelConfig(
    architecture="qwen2",
    n_layers=2,
    d_model=D_MODEL,
    n_heads=1,
    n_key_value_heads=1,
    d_head=D_HEAD,
    d_mlp=N_TOKENS,
    d_vocab=N_TOKENS,
    n_ctx=16,
    eps=1e-6,
    attn_scale=1.0,
    tie_embeddings=False,
    layers=(LayerConfig(rope_theta=1e12),) * 2,
    attn_bias=True,
)
_STILL = torch.tensor([3, 4, 5, 6, 7, 11, 12, 13])
"""Dimensions of a head that RoPE leaves where they are, one a token."""


def _blank() -> dict[str, torch.Tensor]:
    """Weights that do nothing but read tokens and outputs."""
    weights = {name: torch.zeros(shape) for name, shape in tensor_shapes(_CONFIG).items()}
    for name in weights:
        if ".ln" in name or name.startswith("ln"):
            weights[name].fill_(1.0)
    weights["embed.weight"][:, TOKEN] = torch.eye(N_TOKENS)
    weights["unembed.weight"][:, OUTPUT] = 5 * torch.eye(N_TOKENS)
    return weights


def _mlp(weights: dict[str, torch.Tensor], layer: int, read: slice, write: slice) -> None:
    """A neuron a token: reads it in one subspace, writes it, or where it leads, in another."""
    eye = torch.eye(N_TOKENS)
    weights[f"blocks.{layer}.mlp.gate.weight"][:, read] = 4 * eye
    weights[f"blocks.{layer}.mlp.up.weight"][:, read] = eye
    weights[f"blocks.{layer}.mlp.down.weight"][write] = eye / 20


def _model(weights: dict[str, torch.Tensor]) -> HookedTransformer:
    return load(Checkpoint(_CONFIG, None, "planted", MemoryReader(weights)))


def two_hops() -> HookedTransformer:
    """Returns a model that looks a token up in its first MLP, and what it found in its second:
    after token v comes token v + 1, then v + 2 of it (both modulo the number of tokens)."""
    weights = _blank()
    _mlp(weights, 0, TOKEN, MIDDLE)
    _mlp(weights, 1, MIDDLE, OUTPUT)
    for layer, step, write in ((0, 1, MIDDLE), (1, 2, OUTPUT)):
        down = weights[f"blocks.{layer}.mlp.down.weight"]
        down[write] = down[write].roll(step, 0)
    return _model(weights)


def induction() -> HookedTransformer:
    """Returns a model that goes on as it went before: a head that copies each token's predecessor,
    one that finds where the present token was the predecessor and copies what stood there, and an
    MLP that puts it out."""
    weights, eye = _blank(), torch.eye(N_TOKENS)
    first, second = "blocks.0.attn", "blocks.1.attn"
    angle = torch.tensor(-1.0)
    weights[f"{first}.k.bias"][0] = 1.0
    weights[f"{first}.q.bias"][0] = 40 * angle.cos()
    weights[f"{first}.q.bias"][D_HEAD // 2] = 40 * angle.sin()
    weights[f"{first}.v.weight"][:N_TOKENS, TOKEN] = eye
    weights[f"{first}.o.weight"][BEFORE, :N_TOKENS] = eye / 6
    weights[f"{second}.q.weight"][_STILL, TOKEN] = 3 * eye
    weights[f"{second}.k.weight"][_STILL, BEFORE] = eye
    weights[f"{second}.v.weight"][:N_TOKENS, TOKEN] = eye
    weights[f"{second}.o.weight"][COPIED, :N_TOKENS] = eye / 4
    _mlp(weights, 1, COPIED, OUTPUT)
    return _model(weights)


def transcoder(
    model: HookedTransformer, layer: int, read: slice, prompt: torch.Tensor
) -> Dictionary:
    """Returns a transcoder with a feature a token of a subspace, which writes what the MLP writes
    at the prompt's last position for the feature that is active there, and nothing for others."""
    hooks = [f"blocks.{layer}.hook_mlp_in", f"blocks.{layer}.hook_mlp_out"]
    cache = model.run_with_cache(prompt, hooks)[1]
    x, y = cache[hooks[0]][0, -1], cache[hooks[1]][0, -1]
    active = int(x[read].argmax())
    W_enc = torch.zeros(D_MODEL, N_TOKENS)
    W_enc[read] = torch.eye(N_TOKENS)
    W_dec = torch.zeros(N_TOKENS, D_MODEL)
    W_dec[active] = y / x[read][active]
    cfg = DictionaryConfig(
        architecture="transcoder",
        d_in=D_MODEL,
        d_sae=N_TOKENS,
        d_out=D_MODEL,
        hook_name=hooks[0],
        hook_name_out=hooks[1],
        apply_b_dec_to_input=False,
    )
    zeros = torch.zeros
    return Dictionary(
        cfg, {"W_enc": W_enc, "W_dec": W_dec, "b_enc": zeros(N_TOKENS), "b_dec": zeros(D_MODEL)}
    )


def cross_layer(steps: list[Dictionary], *, skips: bool) -> CrossLayerTranscoder:
    """Returns a cross-layer transcoder of two steps: faithful, or one that skips the second: its
    first features write to both layers, and reconstruct both MLPs as well."""
    cfg = CrossLayerConfig(
        n_layers=2,
        d_model=D_MODEL,
        d_sae=N_TOKENS,
        activation="relu",
        feature_input_hook="hook_mlp_in",
    )
    tensors: dict[str, torch.Tensor] = {}
    for i, each in enumerate(steps):
        W_dec = torch.zeros(N_TOKENS, 2 - i, D_MODEL)
        W_dec[:, 0] = each.W_dec
        tensors |= {
            f"W_enc_{i}": each.W_enc.T.contiguous(),
            f"b_enc_{i}": torch.zeros(N_TOKENS),
            f"b_dec_{i}": torch.zeros(D_MODEL),
            f"W_dec_{i}": W_dec,
        }
    if skips:
        (active,) = steps[0].W_dec.any(1).nonzero()[:, 0].tolist()
        (then,) = steps[1].W_dec.any(1).nonzero()[:, 0].tolist()
        # What the second step reads is what the first one wrote, of an activation of 1.
        tensors["W_dec_0"][active, 1] = steps[0].W_dec[active][MIDDLE][then] * steps[1].W_dec[then]
        tensors["W_dec_1"].zero_()
        tensors["W_enc_1"].zero_()
    return CrossLayerTranscoder(cfg, {name: x.detach().clone() for name, x in tensors.items()})
