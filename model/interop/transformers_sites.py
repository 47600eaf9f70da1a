"""The operations of transformers' models in terms of their precision contracts.

An operation gets the values that its architecture declares it to start from, as earlier operations
gave them, and what is derived from the config: nothing that the model's code derived itself, so a
base, a mask or a scale that this code took otherwise is outside the contract.

Tensor names: B batch, P positions, T = B P rows, K keys, H heads, G key/value heads, h d_head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
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
    positions = torch.arange(x.shape[2]).repeat(x.shape[0])
    return {"x": _heads(x), "positions": positions} | _rotation(at, x.shape[2])


def _rotation(at: Placed, n_positions: int) -> dict[str, Any]:
    """Frequencies of a scaled RoPE are the model's own, rounded as it computes them: whether they
    mean the config's is asked apart (model/interop/transformers_meaning.py)."""
    layer = at.config.layers[at.layer or 0]
    if layer.rope_scaling is None:
        return {"theta": layer.rope_theta}
    found = rotary_frequencies(layer.rope_theta, at.config.d_head, layer.rope_scaling, n_positions)
    inv_freq = tuple(rotary_buffer(at.rotary, layer.window).double().tolist())
    return {"inv_freq": inv_freq, "attention_factor": found.attention_factor}


def rotary_buffer(rotary: Any, window: int | None) -> torch.Tensor:
    """The frequencies that a rotary embedding holds for a layer with such a window."""
    kind = "full_attention" if window is None else "sliding_attention"
    name = f"{kind}_inv_freq"
    found: torch.Tensor = getattr(rotary, name if hasattr(rotary, name) else "inv_freq")
    return found


def _bind_attention(
    at: Placed, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
) -> dict[str, Any]:
    options = _attention_options(at, q.shape[0])
    return {"q": _heads(q), "k": _heads(k), "v": _heads(v)} | options


def _attention_options(at: Placed, n_sequences: int) -> dict[str, Any]:
    if n_sequences != 1:
        raise ValueError(f"attention of {n_sequences} sequences: its contract takes one at a time")
    options: dict[str, Any] = {"scale": at.config.attn_scale, "causal": True, "past": 0}
    if at.config.attn_logit_softcap is not None:
        options["cap"] = at.config.attn_logit_softcap
    window = at.config.layers[at.layer or 0].window
    return options if window is None else options | {"window": window}


def _bind_rotated_attention(
    at: Placed, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
) -> dict[str, Any]:
    return _bind_attention(at, q, k, v) | _rotation(at, q.shape[2])


def _bind_attention_block(at: Placed, x_BPd: torch.Tensor) -> dict[str, Any]:
    """Norms of queries and keys have weights of their own, which Gemma adds to 1."""
    inputs = {"x": rows(x_BPd), "d_head": at.config.d_head, "eps": at.config.eps}
    inputs |= _linears(at.module, "qkvo", "attn")
    for name in ("q_norm", "k_norm") if at.config.qk_norm else ():
        weight = getattr(at.module, name).weight.detach()
        inputs[name] = 1.0 + weight.float() if at.config.multiplies_by_offset else weight
    return inputs | _attention_options(at, x_BPd.shape[0]) | _rotation(at, x_BPd.shape[1])


def _bind_gated_act(at: Placed, gate: torch.Tensor, up: torch.Tensor) -> dict[str, Any]:
    return {"gate": rows(gate), "up": rows(up), "activation": at.config.act_fn}


def _bind_mlp(at: Placed, x: torch.Tensor) -> dict[str, Any]:
    linears = _linears(at.module, ("gate", "up", "down"), "mlp")
    return {"x": rows(x), "activation": at.config.act_fn} | linears


def _linears(owner: Any, names: Iterable[str], of: str) -> dict[str, Any]:
    """The weights of a unit's linears, and the biases of those that have one."""
    inputs: dict[str, Any] = {}
    for name in names:
        linear = weights_of(f"{of}.{name}", getattr(owner, f"{name}_proj"))
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
    """Returns the parts of a kind of operation (model/ops/sites.py), or of a unit."""
    if kind == "rms_norm" and config.multiplies_by_offset:
        return SiteParts(
            _bind_offset_norm, lambda x: (_norm_rows(x.detach()),), _norm_rows, _as_norm_rows
        )
    if kind == "rope":
        return SiteParts(_bind_rope, lambda x: (_heads(x),), _heads, _as_heads)
    if kind in ("attention", "fused_attention"):
        view = _attention_heads(config.d_head)
        return SiteParts(_bind_attention, lambda *qkv: tuple(map(_heads, qkv)), view, _as_attention)
    if kind == "rotated_attention":
        view = _attention_heads(config.d_head)
        return SiteParts(_bind_rotated_attention, None, view, _as_attention)
    if kind in _WITHIN_LINEARS:  # its operands are not those of the linear whose address it has
        bind = _WITHIN_LINEARS[kind]
        return SiteParts(bind, None, KINDS["linear"].view, KINDS["linear"].restore)
    bind, operands = _ROWS[kind]
    return SiteParts(bind, operands, KINDS[kind].view, KINDS[kind].restore)


_WITHIN_LINEARS = {"gated_mlp": _bind_mlp, "attention_block": _bind_attention_block}


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
