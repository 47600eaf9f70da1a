"""Blocks that the kernels do not read (K-quants and others) -> fp32, by the `gguf` package.

That package is part of llama.cpp and defines the values: every product and sum is fp32, rounded
to nearest, as in ggml's reference C code.
"""

from __future__ import annotations

import numpy as np
import torch


def dequantize_blocks(format: str, data: torch.Tensor) -> torch.Tensor:
    """uint8 [rows, bytes], whole blocks of ggml's type `format` -> fp32 [rows, weights].

    Raises:
        RuntimeError: the package is missing; says what to install.
    """
    # Imported here: it takes as long as half of bitlens, and few models need it.
    try:
        from gguf.constants import GGMLQuantizationType
        from gguf.quants import dequantize
    except ImportError as error:
        raise RuntimeError(
            f"weights of type {format} need the gguf package ({error}): pip install 'gguf>=0.13'"
        ) from error
    with np.errstate(all="ignore"):  # infinite scales are for the caller to find
        w = dequantize(data.numpy(), GGMLQuantizationType[format])
    return torch.from_numpy(w)
