"""The residual stream as a sum of what layers and heads wrote, from cached activations.

`ActivationCache` has these functions as its methods; names, arguments and labels are
TransformerLens's. Each raises KeyError naming the activation if one it needs was not cached.
`layer` is the block whose input is meant; None, -1 and n_layers mean the unembedding's.

Stacks have their components on a first axis S; B batch, P positions, d d_model, H heads, h d_head,
m d_mlp. B is missing where the cache's was removed, P where `pos_slice` is an int.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol, cast

import torch
from torch import nn

from ..block import Block
from ..config import ModelConfig
from ..layers import RMSNorm

AxisSlice = int | slice | tuple[int | None, ...] | list[int] | torch.Tensor | None
"""Part of an axis: an index (the axis goes), a slice or its arguments, indices, or None for all."""


def select(x: torch.Tensor, part: AxisSlice, axis: int) -> torch.Tensor:
    """x with only a part of one axis."""
    if part is None:
        return x
    index: list[Any] = [slice(None)] * x.ndim
    index[axis] = slice(*part) if isinstance(part, tuple) else part
    return x[tuple(index)]


class Decomposed(Protocol):
    """The part of a model that a cache of its activations needs."""

    config: ModelConfig
    blocks: nn.ModuleList
    ln_final: RMSNorm

    def tokens_to_residual_directions(
        self, tokens: str | int | torch.Tensor, *, fold_ln: bool = True
    ) -> torch.Tensor: ...


class CachedActivations(Protocol):
    """The cache whose activations are decomposed, the model they are from, and its batch axis."""

    _activations: dict[str, torch.Tensor]
    model: Decomposed
    has_batch_dim: bool

    def __getitem__(self, name: Any, /) -> torch.Tensor: ...


def accumulated_resid(
    cache: CachedActivations,
    layer: int | None = None,
    incl_mid: bool = False,
    apply_ln: bool = False,
    pos_slice: AxisSlice = None,
    mlp_input: bool = False,
    return_labels: bool = False,
) -> Any:
    """The residual stream as it was before each block up to `layer`, [S, B, P, d].

    With `apply_ln`, each through ln_final itcache, ready for the unembedding (the logit lens);
    for the input of a block, divided by that block's cached scale.

    Args:
        incl_mid: Also between attention and MLP.
        mlp_input: Also between those of `layer` itcache.
        return_labels: Return the stack and a list of its components' names.
    """
    stop, n_layers = _layer(cache, layer), cache.model.config.n_layers
    components, labels = [], []
    for i in range(min(stop + 1, n_layers)):
        components.append(cache["resid_pre", i])
        labels.append(f"{i}_pre")
        if (incl_mid and i < stop) or (mlp_input and i == stop):
            components.append(cache["resid_mid", i])
            labels.append(f"{i}_mid")
    if stop == n_layers:
        components.append(cache["resid_post", n_layers - 1])
        labels.append("final_post")
    stack = torch.stack([select(x, pos_slice, -2) for x in components])
    if apply_ln:
        stack = apply_ln_to_stack(
            cache,
            stack,
            stop,
            mlp_input=mlp_input,
            pos_slice=pos_slice,
            recompute_ln=stop == n_layers,
        )
    return (stack, labels) if return_labels else stack


def decompose_resid(
    cache: CachedActivations,
    layer: int | None = None,
    mlp_input: bool = False,
    mode: Literal["all", "mlp", "attn"] = "all",
    apply_ln: bool = False,
    pos_slice: AxisSlice = None,
    incl_embeds: bool = True,
    return_labels: bool = False,
) -> Any:
    """Returns what the embedding and every layer before `layer` wrote, [S, B, P, d].

    With mode "all" its sum is the residual stream, but for roundings.

    Args:
        mlp_input: Also the attention of `layer` itcache.
        mode: "mlp" or "attn" leaves the other out.
        apply_ln: Divide by the cached scale of the norm at `layer`.
        return_labels: Return the stack and a list of its components' names.
    """
    if mode not in ("all", "mlp", "attn"):
        raise ValueError(f"mode = {mode!r}: expected 'all', 'mlp' or 'attn'")
    stop = _layer(cache, layer)
    labels = ["embed"] if incl_embeds else []
    components = [cache["hook_embed"]] if incl_embeds else []
    for i in range(stop + mlp_input):
        for part in ("attn", "mlp"):
            if mode in ("all", part) and (i < stop or part == "attn"):
                components.append(cache[f"{part}_out", i])
                labels.append(f"{i}_{part}_out")
    if not components:
        raise ValueError("decompose_resid: nothing comes before layer 0 but the embedding")
    stack = torch.stack([select(x, pos_slice, -2) for x in components])
    if apply_ln:
        stack = apply_ln_to_stack(cache, stack, stop, mlp_input=mlp_input, pos_slice=pos_slice)
    return (stack, labels) if return_labels else stack


def compute_head_results(cache: CachedActivations) -> None:
    """Adds every block's attn.hook_result, from hook_z, with the bits that a hook would see."""
    for i in range(cache.model.config.n_layers):
        name = f"blocks.{i}.attn.hook_result"
        if name not in cache._activations:
            cache._activations[name] = _head_results(cache, i, None)


