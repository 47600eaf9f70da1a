"""The compiled gradients of weights and of log-probabilities on tensors, unchecked.

Gradients of weights are added to sums that go on from call to call (docs/numerics.md, Gradients of
weights). Tensor names: T ragged rows, B sequences, V vocabulary, d d_model, n outputs and k inputs
of a linear.
"""

from __future__ import annotations

import torch

from ... import _core
from ..ops.kernels import DTYPE_CODES, empty


def token_logprob(
    logits_TV: torch.Tensor, ids_T: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns ln p of each row's token, and what its gradient needs: the row's maximum and sum."""
    logits_TV, ids_T = logits_TV.contiguous(), ids_T.contiguous()
    rows, n = logits_TV.shape
    logprob_T, max_T, sum_T = empty((rows,)), empty((rows,)), empty((rows,))
    _core.token_logprob(logits_TV, rows, n, ids_T, temperature, logprob_T, max_T, sum_T)
    return logprob_T, max_T, sum_T


def token_logprob_backward(
    dlogprob_T: torch.Tensor,
    logits_TV: torch.Tensor,
    ids_T: torch.Tensor,
    temperature: float,
    max_T: torch.Tensor,
    sum_T: torch.Tensor,
) -> torch.Tensor:
    """Differentiates `token_logprob`; returns the gradient of the logits, fp32 [T, V]."""
    dlogprob_T, logits_TV, ids_T = (x.contiguous() for x in (dlogprob_T, logits_TV, ids_T))
    rows, n = logits_TV.shape
    dlogits_TV = empty(logits_TV.shape)
    _core.token_logprob_backward(
        dlogprob_T, logits_TV, rows, n, ids_T, temperature, max_T, sum_T, dlogits_TV
    )
    return dlogits_TV


def add_linear_weight_grad(
    sums_nk: torch.Tensor, dy_Tn: torch.Tensor, x_Tk: torch.Tensor, starts_B1: torch.Tensor
) -> None:
    """Adds dy^T x to sums, leaf by leaf."""
    dy_Tn, x_Tk = dy_Tn.contiguous(), x_Tk.contiguous()
    n, k = sums_nk.shape
    _core.linear_weight_grad(
        dy_Tn, DTYPE_CODES[dy_Tn.dtype], n, x_Tk, DTYPE_CODES[x_Tk.dtype], k,
        starts_B1, len(starts_B1) - 1, sums_nk,
    )  # fmt: skip


def add_bias_grad(sums_n: torch.Tensor, dy_Tn: torch.Tensor, starts_B1: torch.Tensor) -> None:
    """Adds the rows of dy to sums, leaf by leaf."""
    dy_Tn = dy_Tn.contiguous()
    _core.bias_grad(
        dy_Tn, DTYPE_CODES[dy_Tn.dtype], len(sums_n), starts_B1, len(starts_B1) - 1, sums_n
    )


def add_norm_weight_grad(
    sums_d: torch.Tensor, dy: torch.Tensor, normalized: torch.Tensor, starts_B1: torch.Tensor
) -> None:
    """Adds dy * normalized [T, d] or [T, heads, d], the latter fp32, to sums, leaf by leaf."""
    dy, normalized = dy.contiguous(), normalized.contiguous()
    heads = dy.shape[1] if dy.ndim == 3 else 1
    _core.norm_weight_grad(
        dy, DTYPE_CODES[dy.dtype], len(sums_d), normalized, heads, starts_B1,
        len(starts_B1) - 1, sums_d,
    )  # fmt: skip


def add_embed_grad(
    sums_Vd: torch.Tensor,
    dresid_Td: torch.Tensor,
    tokens_T: torch.Tensor,
    scale: float,
    starts_B1: torch.Tensor,
) -> None:
    """Adds scale * dresid of each token to its row of sums, leaf by leaf."""
    n, d = sums_Vd.shape
    _core.embed_grad(
        dresid_Td.contiguous(), d, tokens_T.contiguous(), n, scale, starts_B1,
        len(starts_B1) - 1, sums_Vd,
    )  # fmt: skip
