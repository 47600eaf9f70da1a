"""The log-probability of tokens as a node of torch's graph, with the sampler's bits."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd import Function

from . import weight_kernels
from .first_order import first_order


class TokenLogprob(Function):
    """ln p of each row's token under fp32 logits [T, V]."""

    @staticmethod
    def forward(
        ctx: Any, logits_TV: torch.Tensor, ids_T: torch.Tensor, temperature: float
    ) -> torch.Tensor:
        logprob_T, max_T, sum_T = weight_kernels.token_logprob(logits_TV, ids_T, temperature)
        ctx.save_for_backward(logits_TV, ids_T, max_T, sum_T)
        ctx.temperature = temperature
        return logprob_T

    @staticmethod
    @first_order
    def backward(ctx: Any, dlogprob_T: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        logits_TV, ids_T, max_T, sum_T = ctx.saved_tensors
        dlogits_TV = weight_kernels.token_logprob_backward(
            dlogprob_T, logits_TV, ids_T, ctx.temperature, max_T, sum_T
        )
        return dlogits_TV, None, None


def token_logprob(
    logits: torch.Tensor, ids: torch.Tensor, temperature: float = 1.0
) -> torch.Tensor:
    """Returns the natural logarithm of each token's probability, fp32, shaped like `ids`.

    The bits are those that the sampler reports for the same logits and temperature (`generate(...,
    logprobs=0)`), so a policy that is trained on this answers with it. Differentiable once.

    Args:
        logits: fp32 [..., V].
        ids: int64 [...], each in 0 .. V - 1.
        temperature: What logits are divided by; below 1e-5 it stands for 1, as in the sampler.

    Raises:
        TypeError: logits that are not fp32, ids that are not int64.
        ValueError: shapes that do not fit, an id beyond the vocabulary, a temperature that is
            negative or not finite.
    """
    if logits.dtype is not torch.float32 or ids.dtype is not torch.int64:
        raise TypeError(
            f"token_logprob: expected fp32 logits and int64 ids, got {logits.dtype} and {ids.dtype}"
        )
    if logits.ndim < 1 or logits.shape[:-1] != ids.shape or not logits.shape[-1]:
        raise ValueError(
            f"token_logprob: logits {list(logits.shape)} need one id for each row, got ids "
            f"{list(ids.shape)}"
        )
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature = {temperature}: expected a finite number, 0 or more")
    n = logits.shape[-1]
    if ids.numel() and not (int(ids.min()) >= 0 and int(ids.max()) < n):
        raise ValueError(
            f"ids: {int(ids.min())} .. {int(ids.max())}, the vocabulary is 0 .. {n - 1}"
        )
    result: torch.Tensor = TokenLogprob.apply(  # type: ignore[no-untyped-call]
        logits.reshape(-1, n), ids.reshape(-1), temperature
    )
    return result.view(ids.shape)
