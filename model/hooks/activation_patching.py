"""Activation patching: a corrupted run with one activation of a clean run, and what that changes.

After the causal tracing of Meng et al. 2022 (ROME, section 2). Functions, axes and shapes are those
of `transformer_lens.patching`; L layers, P positions, H heads, G key/value heads.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, Protocol

import torch
import torch.nn.functional as F

from ..transformer import HookedTransformer
from .activation_cache import ActivationCache
from .activation_names import get_act_name
from .progress import track
from .registry import HookPoint

Axis = Literal["layer", "pos", "head_index", "head", "src_pos", "dest_pos"]
Metric = Callable[[torch.Tensor], torch.Tensor]
"""Makes a scalar of logits [B, P, V]."""

PatchSetter = Callable[[torch.Tensor, Sequence[int], torch.Tensor], torch.Tensor]
"""Patches the corrupted activation at an index that starts with the layer, from the clean one."""


class ActivationPatch(Protocol):
    """One kind of patch at every index of its axes."""

    def __call__(
        self,
        model: HookedTransformer,
        corrupted_tokens: torch.Tensor,
        clean_cache: ActivationCache,
        patching_metric: Metric,
    ) -> torch.Tensor: ...


def generic_activation_patch(
    model: HookedTransformer,
    corrupted_tokens: torch.Tensor,
    clean_cache: ActivationCache,
    patching_metric: Metric,
    patch_setter: PatchSetter,
    activation_name: str,
    index_axis_names: Sequence[Axis] | None = None,
    indices: Sequence[Sequence[int]] | None = None,
) -> torch.Tensor:
    """The metric of a run on `corrupted_tokens` [B, P] for each patched index.

    Args:
        clean_cache: Activations of a run on clean tokens of the same shape.
        patch_setter: Puts the index's part of the clean activation into the corrupted one.
        activation_name: Short name of what is patched.
        index_axis_names: Run over all of these axes, the layer first.
        indices: Run over these alone instead; each starts with the layer.

    Returns:
        fp32, an axis for each of `index_axis_names`, or one for `indices`.

    Raises:
        ValueError: unless exactly one of `index_axis_names` and `indices` is given.
        KeyError: an activation that was not cached.
    """
    if (index_axis_names is None) == (indices is None):
        raise ValueError("pass either index_axis_names or indices")
    if index_axis_names is None:
        rows = [tuple(index) for index in indices or ()]
        shape = [len(rows)]
    else:
        c = model.config
        heads = c.n_key_value_heads if activation_name in ("k", "v") else c.n_heads
        sizes = {"layer": c.n_layers, "head": heads, "head_index": heads}
        sizes |= dict.fromkeys(("pos", "src_pos", "dest_pos"), corrupted_tokens.shape[-1])
        shape = [sizes[axis] for axis in index_axis_names]
        rows = list(itertools.product(*map(range, shape)))
    found = []
    for index in track(rows, f"patching {activation_name}"):
        name = get_act_name(activation_name, index[0])
        patch = partial(_patch, index=index, clean=clean_cache[name], setter=patch_setter)
        logits = model.run_with_hooks(corrupted_tokens, fwd_hooks=[(name, patch)])
        found.append(float(patching_metric(logits)))
    return torch.tensor(found, dtype=torch.float32, device="cpu").view(shape)


def _patch(
    tensor: torch.Tensor,
    *,
    hook: HookPoint,
    index: Sequence[int],
    clean: torch.Tensor,
    setter: PatchSetter,
) -> torch.Tensor:
    return setter(tensor.clone(), index, clean)


def layer_pos_patch_setter(
    corrupted: torch.Tensor, index: Sequence[int], clean: torch.Tensor
) -> torch.Tensor:
    """Index (layer, position) of [B, P, ...]."""
    _, pos = index
    corrupted[:, pos] = clean[:, pos]
    return corrupted


def layer_pos_head_vector_patch_setter(
    corrupted: torch.Tensor, index: Sequence[int], clean: torch.Tensor
) -> torch.Tensor:
    """Index (layer, position, head) of [B, P, H, ...]."""
    _, pos, head = index
    corrupted[:, pos, head] = clean[:, pos, head]
    return corrupted


def layer_head_vector_patch_setter(
    corrupted: torch.Tensor, index: Sequence[int], clean: torch.Tensor
) -> torch.Tensor:
    """Index (layer, head) of [B, P, H, ...]."""
    _, head = index
    corrupted[:, :, head] = clean[:, :, head]
    return corrupted


def layer_head_pattern_patch_setter(
    corrupted: torch.Tensor, index: Sequence[int], clean: torch.Tensor
) -> torch.Tensor:
    """Index (layer, head) of scores or patterns [B, H, P, K]."""
    _, head = index
    corrupted[:, head] = clean[:, head]
    return corrupted


def layer_head_pos_pattern_patch_setter(
    corrupted: torch.Tensor, index: Sequence[int], clean: torch.Tensor
) -> torch.Tensor:
    """Index (layer, head, query position) of scores or patterns [B, H, P, K]."""
    _, head, pos = index
    corrupted[:, head, pos] = clean[:, head, pos]
    return corrupted


def layer_head_dest_src_pos_pattern_patch_setter(
    corrupted: torch.Tensor, index: Sequence[int], clean: torch.Tensor
) -> torch.Tensor:
    """Index (layer, head, query position, key position) of scores or patterns [B, H, P, K]."""
    _, head, dest, src = index
    corrupted[:, head, dest, src] = clean[:, head, dest, src]
    return corrupted


def _kind(setter: PatchSetter, name: str, *axes: Axis) -> ActivationPatch:
    return partial(
        generic_activation_patch,
        patch_setter=setter,
        activation_name=name,
        index_axis_names=("layer", *axes),
    )


get_act_patch_resid_pre = _kind(layer_pos_patch_setter, "resid_pre", "pos")
"""[L, P]."""
get_act_patch_resid_mid = _kind(layer_pos_patch_setter, "resid_mid", "pos")
"""[L, P]."""
get_act_patch_attn_out = _kind(layer_pos_patch_setter, "attn_out", "pos")
"""[L, P]."""
get_act_patch_mlp_out = _kind(layer_pos_patch_setter, "mlp_out", "pos")
"""[L, P]."""

get_act_patch_attn_head_out_by_pos = _kind(layer_pos_head_vector_patch_setter, "z", "pos", "head")
"""[L, P, H]."""
get_act_patch_attn_head_q_by_pos = _kind(layer_pos_head_vector_patch_setter, "q", "pos", "head")
"""[L, P, H]."""
get_act_patch_attn_head_k_by_pos = _kind(layer_pos_head_vector_patch_setter, "k", "pos", "head")
"""[L, P, G]."""
get_act_patch_attn_head_v_by_pos = _kind(layer_pos_head_vector_patch_setter, "v", "pos", "head")
"""[L, P, G]."""
get_act_patch_attn_head_pattern_by_pos = _kind(
    layer_head_pos_pattern_patch_setter, "pattern", "head_index", "dest_pos"
)
"""[L, H, P]."""
get_act_patch_attn_head_pattern_dest_src_pos = _kind(
    layer_head_dest_src_pos_pattern_patch_setter, "pattern", "head_index", "dest_pos", "src_pos"
)
"""[L, H, P, P]."""

get_act_patch_attn_head_out_all_pos = _kind(layer_head_vector_patch_setter, "z", "head")
"""[L, H]."""
get_act_patch_attn_head_q_all_pos = _kind(layer_head_vector_patch_setter, "q", "head")
"""[L, H]."""
get_act_patch_attn_head_k_all_pos = _kind(layer_head_vector_patch_setter, "k", "head")
"""[L, G]."""
get_act_patch_attn_head_v_all_pos = _kind(layer_head_vector_patch_setter, "v", "head")
"""[L, G]."""
get_act_patch_attn_head_pattern_all_pos = _kind(
    layer_head_pattern_patch_setter, "pattern", "head_index"
)
"""[L, H]."""


def get_act_patch_attn_head_all_pos_every(
    model: HookedTransformer,
    corrupted_tokens: torch.Tensor,
    clean_cache: ActivationCache,
    metric: Metric,
) -> torch.Tensor:
    """Outputs, queries, keys, values and patterns of each head, [5, L, H]; missing heads are 0."""
    kinds = (
        get_act_patch_attn_head_out_all_pos,
        get_act_patch_attn_head_q_all_pos,
        get_act_patch_attn_head_k_all_pos,
        get_act_patch_attn_head_v_all_pos,
        get_act_patch_attn_head_pattern_all_pos,
    )
    found = [kind(model, corrupted_tokens, clean_cache, metric) for kind in kinds]
    return _stack_heads(found, model)


def get_act_patch_attn_head_by_pos_every(
    model: HookedTransformer,
    corrupted_tokens: torch.Tensor,
    clean_cache: ActivationCache,
    metric: Metric,
) -> torch.Tensor:
    """The same by position (of the query, for patterns), [5, L, P, H]; missing heads are 0."""
    kinds = (
        get_act_patch_attn_head_out_by_pos,
        get_act_patch_attn_head_q_by_pos,
        get_act_patch_attn_head_k_by_pos,
        get_act_patch_attn_head_v_by_pos,
        get_act_patch_attn_head_pattern_by_pos,
    )
    *vectors, pattern_LHP = (kind(model, corrupted_tokens, clean_cache, metric) for kind in kinds)
    return _stack_heads([*vectors, pattern_LHP.mT], model)


def get_act_patch_block_every(
    model: HookedTransformer,
    corrupted_tokens: torch.Tensor,
    clean_cache: ActivationCache,
    metric: Metric,
) -> torch.Tensor:
    """The residual stream before each block, attention's and the MLP's output, [3, L, P]."""
    kinds = (get_act_patch_resid_pre, get_act_patch_attn_out, get_act_patch_mlp_out)
    return torch.stack([kind(model, corrupted_tokens, clean_cache, metric) for kind in kinds])


def _stack_heads(found: Sequence[torch.Tensor], model: HookedTransformer) -> torch.Tensor:
    n_heads = model.config.n_heads
    return torch.stack([F.pad(x, (0, n_heads - x.shape[-1])) for x in found])
