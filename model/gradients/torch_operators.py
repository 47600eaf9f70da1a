"""`torch.ops.bitlens`: log-probabilities with their gradient, and the sums of weight gradients.

Sums are changed in place and go on from call to call. `starts` [B + 1] cuts the T ragged rows into
sequences. Tensor names: T rows, V vocabulary, B sequences.
"""

from __future__ import annotations

from typing import Any

import torch

from ..ops.kernels import DTYPE_CODES
from ..ops.operator import check_tensor, differentiable, operator, require
from . import weight_kernels
from .first_order import first_order

F32, I64 = torch.float32, torch.int64


def _check_rows(op: str, **tensors: torch.Tensor) -> None:
    """Activations or their gradients, one row a position."""
    for name, x in tensors.items():
        known = x.dtype in DTYPE_CODES and x.device.type == "cpu" and x.ndim in (2, 3)
        require(known, op, f"{name} is {x.dtype} {list(x.shape)}, expected rows in fp32 or bf16")


def _check_starts(op: str, starts: torch.Tensor, n_rows: int) -> None:
    check_tensor(op, "starts", starts, I64, [-1])
    cuts = starts.tolist()
    require(
        len(cuts) > 1 and cuts[0] == 0 and cuts[-1] == n_rows and cuts == sorted(cuts),
        op,
        f"starts {cuts} do not cut {n_rows} rows",
    )


def _check_ids(op: str, ids: torch.Tensor, rows: int, n: int) -> None:
    check_tensor(op, "ids", ids, I64, [rows])
    low, high = (int(x) for x in torch.aminmax(ids)) if rows else (0, 0)
    require(low >= 0 and high < n, op, f"ids hold {low}..{high}, valid is 0..{n - 1}")


def _fake_token_logprob(
    logits: torch.Tensor, ids: torch.Tensor, temperature: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    like = logits.new_empty(logits.shape[0])
    return like, like.clone(), like.clone()


@operator(
    "token_logprob(Tensor logits, Tensor ids, float temperature=1.0) -> (Tensor, Tensor, Tensor)",
    _fake_token_logprob,
)
def token_logprob(
    logits: torch.Tensor, ids: torch.Tensor, temperature: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns ln p of each row's token under fp32 logits [T, V], and each row's maximum and sum.

    The first has gradients; the others are what they are made of.
    """
    op = "token_logprob"
    check_tensor(op, "logits", logits, F32, [-1, -1])
    require(logits.shape[1] > 0, op, "logits have an empty last axis")
    require(0 <= temperature < float("inf"), op, f"temperature {temperature}")
    _check_ids(op, ids, *logits.shape)
    return weight_kernels.token_logprob(logits, ids, temperature)


@operator(
    "token_logprob_backward(Tensor dlogprob, Tensor logits, Tensor ids, float temperature, "
    "Tensor x_max, Tensor z) -> Tensor",
    lambda dlogprob, logits, *_: torch.empty_like(logits),
)
def token_logprob_backward(
    dlogprob: torch.Tensor,
    logits: torch.Tensor,
    ids: torch.Tensor,
    temperature: float,
    x_max: torch.Tensor,
    z: torch.Tensor,
) -> torch.Tensor:
    """Returns the gradient of the logits of `token_logprob`, fp32 [T, V]."""
    op = "token_logprob_backward"
    check_tensor(op, "logits", logits, F32, [-1, -1])
    require(0 <= temperature < float("inf"), op, f"temperature {temperature}")
    for name, x in (("dlogprob", dlogprob), ("x_max", x_max), ("z", z)):
        check_tensor(op, name, x, F32, [logits.shape[0]])
    _check_ids(op, ids, *logits.shape)
    return weight_kernels.token_logprob_backward(dlogprob, logits, ids, temperature, x_max, z)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    logits, ids, ctx.temperature = inputs
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(logits, ids, *output[1:])


@first_order
def _backward(ctx: Any, dlogprob: torch.Tensor, *_: Any) -> tuple[torch.Tensor | None, ...]:
    logits, ids, x_max, z = ctx.saved_tensors
    gradient = torch.ops.bitlens.token_logprob_backward(
        dlogprob.contiguous(), logits, ids, ctx.temperature, x_max, z
    )
    return gradient, None, None


differentiable("token_logprob", _backward, _keep)


@operator(
    "add_linear_weight_grad(Tensor(a!) sums, Tensor dy, Tensor x, Tensor starts) -> ()",
    lambda *_: None,
)
def add_linear_weight_grad(
    sums: torch.Tensor, dy: torch.Tensor, x: torch.Tensor, starts: torch.Tensor
) -> None:
    """Adds dy^T x, of dy [T, n] and x [T, k], to sums fp32 [n, k]."""
    op = "add_linear_weight_grad"
    _check_rows(op, dy=dy, x=x)
    require(dy.ndim == x.ndim == 2 and len(dy) == len(x), op, "dy and x need a row a position")
    check_tensor(op, "sums", sums, F32, [dy.shape[1], x.shape[1]])
    _check_starts(op, starts, len(dy))
    weight_kernels.add_linear_weight_grad(sums, dy, x, starts)


@operator("add_bias_grad(Tensor(a!) sums, Tensor dy, Tensor starts) -> ()", lambda *_: None)
def add_bias_grad(sums: torch.Tensor, dy: torch.Tensor, starts: torch.Tensor) -> None:
    """Adds the rows of dy [T, n] to sums fp32 [n]."""
    op = "add_bias_grad"
    _check_rows(op, dy=dy)
    require(dy.ndim == 2, op, f"dy is {list(dy.shape)}, expected [rows, n]")
    check_tensor(op, "sums", sums, F32, [dy.shape[1]])
    _check_starts(op, starts, len(dy))
    weight_kernels.add_bias_grad(sums, dy, starts)


@operator(
    "add_norm_weight_grad(Tensor(a!) sums, Tensor dy, Tensor normalized, Tensor starts) -> ()",
    lambda *_: None,
)
def add_norm_weight_grad(
    sums: torch.Tensor, dy: torch.Tensor, normalized: torch.Tensor, starts: torch.Tensor
) -> None:
    """Adds dy * normalized, both [T, d] or [T, heads, d], the latter fp32, to sums fp32 [d]."""
    op = "add_norm_weight_grad"
    _check_rows(op, dy=dy)
    check_tensor(op, "normalized", normalized, F32, dy.shape)
    check_tensor(op, "sums", sums, F32, [dy.shape[-1]])
    _check_starts(op, starts, len(dy))
    weight_kernels.add_norm_weight_grad(sums, dy, normalized, starts)


@operator(
    "add_embed_grad(Tensor(a!) sums, Tensor dresid, Tensor tokens, float scale, Tensor starts) "
    "-> ()",
    lambda *_: None,
)
def add_embed_grad(
    sums: torch.Tensor,
    dresid: torch.Tensor,
    tokens: torch.Tensor,
    scale: float,
    starts: torch.Tensor,
) -> None:
    """Adds scale * dresid fp32 [T, d] of each token to its row of sums fp32 [V, d]."""
    op = "add_embed_grad"
    check_tensor(op, "dresid", dresid, F32, [-1, -1])
    check_tensor(op, "sums", sums, F32, [-1, dresid.shape[1]])
    _check_ids(op, tokens, len(dresid), len(sums))
    _check_starts(op, starts, len(dresid))
    weight_kernels.add_embed_grad(sums, dresid, tokens, scale, starts)
