"""A layer's weights under TransformerLens's names and shapes, unpacked whenever one asks for them.

Every value is the stored weight: views of packed and quantised matrices hold what the kernels
compute with. Norm weights stay in the norms: nothing is folded. Key and value heads are repeated
for the query heads that share them.
Tensor names: H heads, G key/value heads, h d_head, d d_model, m d_mlp, V vocabulary.
"""

from __future__ import annotations

import torch

from ..config import ModelConfig
from ..layers import Linear


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
        return bias_of(self.o, self.config.d_model)


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
        return bias_of(self.gate, self.config.d_mlp)

    @property
    def b_in(self) -> torch.Tensor:
        """[m]."""
        return bias_of(self.up, self.config.d_mlp)

    @property
    def b_out(self) -> torch.Tensor:
        """[d]."""
        return bias_of(self.down, self.config.d_model)


def _input_heads(linear: Linear, heads: int, config: ModelConfig) -> torch.Tensor:
    """A projection's matrix as [H, d, h], its heads repeated to H."""
    W_Hhd = linear.matrix(heads * config.d_head).view(heads, config.d_head, config.d_model)
    return W_Hhd.mT.repeat_interleave(config.n_heads // heads, 0)


def _head_biases(linear: Linear, heads: int, config: ModelConfig) -> torch.Tensor:
    bias = bias_of(linear, heads * config.d_head).view(heads, config.d_head)
    return bias.repeat_interleave(config.n_heads // heads, 0)


def bias_of(linear: Linear, n: int) -> torch.Tensor:
    """A linear's bias [n]; zeros where it has none."""
    policy = linear.ops.policy
    if linear.bias is None:
        return torch.zeros(n, dtype=policy.activation, device=linear.ops.device)
    return linear.bias.to(policy.activation)
