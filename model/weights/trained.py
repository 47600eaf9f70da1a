"""The weights of a model under training: fp32 masters, and what kernels read, made of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn

from ... import _core
from ..build import norm_weight
from ..config import ModelConfig
from ..layers import Embedding, Linear, RMSNorm
from ..ops import kernels
from ..ops.native import NativeOps
from ..ops.packed import PackedWeight
from ..ops.policy import Policy
from ..ops.weight_gradients import GradientSum, WeightGradients
from .checkpoint import DENSE_DTYPES, Checkpoint, Format, StoredMatrix
from .fingerprint import fingerprint

Tensor = torch.Tensor


@dataclass(frozen=True, eq=False)
class TrainedMatrix(PackedWeight):
    """Panels that are written anew, in their place, when the master has changed.

    Attributes:
        master: fp32 [n, k].
    """

    master: Tensor

    def rewrite(self) -> None:
        """Rounds the master to the panels' format."""
        rounded = self.master.to(DENSE_DTYPES[self.format]).contiguous()
        _core.pack(self.format, rounded, self.n, self.k, self.data)
        vars(self).pop("transposed", None)

    @cached_property
    def transposed(self) -> PackedWeight:
        """W^T [k, n], packed once after each rewriting."""
        turned = self.master.T.to(DENSE_DTYPES[self.format]).contiguous()
        _core.pack(self.format, turned, self.k, self.n, self._turned_data)
        return PackedWeight(self.format, self.k, self.n, self._turned_data)

    @cached_property
    def _turned_data(self) -> Tensor:
        size = _core.packed_bytes(self.format, self.k, self.n)
        return torch.empty(size, dtype=torch.uint8, device="cpu")


@dataclass(frozen=True, eq=False)
class TrainedVector:
    """A bias or a norm's weight.

    Attributes:
        master: fp32 [n], as checkpoints store it.
        read: What kernels read, written anew in its place.
        offset: Of a norm's weight, which is 1 + w in Gemma's models.
    """

    master: Tensor
    read: Tensor
    norm_of: ModelConfig | None
    policy: Policy

    def rewrite(self) -> None:
        """Rounds the master as loading does."""
        if self.norm_of is None:
            self.read.copy_(self.master.to(self.policy.weight))
        else:
            self.read.copy_(norm_weight(self.master, self.norm_of, self.policy))


class _Masters:
    """A `TensorReader` of what is trained, as it is now."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        self._values = values

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {name: tuple(x.shape) for name, x in self._values.items()}

    def read(self, name: str) -> StoredMatrix:
        x = self._values[name]
        rows = x[None] if x.ndim == 1 else x
        n, k = rows.shape
        return StoredMatrix(Format.F32, n, k, rows)


class TrainedWeights:
    """Every weight of a model under its name in a checkpoint.

    Attributes:
        values: fp32 masters by name. Who changes one calls `rewrite`.
        n_rewrites: How often that was.
    """

    def __init__(
        self, checkpoint: Checkpoint, ops: NativeOps, modules: Iterable[nn.Module]
    ) -> None:
        """Reads the checkpoint once more, and puts weights that can change into the modules."""
        self.values: dict[str, Tensor] = {}
        self.n_rewrites = 0
        self._live = Checkpoint(
            checkpoint.config, checkpoint.tokenizer, checkpoint.name, _Masters(self.values)
        )
        self._digest: str | None = None
        self._targets: dict[str, TrainedMatrix | TrainedVector] = {}
        self._sums: dict[str, list[GradientSum]] = {}
        gradients, by_address = WeightGradients(), _by_address(modules)
        for name in checkpoint.names():
            address, _, kind = name.rpartition(".")
            module = by_address[address]
            if isinstance(module, RMSNorm) or kind == "bias":
                self._add_vector(name, checkpoint.vector(name), module, ops, gradients)
            else:
                self._add_matrix(name, checkpoint.matrix(name), module, gradients)
        if checkpoint.config.tie_embeddings:
            tied = self._targets["embed.weight"]
            assert isinstance(tied, TrainedMatrix)
            unembed = by_address["unembed"]
            assert isinstance(unembed, Linear)
            unembed.weight = tied
            self._sums["embed.weight"].append(gradients.add_linear(tied))
        ops.trained = gradients

    def _add_matrix(
        self, name: str, stored: StoredMatrix, module: nn.Module, gradients: WeightGradients
    ) -> None:
        master = stored.dequantize().contiguous().clone()
        assert isinstance(module, Embedding | Linear)
        packed: PackedWeight = module.weight
        matrix = TrainedMatrix(packed.format, packed.n, packed.k, packed.data, master)
        module.weight = matrix
        add = gradients.add_table if isinstance(module, Embedding) else gradients.add_linear
        self.values[name], self._targets[name] = master, matrix
        self._sums[name] = [add(matrix)]

    def _add_vector(
        self,
        name: str,
        stored: Tensor,
        module: nn.Module,
        ops: NativeOps,
        gradients: WeightGradients,
    ) -> None:
        master, is_norm = stored.float().clone(), isinstance(module, RMSNorm)
        kind = "weight" if is_norm else "bias"
        read = getattr(module, kind).clone()  # what was read may be the source's own memory
        setattr(module, kind, read)
        norm_of = self._live.config if is_norm else None
        self.values[name] = master
        self._targets[name] = TrainedVector(master, read, norm_of, ops.policy)
        self._sums[name] = [gradients.add_vector(read)]

    def gradients(self) -> dict[str, Tensor]:
        """Returns the gradients summed since they were cleared, by name, fp32.

        A tied embedding's are its rows' and the output layer's, added. A weight that nothing
        reached has none.
        """
        found: dict[str, Tensor] = {}
        for name, sums in self._sums.items():
            for value in (each.value for each in sums):
                if value is not None:
                    found[name] = kernels.add(found[name], value) if name in found else value
        return found

    def clear_gradients(self) -> None:
        """Sets all gradients to zero."""
        for sums in self._sums.values():
            for each in sums:
                each.clear()

    def rewrite(self) -> None:
        """Brings what kernels read up to date with `values`.

        Keys and values cached before are of another policy: `model.fingerprint()` changes.
        """
        for target in self._targets.values():
            target.rewrite()
        self.n_rewrites += 1
        self._digest = None

    def digest(self) -> str:
        """Returns the fingerprint of the weights as they are, computed when first asked for."""
        if self._digest is None:
            self._digest = fingerprint(self._live)
        return self._digest

    def checkpoint(self) -> Checkpoint:
        """Returns the weights as they are now and will be, as a checkpoint to load from."""
        return self._live


def _by_address(modules: Iterable[nn.Module]) -> dict[str, nn.Module]:
    found: dict[str, nn.Module] = {}
    for module in modules:
        if isinstance(module, Embedding):
            found["embed"] = module
        elif isinstance(module, Linear | RMSNorm):
            found[module.address] = module
    return found
