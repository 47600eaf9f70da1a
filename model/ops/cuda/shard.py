"""A slice of the vocabulary on a GPU: what a rank of the sampler does there between its rounds.

Row subsets are int64 index arrays R, C is a number of keys, as in model/sampling/shard.py.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ...sampling.batch import Batch
from ...sampling.edits import is_edited
from ...sampling.shard import BEYOND_ALL, I64, MASS, SCORED, SUMS, U32, U64, Bools, Shard
from .edits import edit_row
from .kernels import CudaKernels


class _Slice(ctypes.Structure):
    """`SampleSlice` of csrc/cuda/library.h."""

    _fields_ = (
        ("x", ctypes.c_void_p), ("n", ctypes.c_int64), ("first_id", ctypes.c_uint32),
        ("rows", ctypes.c_void_p), ("indices", ctypes.c_void_p), ("count", ctypes.c_int64),
    )  # fmt: skip


@dataclass
class CudaShard(Shard):
    """`Shard` whose logits stay on a GPU; what the rounds exchange comes to the CPU."""

    kernels: CudaKernels

    @classmethod
    def on(
        cls, kernels: CudaKernels, logits: torch.Tensor, first_id: int, batch: Batch
    ) -> tuple[Shard, npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
        """`Shard.prepare` of logits on the kernels' device."""
        size, n = logits.shape
        x, maximum = kernels.empty((size, n)), kernels.empty((size,))
        bad, bad_raw = (
            torch.zeros(size, dtype=torch.int32, device=kernels.device) for _ in range(2)
        )
        if n == 0:
            maximum.fill_(-torch.inf)
        else:
            edited = [b for b, p in enumerate(batch.params) if is_edited(p)]
            wide = logits.float().contiguous()
            if edited:
                plain = torch.ones(size, dtype=torch.float32, device=kernels.device)
                kernels.library.launch("sample_prepare", wide, plain, size, n, x, maximum, bad_raw)
                wide = wide.clone()
                for b in edited:
                    edit_row(kernels, wide[b], first_id, batch, b)
            temperature = torch.from_numpy(batch.temperature).to(kernels.device)
            kernels.library.launch("sample_prepare", wide, temperature, size, n, x, maximum, bad)
        found = (bad | bad_raw).cpu().numpy().astype(np.uint8)
        return cls(x, first_id, batch.rows.copy(), kernels), maximum.cpu().numpy(), found

    def perturbed(
        self, indices: I64, m: int, thresholds: U64 | None = None
    ) -> npt.NDArray[np.void]:
        return self._scored(indices, m, thresholds, with_mass=False)[0]

    def perturbed_and_mass(
        self, indices: I64, m: int
    ) -> tuple[npt.NDArray[np.void], npt.NDArray[np.void]]:
        return self._scored(indices, m, None, with_mass=True)

    def mass(self, indices: I64) -> npt.NDArray[np.void]:
        beyond = np.full(len(indices), BEYOND_ALL)
        return self._scored(indices, 1, beyond, with_mass=True)[1]

    def _scored(
        self, indices: I64, m: int, thresholds: U64 | None, *, with_mass: bool
    ) -> tuple[npt.NDArray[np.void], npt.NDArray[np.void]]:
        rows = len(indices)
        best, mass = self._room((rows, m), SCORED), self._room((rows,), MASS)
        least = None if thresholds is None else self._sent(thresholds)
        self._launch("perturbed", indices, m, least, best, mass if with_mass else None)
        return _received(best, SCORED), _received(mass, MASS)

    def top(self, indices: I64, k: I64, width: int, whole: Bools) -> U64:
        keys = self._room((len(indices), width), np.dtype(np.uint64))
        rows = self.rows.copy()
        rows["min_weight"][whole] = 1
        replace(self, rows=rows)._launch("top", indices, self._sent(k), width, keys)
        found: U64 = np.sort(_received(keys, np.dtype(np.uint64)), axis=1)[:, ::-1]
        return found

    def before(self, indices: I64, keys: U64, centres: U32 | None = None) -> tuple[U64, U32]:
        return self._counted(keys.shape, "before", indices, centres, keys, keys.shape[1])

    def histogram(
        self, indices: I64, prefix: U64, shift: int, centres: U32 | None = None
    ) -> tuple[U64, U32]:
        shape = (len(indices), 256)
        return self._counted(shape, "histogram", indices, centres, prefix, shift)

    def _counted(
        self,
        shape: tuple[int, ...],
        name: str,
        indices: I64,
        centres: U32 | None,
        keys: U64,
        number: int,
    ) -> tuple[U64, U32]:
        """Mass and count of what a kernel finds by keys, and by a number of it."""
        mass = self._room(shape, np.dtype(np.uint64))
        count = self._room(shape, np.dtype(np.uint32))
        order = None if centres is None else self._sent(centres)
        self._launch(name, indices, order, self._sent(keys), number, mass, count)
        return _received(mass, np.dtype(np.uint64)), _received(count, np.dtype(np.uint32))

    def nth_tie(self, indices: I64, order: U32, nth: I64) -> U32:
        ids = self._room((len(indices),), np.dtype(np.uint32))
        self._launch("nth_tie", indices, self._sent(order), self._sent(nth), ids)
        return _received(ids, np.dtype(np.uint32))

    def masked(self, indices: I64, last: U64, centres: U32 | None = None) -> Shard:
        x = self.kernels.empty((len(indices), self.x.shape[1]))
        order = None if centres is None else self._sent(centres)
        self._launch("mask", indices, order, self._sent(last), x)
        return CudaShard(x, self.first_id, self.rows[indices].copy(), self.kernels)

    def typical_sums(self, indices: I64) -> npt.NDArray[np.void]:
        found = self._room((len(indices),), SUMS)
        self._launch("typical_sums", indices, found)
        return _received(found, SUMS)

    def _launch(self, name: str, indices: I64, *arguments: Any) -> None:
        rows, where = self._sent(self.rows), self._sent(indices)
        described = _Slice(
            self.x.data_ptr(), self.x.shape[1], self.first_id, rows.data_ptr(), where.data_ptr(),
            len(indices),
        )  # fmt: skip
        self.kernels.library.launch(f"sample_{name}", ctypes.byref(described), *arguments)

    def _sent(self, x: npt.NDArray[Any]) -> torch.Tensor:
        """The bytes of an array on the device."""
        flat = np.ascontiguousarray(x).reshape(-1).view(np.uint8)
        return torch.from_numpy(flat.copy()).to(self.kernels.device)

    def _room(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> torch.Tensor:
        """Zeros on the device for records, as bytes [..., bytes of one]."""
        size = (*shape, dtype.itemsize)
        return torch.zeros(size, dtype=torch.uint8, device=self.kernels.device)


def _received(x: torch.Tensor, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    return x.cpu().numpy().view(dtype)[..., 0]