def stack_head_results(
    cache: CachedActivations,
    layer: int | None = -1,
    return_labels: bool = False,
    incl_remainder: bool = False,
    pos_slice: AxisSlice = None,
    apply_ln: bool = False,
) -> Any:
    """Returns what every head of the blocks before `layer` wrote, [S, B, P, d], S = layer * H.

    Computed from hook_z where hook_result was not cached. With sandwich norms a head's result
    comes before the norm of the sublayer's output.

    Args:
        return_labels: Return the stack and a list of its components' names ("L0H0").
        incl_remainder: Also what is left of the residual stream, as the last component.
        apply_ln: Divide by the cached scale of the norm at `layer`.
    """
    stop = _layer(cache, layer)
    n_heads = cache.model.config.n_heads
    labels = [f"L{i}H{head}" for i in range(stop) for head in range(n_heads)]
    before = cache["resid_post", stop - 1] if stop else cache["resid_pre", 0]
    resid = select(before, pos_slice, -2)
    heads = [_head_results(cache, i, pos_slice).movedim(-2, 0) for i in range(stop)]
    stack = torch.cat([*heads, resid.new_zeros(0, *resid.shape)])
    if incl_remainder:
        stack = torch.cat([stack, (resid - stack.sum(0))[None]])
        labels.append("remainder")
    if apply_ln:
        stack = apply_ln_to_stack(cache, stack, stop, pos_slice=pos_slice)
    return (stack, labels) if return_labels else stack


def stack_activation(
    cache: CachedActivations,
    activation_name: str,
    layer: int | None = -1,
    sublayer_type: str | None = None,
) -> torch.Tensor:
    """One activation of every block before `layer`, [layer, ...], by its short name."""
    stop = _layer(cache, layer)
    return torch.stack([cache[activation_name, i, sublayer_type] for i in range(stop)])


def get_neuron_results(
    cache: CachedActivations,
    layer: int,
    neuron_slice: AxisSlice = None,
    pos_slice: AxisSlice = None,
) -> torch.Tensor:
    """Returns what each neuron of one block wrote, [B, P, m, d]."""
    post = select(select(cache["post", layer], pos_slice, -2), neuron_slice, -1)
    return post[..., None] * select(_block(cache, layer).mlp.W_out, neuron_slice, 0)


