"""The operations of transformers' eager models in terms of their precision contracts.

What the modules and functions that model/interop/transformers_addresses.py dispatches are called
with, as the contracts' inputs. Tensor names: B batch, P positions, T = B P rows, K keys, H heads,
G key/value heads, h d_head.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..ops.sites import RESTORES, VIEWS, as_rows, bind_add, rows


def _heads(x_BHPh: torch.Tensor) -> torch.Tensor:
    """[H, T, h]."""
    return x_BHPh.detach().transpose(0, 1).flatten(1, 2)


def _as_heads(y_HTh: torch.Tensor, like_BHPh: torch.Tensor) -> torch.Tensor:
    batch, heads, positions, size = like_BHPh.shape
    y_BHPh = y_HTh.reshape(heads, batch, positions, size).transpose(0, 1)
    return y_BHPh.to(like_BHPh.dtype).contiguous()


def _attention_heads(result: tuple[torch.Tensor, Any]) -> torch.Tensor:
    return result[0].flatten(0, 1).transpose(0, 1)


def _as_attention(y_HTh: torch.Tensor, like: tuple[torch.Tensor, Any]) -> tuple[torch.Tensor, Any]:
    """The weights beside the output stay as they were: nothing computes with them."""
    return y_HTh.transpose(0, 1).reshape(like[0].shape).to(like[0].dtype), like[1]


def _bind_embedding(module: Any, tokens_BP: torch.Tensor) -> dict[str, Any]:
    picked_Td = module.weight.detach()[tokens_BP.flatten()]
    return {"a": picked_Td[..., None], "b": picked_Td.new_ones(1, 1)}


def _bind_linear(module: Any, x: torch.Tensor) -> dict[str, Any]:
    inputs = {"a": rows(x), "b": module.weight.detach().T}
    return inputs if module.bias is None else inputs | {"bias": module.bias.detach()}


def _bind_norm(module: Any, x: torch.Tensor) -> dict[str, Any]:
    return {"x": rows(x), "weight": module.weight.detach(), "eps": module.variance_epsilon}


def _bind_scaled_embedding(module: Any, tokens_BP: torch.Tensor) -> dict[str, Any]:
    scale = module.embed_scale.to(module.weight.dtype)
    return _bind_embedding(module, tokens_BP) | {"b": scale.view(1, 1)}


def _bind_offset_norm(module: Any, x: torch.Tensor) -> dict[str, Any]:
    weight = 1.0 + module.weight.detach().float()
    return {"x": _norm_rows(x), "weight": weight, "eps": module.eps}


def _norm_rows(x: torch.Tensor) -> torch.Tensor:
    """Rows in the order of [B, P, ...]; Gemma's norms of q and k see [B, H, P, h]."""
    return rows(x.transpose(1, 2) if x.ndim == 4 else x)


def _as_norm_rows(y: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    if like.ndim < 4:
        return as_rows(y, like)
    return as_rows(y, like.transpose(1, 2)).transpose(1, 2).contiguous()


def _bind_rope(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> dict[str, Any]:
    """The tables come as they are, already in the model's dtype; both their halves are one."""
    half = x.shape[-1] // 2
    tables = (t.expand(x.shape[0], -1, -1).flatten(0, 1)[:, :half] for t in (cos, sin))
    return {"x": _heads(x), **dict(zip(("cos", "sin"), tables, strict=True))}


def _bind_attention(
    attn: Any,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    *,
    scaling: float,
    **options: Any,
) -> dict[str, Any]:
    if q.shape[0] != 1:
        raise ValueError(f"attention of {q.shape[0]} sequences: its contract takes one at a time")
    if options.get("softcap") is not None:
        raise ValueError("softcap: the rounding points of a capped eager attention are not known")
    past = k.shape[2] - q.shape[2]
    inputs = {"q": _heads(q), "k": _heads(k), "v": _heads(v), "scale": scaling}
    window = options.get("sliding_window")
    if not _is_causal(mask, past, window, q.shape[2]):
        raise ValueError("attention_mask: not causal; pass one sequence without padding")
    inputs |= {"causal": True, "past": past}
    return inputs if window is None else inputs | {"window": window}


def _is_causal(mask: torch.Tensor | None, past: int, window: int | None, n: int) -> bool:
    t, key = torch.arange(past, past + n)[:, None], torch.arange(past + n)
    expected = key <= t
    if window is not None:
        expected &= key > t - window
    return bool(expected.all()) if mask is None else torch.equal(mask[0, 0].cpu() == 0, expected)


@dataclass(frozen=True)
class SiteParts:
    """The functions of a `Site`; `bind` of an operation that is a module takes that first."""

    bind: Callable[..., dict[str, Any]]
    operands: Callable[..., tuple[torch.Tensor, ...]]
    view: Callable[[Any], torch.Tensor]
    restore: Callable[[torch.Tensor, Any], Any]


def _parts(kind: str, bind: Any, operands: Any) -> SiteParts:
    return SiteParts(bind, operands, VIEWS[kind], RESTORES[kind])


def _one_operand(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return (rows(x.detach()),)


def _two_operands(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return rows(x.detach()), rows(y.detach())


SITES: Mapping[str, SiteParts] = {
    "embedding": _parts("embedding", _bind_embedding, lambda _: ()),
    "linear": _parts("linear", _bind_linear, _one_operand),
    "norm": _parts("norm", _bind_norm, _one_operand),
    "add": _parts("add", bind_add, _two_operands),
    "rope": SiteParts(_bind_rope, lambda x, *_: (_heads(x),), _heads, _as_heads),
    "attention": SiteParts(
        _bind_attention,
        lambda _, q, k, v, *__, **___: (_heads(q), _heads(k), _heads(v)),
        _attention_heads,
        _as_attention,
    ),
    "gated_act": _parts(
        "gated_act", lambda gate, up: {"gate": rows(gate), "up": rows(up)}, _two_operands
    ),
}
"""By kind of operation, for the Llama family."""

GEMMA_SITES: Mapping[str, SiteParts] = {
    **SITES,
    "embedding": _parts("embedding", _bind_scaled_embedding, lambda _: ()),
    "norm": SiteParts(
        _bind_offset_norm, lambda x: (_norm_rows(x.detach()),), _norm_rows, _as_norm_rows
    ),
    "gated_act": _parts(
        "gated_act",
        lambda gate, up: {"gate": rows(gate), "up": rows(up), "activation": "gelu_tanh"},
        _two_operands,
    ),
}
"""The same for Gemma 3."""
