"""The kernels for tensors that are on a GPU, without a model."""

from __future__ import annotations

import functools

import torch

from .kernels import CudaKernels
from .library import cuda_library


@functools.cache
def gpu_kernels(device: torch.device) -> CudaKernels:
    """Returns the kernels of a GPU. Raises CudaUnavailable, saying what is missing."""
    return CudaKernels(cuda_library(device))
