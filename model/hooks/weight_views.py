"""Weights under TransformerLens's names and shapes, unpacked each time they are asked for.

Every value is the stored weight: views of packed and quantised matrices hold what the kernels
compute with. Norm weights stay in the norms: nothing is folded. Key and value heads are repeated
for the query heads that share them.
Tensor names: L layers, H heads, G key/value heads, h d_head, d d_model, m d_mlp, V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..config import ModelConfig
from ..layers import Embedding, Linear, RMSNorm
from ..text.interface import TextInterface
from ..text.prompts import check_ids

if TYPE_CHECKING:
    from ..block import Block


class AttentionWeights:
    """One attention layer's matrices, `blocks[i].attn.W_Q` and so on."""

    config: ModelConfig
    q: Linear
    k: Linear
    v: Linear
    o: Linear

    @property
    def W_Q(self) -> torch.Tensor:
        """[H, d, h]."""
        return _input_heads(self.q, self.config.n_heads, self.config)

    @property
    def W_K(self) -> torch.Tensor:
        """[H, d, h], each key head once for every query head of its group."""
        return _input_heads(self.k, self.config.n_key_value_heads, self.config)

    @property
    def W_V(self) -> torch.Tensor:
        """[H, d, h], each value head once for every query head of its group."""
        return _input_heads(self.v, self.config.n_key_value_heads, self.config)

    @property
    def W_O(self) -> torch.Tensor:
        """[H, h, d]."""
        c = self.config
        return self.o.matrix(c.d_model).T.view(c.n_heads, c.d_head, c.d_model)

    @property
    def b_Q(self) -> torch.Tensor:
        """[H, h]; biases a model lacks are zeros, here and below."""
        return _head_biases(self.q, self.config.n_heads, self.config)

    @property
    def b_K(self) -> torch.Tensor:
        """[H, h]."""
        return _head_biases(self.k, self.config.n_key_value_heads, self.config)

    @property
    def b_V(self) -> torch.Tensor:
        """[H, h]."""
        return _head_biases(self.v, self.config.n_key_value_heads, self.config)

    @property
    def b_O(self) -> torch.Tensor:
        """[d]."""
        return _bias(self.o, self.config.d_model)


class MLPWeights:
    """One MLP's matrices, `blocks[i].mlp.W_in` and so on."""

    config: ModelConfig
    gate: Linear
    up: Linear
    down: Linear

    @property
    def W_gate(self) -> torch.Tensor:
        """[d, m], what the activation function is applied to."""
        return self.gate.matrix(self.config.d_mlp).T

    @property
    def W_in(self) -> torch.Tensor:
        """[d, m], the up projection."""
        return self.up.matrix(self.config.d_mlp).T

    @property
    def W_out(self) -> torch.Tensor:
        """[m, d]."""
        return self.down.matrix(self.config.d_model).T

    @property
    def b_gate(self) -> torch.Tensor:
        """[m]."""
        return _bias(self.gate, self.config.d_mlp)

    @property
    def b_in(self) -> torch.Tensor:
        """[m]."""
        return _bias(self.up, self.config.d_mlp)

    @property
    def b_out(self) -> torch.Tensor:
        """[d]."""
        return _bias(self.down, self.config.d_model)


