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
    """Weights under training, under their names in a checkpoint (`full_weights`).

    Attributes:
        values: fp32 masters by name. Who changes one calls `rewrite`.
        n_rewrites: How often that was.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.values: dict[str, Tensor] = {}
        self.n_rewrites = 0
        self._live = Checkpoint(
            checkpoint.config, checkpoint.tokenizer, checkpoint.name, _Masters(self.values)
        )
        self._digest: str | None = None
        self._targets: dict[str, TrainedMatrix | TrainedVector] = {}
        self._sums: dict[str, list[GradientSum]] = {}

    def add(self, name: str, target: TrainedMatrix | TrainedVector, *sums: GradientSum) -> None:
        """Takes up a weight, what kernels read of it, and where its gradients arise."""
        self.values[name], self._targets[name] = target.master, target
        self._sums[name] = list(sums)

    def target(self, name: str) -> TrainedMatrix | TrainedVector | None:
        """Returns what kernels read of a weight; None where there is no such weight."""
        return self._targets.get(name)

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
            self._digest = self._fingerprint()
        return self._digest

    def _fingerprint(self) -> str:
        return fingerprint(self._live)

    def checkpoint(self) -> Checkpoint:
        """Returns the weights as they are now and will be, as a checkpoint to load from."""
        return self._live


def full_weights(
    checkpoint: Checkpoint, ops: NativeOps, modules: Iterable[nn.Module]
) -> TrainedWeights:
    """Reads a checkpoint once more, and puts weights that can change into the modules."""
    weights, gradients = TrainedWeights(checkpoint), WeightGradients()
    by_address = modules_by_address(modules)
    for name in checkpoint.names():
        address, _, kind = name.rpartition(".")
        module = by_address[address]
        if isinstance(module, RMSNorm) or kind == "bias":
            vector = _vector(checkpoint.vector(name), module, checkpoint.config, ops)
            weights.add(name, vector, gradients.add_vector(vector.read))
            continue
        matrix, sums = _matrix(checkpoint.matrix(name), module), []
        if isinstance(module, Embedding):
            sums.append(gradients.add_table(matrix))
            if checkpoint.config.tie_embeddings:
                unembed = by_address["unembed"]
                assert isinstance(unembed, Linear)
                unembed.weight = matrix
                sums.append(gradients.add_linear(matrix))
        else:
            sums.append(gradients.add_linear(matrix))
        weights.add(name, matrix, *sums)
    ops.trained = gradients
    return weights


def trained_panels(master: Tensor, policy: Policy) -> TrainedMatrix:
    """Returns a matrix that no module has yet, in the format of the policy's weights."""
    format = Format.BF16 if policy.weight is torch.bfloat16 else Format.F32
    n, k = master.shape
    size = _core.packed_bytes(format, n, k)
    data = torch.empty(size, dtype=torch.uint8, device="cpu")
    matrix = TrainedMatrix(format, n, k, data, master)
    matrix.rewrite()
    return matrix


def _matrix(stored: StoredMatrix, module: nn.Module) -> TrainedMatrix:
    assert isinstance(module, Embedding | Linear)
    packed: PackedWeight = module.weight
    master = stored.dequantize().contiguous().clone()
    matrix = TrainedMatrix(packed.format, packed.n, packed.k, packed.data, master)
    module.weight = matrix
    return matrix


def _vector(
    stored: Tensor, module: nn.Module, config: ModelConfig, ops: NativeOps
) -> TrainedVector:
    is_norm = isinstance(module, RMSNorm)
    kind = "weight" if is_norm else "bias"
    read = getattr(module, kind).clone()  # what was read may be the source's own memory
    setattr(module, kind, read)
    master = stored.float().clone()
    return TrainedVector(master, read, config if is_norm else None, ops.policy)


def modules_by_address(modules: Iterable[nn.Module]) -> dict[str, nn.Module]:
    """Returns the modules that hold weights."""
    found: dict[str, nn.Module] = {}
    for module in modules:
        if isinstance(module, Embedding):
            found["embed"] = module
        elif isinstance(module, Linear | RMSNorm):
            found[module.address] = module
    return found
