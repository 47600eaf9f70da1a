"""Loads the model that a command is given, with its options."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from ..threads import set_num_threads
from .console import err
from .options import Backend

if TYPE_CHECKING:
    from ..model import HookedTransformer
    from ..model.load import Trainable
    from ..model.parallel import Group


def load_model(
    source: str,
    dtype: StrEnum,
    backend: Backend = Backend.native,
    threads: int | None = None,
    group: Group | None = None,
    trainable: Trainable | None = None,
) -> HookedTransformer:
    """The model at `source`; `threads` holds for bitlens' kernels and torch's."""
    from ..model import load

    if threads is not None:
        import torch

        torch.set_num_threads(threads)
        set_num_threads(threads)
    with err.status(f"loading {source}"):
        return load(source, dtype=dtype.value, backend=backend.value, group=group,
                    trainable=trainable)  # fmt: skip