def _input_heads(linear: Linear, heads: int, config: ModelConfig) -> torch.Tensor:
    """A projection's matrix as [H, d, h], its heads repeated to H."""
    W_Hhd = linear.matrix(heads * config.d_head).view(heads, config.d_head, config.d_model)
    return W_Hhd.mT.repeat_interleave(config.n_heads // heads, 0)


def _head_biases(linear: Linear, heads: int, config: ModelConfig) -> torch.Tensor:
    bias = _bias(linear, heads * config.d_head).view(heads, config.d_head)
    return bias.repeat_interleave(config.n_heads // heads, 0)


def _bias(linear: Linear, n: int) -> torch.Tensor:
    policy = linear.ops.policy
    if linear.bias is None:
        return torch.zeros(n, dtype=policy.activation, device=linear.ops.device)
    return linear.bias.to(policy.activation)


class ModelWeights(TextInterface):
    """All layers' matrices, stacked on a first axis, and the embeddings."""

    config: ModelConfig
    embed: Embedding
    ln_final: RMSNorm
    unembed: Linear
    _blocks: tuple[Block, ...]

    @property
    def W_E(self) -> torch.Tensor:
        """[V, d], with the embedding's scale: W_E[tokens] is hook_embed."""
        embedded: torch.Tensor = self.embed(
            torch.arange(self.config.d_vocab, device=self.ops.device)
        )
        return embedded

    @property
    def W_U(self) -> torch.Tensor:
        """[d, V]."""
        return self.unembed.matrix(self.config.d_vocab).T

    @property
    def b_U(self) -> torch.Tensor:
        """[V], zeros."""
        return _bias(self.unembed, self.config.d_vocab)

    @property
    def W_Q(self) -> torch.Tensor:
        """[L, H, d, h]."""
        return torch.stack([block.attn.W_Q for block in self._blocks])

    @property
    def W_K(self) -> torch.Tensor:
        """[L, H, d, h]."""
        return torch.stack([block.attn.W_K for block in self._blocks])

    @property
    def W_V(self) -> torch.Tensor:
        """[L, H, d, h]."""
        return torch.stack([block.attn.W_V for block in self._blocks])

    @property
    def W_O(self) -> torch.Tensor:
        """[L, H, h, d]."""
        return torch.stack([block.attn.W_O for block in self._blocks])

    @property
    def b_Q(self) -> torch.Tensor:
        """[L, H, h]."""
        return torch.stack([block.attn.b_Q for block in self._blocks])

    @property
    def b_K(self) -> torch.Tensor:
        """[L, H, h]."""
        return torch.stack([block.attn.b_K for block in self._blocks])

    @property
    def b_V(self) -> torch.Tensor:
        """[L, H, h]."""
        return torch.stack([block.attn.b_V for block in self._blocks])

    @property
    def b_O(self) -> torch.Tensor:
        """[L, d]."""
        return torch.stack([block.attn.b_O for block in self._blocks])

    @property
    def W_gate(self) -> torch.Tensor:
        """[L, d, m]."""
        return torch.stack([block.mlp.W_gate for block in self._blocks])

    @property
    def W_in(self) -> torch.Tensor:
        """[L, d, m]."""
        return torch.stack([block.mlp.W_in for block in self._blocks])

    @property
    def W_out(self) -> torch.Tensor:
        """[L, m, d]."""
        return torch.stack([block.mlp.W_out for block in self._blocks])

    @property
    def b_gate(self) -> torch.Tensor:
        """[L, m]."""
        return torch.stack([block.mlp.b_gate for block in self._blocks])

    @property
    def b_in(self) -> torch.Tensor:
        """[L, m]."""
        return torch.stack([block.mlp.b_in for block in self._blocks])

    @property
    def b_out(self) -> torch.Tensor:
        """[L, d]."""
        return torch.stack([block.mlp.b_out for block in self._blocks])

    def tokens_to_residual_directions(
        self, tokens: str | int | torch.Tensor, *, fold_ln: bool = True
    ) -> torch.Tensor:
        """The directions of the residual stream that raise each token's logit, [..., d].

        A token is a text that is one, an id, or a tensor of ids; one with a single id gives [d].
        With `fold_ln` these are columns of W_U times ln_final's weight: the dot product with a
        residual stream divided by its scale is the logit, as in TransformerLens once it has folded
        its norms. Without it they are W_U's columns.
        """
        if isinstance(tokens, str):
            tokens = self.to_single_token(tokens)
        ids = torch.as_tensor(tokens, device=self.ops.device)
        check_ids(ids.flatten(), self.config.d_vocab)
        rows_Td = self.ops.embed(ids.flatten(), self.unembed.weight, 1.0)
        if fold_ln:
            rows_Td = rows_Td * self.ln_final.weight
        shape = ids.shape if ids.numel() > 1 else ()
        return rows_Td.view(*shape, self.config.d_model)
