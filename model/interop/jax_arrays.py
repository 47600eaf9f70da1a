"""Arrays of JAX as tensors, and tensors as arrays, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from .jax_operations import require_jax


def as_tensor(array: Any) -> torch.Tensor:
    """Returns a copy of a bf16 or fp32 array of JAX."""
    found = np.array(array)
    if found.dtype.name == "bfloat16":
        return torch.from_numpy(found.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(found)


def as_array(tensor: torch.Tensor) -> Any:
    """Returns a bf16, fp32 or int64 tensor as numpy has it; integers as int32."""
    if tensor.dtype is torch.bfloat16:
        bfloat16 = np.dtype(require_jax().numpy.bfloat16)
        return tensor.contiguous().view(torch.int16).numpy().view(bfloat16)
    found = tensor.contiguous().numpy()
    return found.astype(np.int32) if found.dtype == np.int64 else found


def same_rows(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Returns for each row whether all of its bits are the same: bool [P]."""
    bits = {2: torch.int16, 4: torch.int32}[a.element_size()]
    return (a.view(bits) == b.view(bits)).flatten(1).all(1)
