"""Encoding and decoding in torch's graph, with the bits they have outside it.

Which features are active is not differentiated: thresholds, and the gates of gated SAEs, get no
gradient here. The trainer has estimators of its own.

Shapes: N rows, F features, d width.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch.autograd.function import once_differentiable

from . import kernels
from .encoder import Weights
from .features import Features

Gradients = tuple[torch.Tensor | None, ...]


class Encodes(Weights, Protocol):
    """A dictionary, as far as encoding in a graph needs it."""

    def encode_sparse(self, x: torch.Tensor) -> Features: ...

    def encoded_by(self) -> list[torch.nn.Parameter]: ...


def needs_graph(*tensors: torch.Tensor) -> bool:
    """Returns whether an operation on these is recorded for backward()."""
    return torch.is_grad_enabled() and any(x.requires_grad for x in tensors)


class Encode(torch.autograd.Function):
    """`Encode.apply(rows, dictionary, *parameters)` returns dense activations [N, F]."""

    @staticmethod
    def forward(
        ctx: Any, rows: torch.Tensor, dictionary: Encodes, *parameters: torch.Tensor
    ) -> torch.Tensor:
        acts = dictionary.encode_sparse(rows).dense()
        ctx.save_for_backward(rows, acts)
        ctx.dictionary = dictionary
        return acts

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NF: torch.Tensor) -> Gradients:
        rows, acts = ctx.saved_tensors
        d: Encodes = ctx.dictionary
        dpre = grad_NF.where(acts != 0, 0.0)
        grads: dict[int, torch.Tensor] = {}
        if d.cfg.architecture == "gated":
            scale = kernels.exp(d.r_mag.detach())
            grads[id(d.b_mag)] = kernels.column_sums(dpre)
            # magnitude = product * exp(r_mag) + b_mag
            grads[id(d.r_mag)] = kernels.column_sums(dpre * (acts - d.b_mag.detach()))
            dpre = dpre * scale
        else:
            if d.cfg.rescale_acts_by_decoder_norm:
                dpre = dpre * kernels.sums_of_squares(d.W_dec.detach().float()).sqrt()
            grads[id(d.b_enc)] = kernels.column_sums(dpre)
        x = rows.float() - d.b_dec.detach() if d.cfg.apply_b_dec_to_input else rows.float()
        dx = kernels.dense(dpre, d.W_enc.detach().float(), None)
        grads[id(d.W_enc)] = kernels.dense(x.T, dpre.T, None).to(d.W_enc.dtype)
        if d.cfg.apply_b_dec_to_input:
            grads[id(d.b_dec)] = -kernels.column_sums(dx)
        wanted = [
            grads.get(id(p)) if needed else None
            for p, needed in zip(d.encoded_by(), ctx.needs_input_grad[2:], strict=True)
        ]
        return dx.to(rows.dtype), None, *wanted


class Decode(torch.autograd.Function):
    """`Decode.apply(acts, W_dec, b_dec)` returns the reconstruction [N, d_out]."""

    @staticmethod
    def forward(
        ctx: Any, acts: torch.Tensor, W_dec: torch.Tensor, b_dec: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(acts, W_dec)
        f = Features.from_dense(acts.detach())
        return kernels.weighted_sums(f.values, f.indices, f.indptr, W_dec.detach().float(), b_dec)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_Nd: torch.Tensor) -> Gradients:
        acts, W_dec = ctx.saved_tensors
        dW_dec = None
        if ctx.needs_input_grad[1]:
            dW_dec = kernels.dense(acts.T.float(), grad_Nd.T, None).to(W_dec.dtype)
        dacts = kernels.dense(grad_Nd, W_dec.detach().float(), None)
        return dacts.to(acts.dtype), dW_dec, kernels.column_sums(grad_Nd.float())


class Skip(torch.autograd.Function):
    """`Skip.apply(rows, W_skip)` returns rows times W_skip transposed, [N, d_out]."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, W_skip: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(rows, W_skip)
        return kernels.dense(rows.float(), W_skip.detach().float(), None)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_Nd: torch.Tensor) -> Gradients:
        rows, W_skip = ctx.saved_tensors
        dx = kernels.dense(grad_Nd, W_skip.detach().float().T, None)
        dW_skip = kernels.dense(grad_Nd.T, rows.float().T, None)
        return dx.to(rows.dtype), dW_skip.to(W_skip.dtype)
