"""Hugging Face's Llama on a checkpoint's own weights: the peer, and in fp64 the truth's check."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
import transformers
from bitlens.model.interop.transformers_llama import empty_llama, fill
from bitlens.model.weights.checkpoint import Checkpoint
from torch.overrides import TorchFunctionMode


class InDouble(TorchFunctionMode):
    """Turns every request for fp32 into one for fp64.

    A transformers model in double still asks for fp32 in its norms, rotary angles, rotary
    frequencies (when it is made) and softmax; made and run under this mode it computes in fp64
    throughout.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        def widen(x: Any) -> Any:
            return torch.float64 if x is torch.float32 else x

        if func is torch.Tensor.float:
            func = torch.Tensor.double
        named = {name: widen(x) for name, x in (kwargs or {}).items()}
        return func(*map(widen, args), **named)


def llama(checkpoint: Checkpoint, dtype: torch.dtype) -> transformers.LlamaForCausalLM:
    """`transformers_llama`, in fp64 too: run that under `InDouble`, as it is made here."""
    with InDouble() if dtype == torch.float64 else nullcontext():
        model = empty_llama(checkpoint)
    filled: transformers.LlamaForCausalLM = fill(model, checkpoint, dtype)
    return filled
