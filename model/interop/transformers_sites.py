"""The operations of transformers' eager models in terms of their precision contracts.

An operation gets the values that its architecture declares it to start from, as earlier operations
gave them, and what is derived from the config: nothing that the model's code derived itself, so a
base, a mask or a scale that this code took otherwise is outside the contract.

Tensor names: B batch, P positions, T = B P rows, K keys, H heads, G key/value heads, h d_head.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..config import ModelConfig
from ..ops.sites import KINDS, as_rows, bind_add, rows
from ..rope.scaling import rotary_frequencies
from .transformers_structure import weights_of


@dataclass(frozen=True)
class Placed:
    """The facts about an operation besides the values it starts from.

    Attributes:
        config: The model's, as bitlens reads it.
        layer: None outside the blocks.
        module: The module that it is, if it is one.
        rotary: The model's rotary embedding.
    """

    config: ModelConfig
    layer: int | None
    module: Any
    rotary: Any


def _heads(x_BHPh: torch.Tensor) -> torch.Tensor:
    """[H, T, h]."""
    return x_BHPh.detach().transpose(0, 1).flatten(1, 2)


def _as_heads(y_HTh: torch.Tensor, like_BHPh: torch.Tensor) -> torch.Tensor:
    batch, heads, positions, size = like_BHPh.shape
    y_BHPh = y_HTh.reshape(heads, batch, positions, size).transpose(0, 1)
    return y_BHPh.to(like_BHPh.dtype).contiguous()


def _attention_heads(d_head: int) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda z_BPn: z_BPn.reshape(-1, z_BPn.shape[-1] // d_head, d_head).transpose(0, 1)


def _as_attention(y_HTh: torch.Tensor, like_BPn: torch.Tensor) -> torch.Tensor:
    return y_HTh.transpose(0, 1).reshape(like_BPn.shape).to(like_BPn.dtype)


def _bind_embedding(at: Placed, tokens_BP: torch.Tensor) -> dict[str, Any]:
    picked_Td = at.module.weight.detach()[tokens_BP.flatten()]
    scale = torch.tensor([[at.config.embed_scale]]).to(picked_Td.dtype)
    return {"a": picked_Td[..., None], "b": scale}


def _bind_linear(at: Placed, x: torch.Tensor) -> dict[str, Any]:
    inputs = {"a": rows(x), "b": at.module.weight.detach().T}
    return inputs if at.module.bias is None else inputs | {"bias": at.module.bias.detach()}


def _bind_norm(at: Placed, x: torch.Tensor) -> dict[str, Any]:
    return {"x": rows(x), "weight": at.module.weight.detach(), "eps": at.config.eps}


def _bind_offset_norm(at: Placed, x: torch.Tensor) -> dict[str, Any]:
    weight = 1.0 + at.module.weight.detach().float()
    return {"x": _norm_rows(x), "weight": weight, "eps": at.config.eps}


def _norm_rows(x: torch.Tensor) -> torch.Tensor:
    """Rows in the order of [B, P, ...]; Gemma's norms of q and k see [B, H, P, h]."""
    return rows(x.transpose(1, 2) if x.ndim == 4 else x)


def _as_norm_rows(y: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    if like.ndim < 4:
        return as_rows(y, like)
    return as_rows(y, like.transpose(1, 2)).transpose(1, 2).contiguous()


def _bind_rope(at: Placed, x: torch.Tensor) -> dict[str, Any]:
    """Frequencies of a scaled RoPE are the model's own, rounded as it computes them: whether they
    mean the config's is asked apart (model/interop/transformers_meaning.py)."""
    layer = at.config.layers[at.layer or 0]
    inputs = {"x": _heads(x), "positions": torch.arange(x.shape[2]).repeat(x.shape[0])}
    if layer.rope_scaling is None:
        return inputs | {"theta": layer.rope_theta}
    found = rotary_frequencies(layer.rope_theta, x.shape[-1], layer.rope_scaling, x.shape[2])
    inv_freq = tuple(rotary_buffer(at.rotary, layer.window).double().tolist())
    return inputs | {"inv_freq": inv_freq, "attention_factor": found.attention_factor}


def rotary_buffer(rotary: Any, window: int | None) -> torch.Tensor:
    """The frequencies that a rotary embedding holds for a layer with such a window."""
    kind = "full_attention" if window is None else "sliding_attention"
    name = f"{kind}_inv_freq"
    found: torch.Tensor = getattr(rotary, name if hasattr(rotary, name) else "inv_freq")
    return found


def _bind_attention(
    at: Placed, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
) -> dict[str, Any]:
    if q.shape[0] != 1:
        raise ValueError(f"attention of {q.shape[0]} sequences: its contract takes one at a time")
    inputs = {"q": _heads(q), "k": _heads(k), "v": _heads(v), "scale": at.config.attn_scale}
    inputs |= {"causal": True, "past": k.shape[2] - q.shape[2]}
    window = at.config.layers[at.layer or 0].window
    return inputs if window is None else inputs | {"window": window}


def _bind_gated_act(at: Placed, gate: torch.Tensor, up: torch.Tensor) -> dict[str, Any]:
    return {"gate": rows(gate), "up": rows(up), "activation": at.config.act_fn}


def _bind_mlp(at: Placed, x: torch.Tensor) -> dict[str, Any]:
    inputs: dict[str, Any] = {"x": rows(x), "activation": at.config.act_fn}
    for name in ("gate", "up", "down"):
        linear = weights_of(f"mlp.{name}", getattr(at.module, f"{name}_proj"))
        inputs[name] = linear.weight.detach().T
        if linear.bias is not None:
            inputs[f"{name}_bias"] = linear.bias.detach()
    return inputs


@dataclass(frozen=True)
class SiteParts:
    """The functions of a `Site`; `bind` takes where it is placed first."""

    bind: Callable[..., dict[str, Any]]
    operands: Callable[..., tuple[torch.Tensor, ...]] | None
    view: Callable[[Any], torch.Tensor]
    restore: Callable[[torch.Tensor, Any], Any]


def site_parts(kind: str, config: ModelConfig) -> SiteParts:
    """Returns the parts of a kind of operation (model/ops/sites.py), or of an "mlp" in one."""
    if kind == "rms_norm" and config.multiplies_by_offset:
        return SiteParts(
            _bind_offset_norm, lambda x: (_norm_rows(x.detach()),), _norm_rows, _as_norm_rows
        )
    if kind == "rope":
        return SiteParts(_bind_rope, lambda x: (_heads(x),), _heads, _as_heads)
    if kind == "attention":
        view = _attention_heads(config.d_head)
        return SiteParts(_bind_attention, lambda *qkv: tuple(map(_heads, qkv)), view, _as_attention)
    if kind == "mlp":  # its operands are not those of the linear whose address it has
        return SiteParts(_bind_mlp, None, KINDS["linear"].view, KINDS["linear"].restore)
    bind, operands = _ROWS[kind]
    return SiteParts(bind, operands, KINDS[kind].view, KINDS[kind].restore)


def _operand_rows(*xs: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return tuple(rows(x.detach()) for x in xs)


_ROWS: Mapping[str, tuple[Callable[..., dict[str, Any]], Callable[..., tuple[torch.Tensor, ...]]]]
_ROWS = {
    "embedding": (_bind_embedding, lambda _: ()),
    "linear": (_bind_linear, _operand_rows),
    "rms_norm": (_bind_norm, _operand_rows),
    "add": (lambda _, x, y: bind_add(x, y), _operand_rows),
    "swiglu": (_bind_gated_act, _operand_rows),
}
