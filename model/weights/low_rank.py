"""Low-rank adapters under training, beside weights that stay as they were loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import nn

from ..layers import Linear
from ..ops import kernels
from ..ops.adapted import AdaptedMatrix
from ..ops.native import NativeOps
from ..ops.packed import PackedWeight, pack
from ..ops.weight_gradients import WeightGradients
from .checkpoint import Checkpoint, Format, StoredMatrix
from .fingerprint import fingerprint
from .low_rank_settings import LowRank
from .trained import TrainedWeights, modules_by_address, trained_panels

Tensor = torch.Tensor


class LowRankWeights(TrainedWeights):
    """Adapters under training; `values` holds them alone.

    A is uniform within 1 / sqrt(k) of 0, by Philox keyed by its name, and B is 0, so that the model
    begins as it was loaded.

    Attributes:
        settings: Their rank and scale.
        base: The weights they stand beside.
    """

    def __init__(self, base: Checkpoint, settings: LowRank) -> None:
        super().__init__(base)
        self.base, self.settings = base, settings
        self._base_digest: str | None = None

    def _fingerprint(self) -> str:
        """Of the weights as loaded while only A is not 0; else of them and what is trained."""
        if self._base_digest is None:
            self._base_digest = fingerprint(self.base)
        trained = [x for name, x in self.values.items() if not name.endswith(".lora_a")]
        if not any(bool(x.any()) for x in trained):
            return self._base_digest
        digest = hashlib.sha256(f"{self._base_digest} {self.settings}".encode())
        for name, x in sorted(self.values.items()):
            digest.update(f"{name} {tuple(x.shape)}".encode())
            digest.update(x.contiguous().numpy().data)
        return digest.hexdigest()

    def checkpoint(self) -> Checkpoint:
        """Returns weights with the adapters added as they are now: W + s B A in fp32.

        They are of another model: its outputs differ from the adapted one's by roundings.
        """
        return Checkpoint(
            self.base.config, self.base.tokenizer, f"{self.base.name}, merged", _Merged(self)
        )

    def merged(self, name: str) -> StoredMatrix:
        """Returns a stored matrix with its adapter added, if it has one."""
        stored, address = self.base.matrix(name), name.removesuffix(".weight")
        if f"{address}.lora_a" not in self.values:
            return stored
        a, b = self.values[f"{address}.lora_a"], self.values[f"{address}.lora_b"]
        turned = pack(StoredMatrix(Format.F32, stored.k, len(a), a.T.contiguous()))
        change = kernels.linear(b, turned.data, turned.format, turned.n, None, torch.float32)
        scaled = kernels.scaled(change, self.settings.alpha / self.settings.rank, torch.float32)
        whole = kernels.add(stored.dequantize(), scaled)
        return StoredMatrix(Format.F32, stored.n, stored.k, whole)


class _Merged:
    """A `TensorReader` of weights with adapters added."""

    def __init__(self, weights: LowRankWeights) -> None:
        self._weights = weights

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return self._weights.base.reader.shapes

    def read(self, name: str) -> StoredMatrix:
        if len(self.shapes[name]) == 1:
            return self._weights.base.reader.read(name)
        return self._weights.merged(name)


def low_rank_weights(
    checkpoint: Checkpoint, ops: NativeOps, modules: Iterable[nn.Module], settings: LowRank
) -> LowRankWeights:
    """Puts an adapter beside every linear inside blocks."""
    weights, gradients = LowRankWeights(checkpoint, settings), WeightGradients()
    for address, module in modules_by_address(modules).items():
        if not isinstance(module, Linear) or not address.startswith("blocks."):
            continue
        packed: PackedWeight = module.weight
        a = trained_panels(_uniform(address, settings.rank, packed.k), ops.policy)
        b = trained_panels(
            torch.zeros(packed.n, settings.rank, dtype=torch.float32, device="cpu"), ops.policy
        )
        module.weight = AdaptedMatrix(
            packed.format, packed.n, packed.k, packed.data, a, b, settings.alpha / settings.rank
        )
        weights.add(f"{address}.lora_a", a, gradients.add_linear(a))
        weights.add(f"{address}.lora_b", b, gradients.add_linear(b))
    ops.trained = gradients
    return weights


def _uniform(name: str, n: int, k: int) -> Tensor:
    """fp32 [n, k] within 1 / sqrt(k) of 0, the same everywhere."""
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "big")
    words = np.random.Philox(key=key).random_raw(n * k)
    units = (words >> np.uint64(40)).astype(np.float64) * 2.0**-23 - 1.0
    return torch.from_numpy((units / np.sqrt(k)).astype(np.float32)).reshape(n, k)
