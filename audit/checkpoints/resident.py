"""The weights that a model in memory computes with, whatever file they came from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch

from ...model.layers import Linear
from ...model.transformer import HookedTransformer
from ...model.weights.architectures import tensor_shapes
from ...model.weights.checkpoint import Checkpoint, Format, StoredMatrix


def resident_checkpoint(model: HookedTransformer) -> Checkpoint | None:
    """A bitlens model's own weights, unpacked as its kernels read them.

    None for one that is spread over ranks or computes in fp64: no rank has a whole matrix, and no
    fp32 value says what it computes with.
    """
    if model.group is not None or model.ops.policy.weight is torch.float64:
        return None
    offset = float(model.config.multiplies_by_offset)
    config = dataclasses.replace(model.config, norm_offset=0.0, folded_norm_offset=offset)
    shapes = tensor_shapes(config)
    readers = {name: partial(_read, model, name, shape) for name, shape in shapes.items()}
    reader = _ResidentReader(shapes, readers)
    return Checkpoint(config, model.tokenizer, model.name, reader, volatile=True)


@dataclass(frozen=True)
class _ResidentReader:
    shapes: Mapping[str, tuple[int, ...]]
    readers: Mapping[str, Callable[[], torch.Tensor]]

    def read(self, name: str) -> StoredMatrix:
        values = self.readers[name]().detach().float().cpu().contiguous()
        n, k = (1, *values.shape)[-2:]
        return StoredMatrix(Format.F32, n, k, values.view(n, k))


def _read(model: HookedTransformer, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    owner, _, kind = name.rpartition(".")
    module = model.get_submodule(owner)
    if owner == "embed":
        ids = torch.arange(shape[0], device=model.ops.device)
        return model.ops.embed(ids, module.weight, 1.0)
    if kind == "weight" and isinstance(module, Linear):
        return module.matrix(shape[0])
    vector: torch.Tensor = getattr(module, kind)
    return vector
