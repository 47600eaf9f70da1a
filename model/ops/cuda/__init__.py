"""The operations on NVIDIA GPUs: the kernels of csrc/cuda, in a library of their own that is loaded
when a GPU is first asked for (docs/cuda.md).

library, sequences -> kernels -> derivatives, dictionaries, edits -> sampler, shard -> ops.
"""

from __future__ import annotations

from .library import CudaError, CudaStatus, CudaUnavailable, cuda_launches, cuda_status

__all__ = ["CudaError", "CudaStatus", "CudaUnavailable", "cuda_launches", "cuda_status"]