def apply_ln_to_stack(
    cache: CachedActivations,
    residual_stack: torch.Tensor,
    layer: int | None = None,
    mlp_input: bool = False,
    pos_slice: AxisSlice = None,
    batch_slice: AxisSlice = None,
    has_batch_dim: bool = True,
    recompute_ln: bool = False,
) -> torch.Tensor:
    """A stack divided by the cached scale of ln1, ln2 (`mlp_input`) or ln_final at `layer`.

    The scale belongs to the whole residual stream, so a component gets its share of the norm's
    output before the weight. `recompute_ln` gives every component ln_final's own output
    instead, weight included.

    Args:
        pos_slice: The positions that the stack holds.
        batch_slice: Sequences to take, of the stack and of the scale.
        has_batch_dim: Whether the stack has a batch axis for `batch_slice`.
    """
    stop, n_layers = _layer(cache, layer), cache.model.config.n_layers
    if has_batch_dim and batch_slice is not None:
        residual_stack = select(residual_stack, batch_slice, 1)
    if recompute_ln and stop == n_layers:
        normed: torch.Tensor = cache.model.ln_final(residual_stack)
        return normed
    if stop == n_layers:
        scale = cache["ln_final.hook_scale"]
    else:
        scale = cache["scale", stop, "ln2" if mlp_input else "ln1"]
    # Padding has no scale, only zeros, and gets 0; a token's scale is never 0.
    scale = select(torch.where(scale == 0, 1, scale), pos_slice, -2)
    return residual_stack / (select(scale, batch_slice, 0) if cache.has_batch_dim else scale)


def logit_attrs(
    cache: CachedActivations,
    residual_stack: torch.Tensor,
    tokens: str | int | torch.Tensor,
    incorrect_tokens: str | int | torch.Tensor | None = None,
    pos_slice: AxisSlice = None,
    batch_slice: AxisSlice = None,
    has_batch_dim: bool = True,
    *,
    fold_ln: bool = True,
) -> torch.Tensor:
    """Returns what each component of a stack adds to the tokens' logits, [S, ...] without d.

    Those of a whole decomposition add up to the logit, but for roundings.

    Args:
        tokens: As for `HookedTransformer.tokens_to_residual_directions`, which also says what
            `fold_ln` means; several ids broadcast against B or [B, P].
        incorrect_tokens: Attribute the difference to these tokens' logits instead.

    Raises:
        ValueError: tokens and incorrect_tokens of different shapes.
    """
    directions = cache.model.tokens_to_residual_directions(tokens, fold_ln=fold_ln)
    if incorrect_tokens is not None:
        others = cache.model.tokens_to_residual_directions(incorrect_tokens, fold_ln=fold_ln)
        if directions.shape != others.shape:
            raise ValueError(
                f"tokens and incorrect_tokens have different shapes, "
                f"{list(directions.shape[:-1])} and {list(others.shape[:-1])}"
            )
        directions = directions - others
    stack = apply_ln_to_stack(
        cache,
        residual_stack,
        pos_slice=pos_slice,
        batch_slice=batch_slice,
        has_batch_dim=has_batch_dim,
    )
    return (stack * directions).sum(-1)


def _layer(cache: CachedActivations, layer: int | None) -> int:
    n_layers = cache.model.config.n_layers
    if layer is None or layer == -1:
        return n_layers
    if not 0 <= layer <= n_layers:
        raise ValueError(f"layer = {layer}: the model has {n_layers} layers")
    return layer


def _head_results(cache: CachedActivations, layer: int, pos_slice: AxisSlice) -> torch.Tensor:
    """hook_result of one block, [B, P, H, d], cached or computed."""
    cached = cache._activations.get(f"blocks.{layer}.attn.hook_result")
    if cached is not None:
        return select(cached, pos_slice, -3)
    z = select(cache["z", layer], pos_slice, -3)
    results = _block(cache, layer).attn.head_results(z.reshape(-1, *z.shape[-2:]))
    return results.view(*z.shape[:-1], -1)


def _block(cache: CachedActivations, layer: int) -> Block:
    return cast(Block, cache.model.blocks[layer])
