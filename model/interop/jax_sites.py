"""The operations of a Llama in JAX in terms of their precision contracts.

Tensor names: P positions, H heads, G key/value heads, D head, n outputs of a linear.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ...precision.addresses import Site
from ...precision.contracts import HUGGINGFACE_LLAMA_BF16, HUGGINGFACE_LLAMA_FP32
from ..config import ModelConfig
from ..ops.sites import KINDS, bind_add, operation_at, rows
from ..rope.scaling import rotary_frequencies
from ..weights.checkpoint import Checkpoint
from .plain_llama import dense

IMPLEMENTATION = "XLA through JAX"
_CONTRACTS = {torch.float32: HUGGINGFACE_LLAMA_FP32, torch.bfloat16: HUGGINGFACE_LLAMA_BF16}


class JaxSites:
    """The sites of a checkpoint's Llama; weights and what is derived are read from the checkpoint
    anew, so that an operation which computes with others breaks its contract."""

    def __init__(self, checkpoint: Checkpoint, dtype: torch.dtype) -> None:
        self._config: ModelConfig = checkpoint.config
        self._dtype = dtype
        self._weights = {
            name: torch.from_numpy(dense(checkpoint, name)).to(dtype) for name in checkpoint.names()
        }

    def site(self, address: str) -> Site:
        """Returns the site of an address that is one."""
        kind = KINDS[operation_at(address)]
        contract = _CONTRACTS[self._dtype][kind.op]
        operands, view, restore = kind.operands, kind.view, kind.restore
        if kind.name == "rope":
            operands, view, restore = self._rope_operands, _unchanged, _as_result
        elif kind.name == "attention":
            operands, view, restore = self._attention_operands, self._heads, _as_rows_of_heads
        elif kind.name == "swiglu":
            operands = _operands

        def bind(*inputs: torch.Tensor) -> dict[str, Any]:
            return self._bind(kind.name, address, *inputs)

        return Site(address, contract, IMPLEMENTATION, bind, operands, view, restore)

    def _bind(self, kind: str, address: str, *inputs: torch.Tensor) -> dict[str, Any]:
        config, x = self._config, inputs[0]
        if kind == "embedding":
            picked_Pd = self._weights["embed.weight"][x]
            return {"a": picked_Pd[..., None], "b": picked_Pd.new_ones(1, 1)}
        if kind == "linear":
            return self._bind_linear(address, x)
        if kind == "rms_norm":
            return {"x": rows(x), "weight": self._weights[f"{address}.weight"], "eps": config.eps}
        if kind == "rope":
            positions = torch.arange(len(x))
            return {"x": self._heads(x), "positions": positions} | self._rotation(len(x))
        if kind == "attention":
            q, k, v = self._attention_operands(*inputs)
            options = {"scale": config.attn_scale, "causal": True, "past": 0}
            return {"q": q, "k": k, "v": v} | options
        if kind == "swiglu":
            return {"gate": x, "up": inputs[1], "activation": config.act_fn}
        return bind_add(*inputs)

    def _bind_linear(self, address: str, x: torch.Tensor) -> dict[str, Any]:
        if address == "unembed" and self._config.tie_embeddings:
            return {"a": rows(x), "b": self._weights["embed.weight"].T}
        inputs = {"a": rows(x), "b": self._weights[f"{address}.weight"]}
        bias = self._weights.get(f"{address}.bias")
        return inputs if bias is None else inputs | {"bias": bias}

    def _rotation(self, n: int) -> dict[str, Any]:
        layer = self._config.layers[0]
        if layer.rope_scaling is None:
            return {"theta": layer.rope_theta}
        found = rotary_frequencies(layer.rope_theta, self._config.d_head, layer.rope_scaling, n)
        inv_freq = tuple(np.asarray(found.inv_freq, dtype=np.float32).tolist())
        return {"inv_freq": inv_freq, "attention_factor": found.attention_factor}

    def _heads(self, x_Pn: torch.Tensor) -> torch.Tensor:
        """[H, P, D]."""
        return x_Pn.reshape(len(x_Pn), -1, self._config.d_head).transpose(0, 1)

    def _rope_operands(self, x_Pn: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (self._heads(x_Pn),)

    def _attention_operands(
        self, q_HPD: torch.Tensor, k_GPD: torch.Tensor, v_Pn: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        return q_HPD, k_GPD, self._heads(v_Pn)


def _operands(*xs: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return xs


def _unchanged(y: torch.Tensor) -> torch.Tensor:
    return y


def _as_result(y: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return y.to(like.dtype)


def _as_rows_of_heads(y_HPD: torch.Tensor, like_Pn: torch.Tensor) -> torch.Tensor:
    return y_HPD.transpose(0, 1).reshape(like_Pn.shape).to(like_Pn.dtype)
