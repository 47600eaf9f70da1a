"""Modules from a checkpoint's tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from .attention import Attention
from .block import MLP, Block
from .config import ModelConfig
from .layers import Embedding, Linear, RMSNorm
from .ops.interface import Ops
from .ops.policy import Policy
from .weights.checkpoint import Checkpoint, CheckpointError, Format, StoredMatrix


def packed_matrices(modules: Iterable[nn.Module]) -> dict[str, Any]:
    """Returns the matrices of a model's modules by name, as the backend has them."""
    found: dict[str, Any] = {}
    for each in modules:
        if isinstance(each, Embedding):
            found["embed.weight"] = each.weight
        elif isinstance(each, Linear):
            found[f"{each.address}.weight"] = each.weight
    return found


class ModuleBuilder:
    """Reads one tensor at a time and hands it to the backend, rounded to the policy's weights."""

    def __init__(
        self, checkpoint: Checkpoint, ops: Ops, packed: Mapping[str, Any] | None = None
    ) -> None:
        """`packed`: matrices of the same checkpoint that the backend has already, by name."""
        self.checkpoint = checkpoint
        self.config = checkpoint.config
        self.ops = ops
        self._packed = packed or {}

    def linear(
        self, address: str, *, bias: bool = False, out_dtype: torch.dtype | None = None
    ) -> Linear:
        """The linear whose tensors are `address`.weight and, with `bias`, `address`.bias."""
        weight = self._weight(f"{address}.weight")
        offset = self.ops.vector(self._vector(f"{address}.bias")) if bias else None
        return Linear(address, self.ops, weight, offset, out_dtype)

    def norm(self, address: str) -> RMSNorm:
        """The norm whose weight is `address`.weight, with `norm_offset` folded in."""
        weight = norm_weight(self._stored_vector(f"{address}.weight"), self.config, self.ops.policy)
        return RMSNorm(address, self.ops, self.ops.vector(weight), self.config.eps)

    def embedding(self) -> Embedding:
        weight = self._weight("embed.weight")
        scale = torch.tensor(
            self.config.embed_scale, dtype=self.ops.policy.compute, device="cpu"
        ).item()
        return Embedding(self.ops, weight, scale)

    def unembedding(self, embedding: Embedding) -> Linear:
        """The output layer; with tied embeddings it shares the embedding's matrix."""
        logits = self.ops.policy.logits
        if self.config.tie_embeddings:
            return Linear("unembed", self.ops, embedding.weight, out_dtype=logits)
        return self.linear("unembed", out_dtype=logits)

    def block(self, index: int) -> Block:
        config, address = self.config, f"blocks.{index}"
        norms = {name: f"{address}.attn.{name}_norm" for name in "qk" if config.qk_norm}
        qkv = {name: self.linear(f"{address}.attn.{name}", bias=config.attn_bias) for name in "qkv"}
        o = self.linear(f"{address}.attn.o", bias=config.attn_out_bias)
        mlp = [
            self.linear(f"{address}.mlp.{name}", bias=config.mlp_bias)
            for name in ("gate", "up", "down")
        ]
        sandwich = config.sandwich_norms
        return Block(
            index,
            ln1=self.norm(f"{address}.ln1"),
            attn=Attention(
                config,
                index,
                qkv | {"o": o},
                {name: self.norm(norm) for name, norm in norms.items()},
            ),
            ln1_post=self.norm(f"{address}.ln1_post") if sandwich else None,
            ln2=self.norm(f"{address}.ln2"),
            mlp=MLP(config, index, *mlp),
            ln2_post=self.norm(f"{address}.ln2_post") if sandwich else None,
        )

    def _weight(self, name: str) -> Any:
        packed = self._packed.get(name)
        return self.ops.weight(self._matrix(name)) if packed is None else packed

    def _matrix(self, name: str) -> StoredMatrix:
        matrix = self.checkpoint.matrix(name)
        if matrix.format is Format.F32:  # no other format reaches beyond bf16's largest number
            self._require_in_range(name, matrix.data)
        return matrix

    def _vector(self, name: str) -> torch.Tensor:
        return self._stored_vector(name).to(self.ops.policy.weight).to(self.ops.policy.compute)

    def _stored_vector(self, name: str) -> torch.Tensor:
        vector = self.checkpoint.vector(name)
        self._require_in_range(name, vector)
        return vector

    def _require_in_range(self, name: str, weights: torch.Tensor) -> None:
        """A finite fp32 weight may round to an infinite bf16 one."""
        if self.ops.policy.weight is not torch.bfloat16:
            return
        extremes = torch.stack(torch.aminmax(weights)).to(torch.bfloat16)
        if not bool(torch.isfinite(extremes).all()):
            raise CheckpointError(
                f"{self.checkpoint.name}: tensor {name!r} holds numbers beyond bf16's largest; "
                'load with dtype="fp32"'
            )


def norm_weight(stored: torch.Tensor, config: ModelConfig, policy: Policy) -> torch.Tensor:
    """Returns what a norm multiplies by, of the weight as its checkpoint stores it."""
    weight, folded = stored, config.folded_norm_offset
    # Without an offset w stays as it is: under torch.set_flush_denormal, w + 0 would lose a
    # subnormal w.
    if folded and policy.weight is torch.bfloat16:
        weight = weight - folded  # 1 + w rounded to bf16 would lose most of w
        offset = folded
    else:
        offset = config.norm_offset
    weight = weight.to(policy.weight).to(policy.compute)
    if offset:
        weight = weight.to(torch.promote_types(policy.compute, torch.float32)) + offset
    return weight
