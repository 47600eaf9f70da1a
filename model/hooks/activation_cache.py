"""The activations that `run_with_cache` keeps."""

from __future__ import annotations

import copy
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from ...precision import notebook
from . import cache_decomposition
from .activation_names import get_act_name
from .cache_decomposition import AxisSlice, Decomposed, select
from .registry import unknown_name

ShortName = tuple[str, int] | tuple[str, int, str | None]


class ActivationCache(Mapping[str, torch.Tensor]):
    """Activations of one forward pass by hook name, in the order they were reached.

    No later pass writes into them, and they carry no gradient. Names of one and the same value
    (resid_post of a block, resid_pre of the next) may share memory: clone before editing in place.
    Names may be short, as in TransformerLens: cache["pattern", 0], cache["resid_post", -1],
    cache["scale", 3, "ln2"], cache["embed"].

    Attributes:
        model: The model the activations are from.
        has_batch_dim: False once `remove_batch_dim` was called.
    """

    accumulated_resid = cache_decomposition.accumulated_resid
    decompose_resid = cache_decomposition.decompose_resid
    compute_head_results = cache_decomposition.compute_head_results
    stack_head_results = cache_decomposition.stack_head_results
    stack_activation = cache_decomposition.stack_activation
    get_neuron_results = cache_decomposition.get_neuron_results
    apply_ln_to_stack = cache_decomposition.apply_ln_to_stack
    logit_attrs = cache_decomposition.logit_attrs

    def __init__(
        self,
        activations: Mapping[str, torch.Tensor],
        model: Decomposed,
        has_batch_dim: bool = True,
    ) -> None:
        self._activations = dict(activations)
        self.model = model
        self.has_batch_dim = has_batch_dim

    def __getitem__(self, name: str | ShortName) -> torch.Tensor:
        """Raises KeyError with near matches for a name that was not kept."""
        if isinstance(name, str):
            full = name if name in self._activations else get_act_name(name)
        else:
            short, layer, *part = name
            n_layers = self.model.config.n_layers
            full = get_act_name(short, layer + n_layers if layer < 0 else layer, *part)
        if full not in self._activations:
            raise unknown_name("cached activation", full, self._activations)
        return self._activations[full]

    def __iter__(self) -> Iterator[str]:
        return iter(self._activations)

    def __len__(self) -> int:
        return len(self._activations)

    def to(self, device: torch.device | str) -> ActivationCache:
        """Moves every activation to another device; returns this cache."""
        self._activations = {name: x.to(device) for name, x in self.items()}
        return self

    def remove_batch_dim(self) -> ActivationCache:
        """Takes the batch axis off every activation, once; returns this cache.

        Raises ValueError for a batch of several sequences.
        """
        if self.has_batch_dim:
            sizes = {x.shape[0] for x in self.values()}
            if sizes - {1}:
                raise ValueError(f"remove_batch_dim: the batch holds {max(sizes)} sequences")
            self._activations = {name: x[0] for name, x in self.items()}
            self.has_batch_dim = False
        return self

    def apply_slice_to_batch_dim(self, batch_slice: AxisSlice) -> ActivationCache:
        """Another cache with some of the sequences; an int takes the batch axis off.

        Raises ValueError where it was taken off before.
        """
        if not self.has_batch_dim:
            raise ValueError("apply_slice_to_batch_dim: this cache has no batch axis")
        kept = {name: select(x, batch_slice, 0) for name, x in self.items()}
        return ActivationCache(kept, self.model, not isinstance(batch_slice, int))

    def __deepcopy__(self, memo: dict[int, Any]) -> ActivationCache:
        """Copies the activations; the model they are from is the same."""
        kept = copy.deepcopy(self._activations, memo)
        return ActivationCache(kept, self.model, self.has_batch_dim)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles as a dict of the activations, so that `torch.save` needs no model.

        An ordered one, which `torch.load` takes with `weights_only=True`.
        """
        return OrderedDict, (), None, None, iter(self._activations.items())

    def _repr_html_(self) -> str:
        """The names in a notebook, those of all layers in one line."""
        kinds: dict[tuple[str, tuple[int, ...], torch.dtype], list[str]] = {}
        for name, x in self.items():
            kind = re.sub(r"blocks\.\d+\.", "blocks.*.", name)
            kinds.setdefault((kind, tuple(x.shape), x.dtype), []).append(name)
        rows = [
            (
                names[0] if len(names) == 1 else kind,
                len(names),
                str(list(shape)),
                str(dtype).removeprefix("torch."),
                sum(self[name].nbytes for name in names) / 2**20,
            )
            for (kind, shape, dtype), names in kinds.items()
        ]
        columns = ("name", "activations", "shape", "dtype", "MiB")
        return notebook.output(notebook.line(repr(self), "title"), notebook.table(columns, rows))

    def __repr__(self) -> str:
        n_bytes = sum(x.nbytes for x in self.values())
        return f"ActivationCache({len(self)} activations, {n_bytes / 2**20:.1f} MiB)"
