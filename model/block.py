"""The transformer block, one class for every architecture and backend."""

from __future__ import annotations

import torch
from torch import nn

from .attention import Attention
from .config import ModelConfig
from .hooks.weight_views import MLPWeights
from .layers import Linear, RMSNorm
from .run import Run


class MLP(MLPWeights, nn.Module):
    """The gated MLP: down(act(gate(x)) * up(x)) (Shazeer 2020)."""

    def __init__(
        self, config: ModelConfig, index: int, gate: Linear, up: Linear, down: Linear
    ) -> None:
        super().__init__()
        self.config = config
        self.act_fn = config.act_fn
        self.address = f"blocks.{index}.mlp"
        self.gate = gate
        self.up = up
        self.down = down

    def forward(self, x_Td: torch.Tensor, run: Run) -> torch.Tensor:
        x_Td = run.hook(f"{self.address}.hook_in", x_Td)
        gate_in, up_in = run.ops.fork(x_Td, 2)
        gate = run.hook(f"{self.address}.hook_pre", self.gate(gate_in, run))
        up = run.hook(f"{self.address}.hook_pre_linear", self.up(up_in, run))
        post = run.op(f"{self.address}.act", run.ops.gated_act, self.act_fn, gate, up)
        post = run.hook(f"{self.address}.hook_post", post)
        return run.hook(f"{self.address}.hook_out", self.down(post, run))


class Block(nn.Module):
    """Attention and MLP around the residual stream, unfused.

    Fires every hook but resid_pre and resid_post: those stand between blocks, so the model fires
    them and the inside may stay fused.
    """

    def __init__(
        self,
        index: int,
        ln1: RMSNorm,
        attn: Attention,
        ln2: RMSNorm,
        mlp: MLP,
        ln1_post: RMSNorm | None = None,
        ln2_post: RMSNorm | None = None,
    ) -> None:
        super().__init__()
        self.address = f"blocks.{index}"
        self.ln1 = ln1
        self.attn = attn
        self.ln1_post = ln1_post
        self.ln2 = ln2
        self.mlp = mlp
        self.ln2_post = ln2_post

    def forward(self, resid_Td: torch.Tensor, run: Run) -> torch.Tensor:
        attn_in, resid_Td = run.ops.fork(resid_Td, 2)
        attn_out = self.attn(attn_in, self.ln1, run)
        if self.ln1_post is not None:
            attn_out = self.ln1_post(attn_out, run)
        attn_out = run.hook(f"{self.address}.hook_attn_out", attn_out)
        resid_mid = run.op(f"{self.address}.resid_mid", run.ops.add, resid_Td, attn_out)
        resid_mid = run.hook(f"{self.address}.hook_resid_mid", resid_mid)
        mlp_in, resid_mid = run.ops.fork(resid_mid, 2)
        mlp_in = run.hook(f"{self.address}.hook_mlp_in", mlp_in)
        mlp_out = self.mlp(self.ln2(mlp_in, run), run)
        if self.ln2_post is not None:
            mlp_out = self.ln2_post(mlp_out, run)
        mlp_out = run.hook(f"{self.address}.hook_mlp_out", mlp_out)
        return run.op(f"{self.address}.resid_post", run.ops.add, resid_mid, mlp_out)
