"""The JAX model's programs computed by torch: what stands around them needs no JAX."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from bitlens.model.interop.jax_llama import forward
from bitlens.model.interop.plain_llama import dense, rotation
from bitlens.model.ops.sites import operation_at
from bitlens.model.weights.checkpoint import Checkpoint
from torch.nn.functional import silu


class TorchPrograms:
    """`Programs` in fp32; `moved` gives other bits in the whole program than alone."""

    def __init__(self, checkpoint: Checkpoint, moved: str | None = None) -> None:
        self.config, self.moved = checkpoint.config, moved
        self.weights = {
            name: torch.from_numpy(dense(checkpoint, name)) for name in checkpoint.names()
        }

    def logits(self, tokens_P: torch.Tensor, /) -> torch.Tensor:
        return self.watched(tokens_P)["unembed"]

    def watched(self, tokens_P: torch.Tensor, /) -> Mapping[str, torch.Tensor]:
        values: dict[str, torch.Tensor] = {}

        def op(address: str, *inputs: torch.Tensor) -> torch.Tensor:
            found = self.operation(address, *inputs)
            bits = found.view(torch.int32) ^ int(address == self.moved)
            values[address] = bits.view(torch.float32)
            return values[address]

        forward(self.config.n_layers, op, tokens_P)
        return values

    def operation(self, address: str, /, *inputs: torch.Tensor) -> torch.Tensor:
        kind, config, x = operation_at(address), self.config, inputs[0]
        if kind == "embedding":
            return self.weights["embed.weight"][x]
        if kind == "linear":
            return self._linear(address, x)
        if kind == "rms_norm":
            scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + np.float32(config.eps).item())
            return self.weights[f"{address}.weight"] * (x * scale)
        if kind == "rope":
            cos_PD, sin_PD = map(torch.from_numpy, rotation(config, len(x)))
            x_HPD = self._heads(x)
            halves = x_HPD.chunk(2, -1)
            return x_HPD * cos_PD + torch.cat([-halves[1], halves[0]], -1) * sin_PD
        if kind == "attention":
            return self._attention(*inputs)
        return silu(x) * inputs[1] if kind == "swiglu" else x + inputs[1]

    def _linear(self, address: str, x: torch.Tensor) -> torch.Tensor:
        if address == "unembed" and self.config.tie_embeddings:
            return x @ self.weights["embed.weight"].T
        y = x @ self.weights[f"{address}.weight"]
        bias = self.weights.get(f"{address}.bias")
        return y if bias is None else y + bias

    def _attention(self, q_HPD: torch.Tensor, k_GPD: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        groups = len(q_HPD) // len(k_GPD)
        spread = partial(torch.repeat_interleave, repeats=groups, dim=0)
        scores_HPP = q_HPD @ spread(k_GPD).mT * self.config.attn_scale
        seen = torch.ones(scores_HPP.shape[1:], dtype=torch.bool).tril()
        z_HPD = scores_HPP.masked_fill(~seen, -torch.inf).softmax(-1) @ spread(self._heads(v))
        return z_HPD.transpose(0, 1).flatten(1)

    def _heads(self, x_Pn: torch.Tensor) -> torch.Tensor:
        return x_Pn.view(len(x_Pn), -1, self.config.d_head).transpose(0, 1)
