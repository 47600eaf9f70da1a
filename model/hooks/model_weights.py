"""All layers' weights under TransformerLens's names and shapes (see weight_views.py).

Tensor names: L layers, H heads, h d_head, d d_model, m d_mlp, V vocabulary.
"""

from __future__ import annotations

import torch

from ..block import Block
from ..config import ModelConfig
from ..layers import Embedding, Linear, RMSNorm
from ..text.interface import TextInterface
from ..text.prompts import check_ids
from .weight_views import bias_of


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
        return bias_of(self.unembed, self.config.d_vocab)

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
        check_ids(ids.flatten().tolist(), self.config.d_vocab)
        rows_Td = self.ops.embed(ids.flatten(), self.unembed.weight, 1.0)
        if fold_ln:
            rows_Td = rows_Td * self.ln_final.weight
        shape = ids.shape if ids.numel() > 1 else ()
        return rows_Td.view(*shape, self.config.d_model)
