"""A checkpoint's Llama in JAX as compiled programs: whole, whole and watched, and in pieces.

Tensor names: P positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from typing import Any, Protocol

import torch

from ..weights.checkpoint import Checkpoint
from .jax_arrays import as_array, as_tensor
from .jax_llama import block_weights, forward, jax_parameters, llama_logits
from .jax_operations import as_it_is, operation, require_jax
from .plain_llama import rotation

Values = Mapping[str, torch.Tensor]
"""Results by address."""


class Programs(Protocol):
    """A model as programs over tensors, in this process or another."""

    def logits(self, tokens_P: torch.Tensor, /) -> torch.Tensor:
        """Returns logits [P, V] of the whole model as one program."""
        ...

    def watched(self, tokens_P: torch.Tensor, /) -> Values:
        """Returns every operation's result, of one program that returns them all."""
        ...

    def operation(self, address: str, /, *inputs: torch.Tensor) -> torch.Tensor:
        """Returns the result of one operation, a program of its own."""
        ...


class JaxPrograms:
    """The programs in this process, compiled for each length that they meet."""

    def __init__(self, checkpoint: Checkpoint, dtype: str) -> None:
        """Loads the weights in "float32" or "bfloat16". Raises as `jax_llama`."""
        self._config = config = checkpoint.config
        self._parameters = jax_parameters(checkpoint, dtype)
        self._layers = [block_weights(self._parameters, i) for i in range(config.n_layers)]
        self._turn = cache(partial(rotation, config))
        jit = require_jax().jit
        self._whole = jit(partial(llama_logits, config))
        self._watched = jit(self._all_values)
        self._piece = jit(self._one_value, static_argnums=0)

    def logits(self, tokens_P: torch.Tensor, /) -> torch.Tensor:
        """See `Programs`."""
        turn = self._turn(len(tokens_P))
        return as_tensor(self._whole(self._parameters, as_array(tokens_P), *turn))

    def watched(self, tokens_P: torch.Tensor, /) -> Values:
        """See `Programs`."""
        turn = self._turn(len(tokens_P))
        values = self._watched(self._parameters, as_array(tokens_P), turn)
        return {address: as_tensor(value) for address, value in values.items()}

    def operation(self, address: str, /, *inputs: torch.Tensor) -> torch.Tensor:
        """See `Programs`."""
        name, weights = address, self._parameters
        if address.startswith("blocks."):
            _, layer, name = address.split(".", 2)
            weights = self._layers[int(layer)]
        wanted = (f"{name}.", "embed.") if name == "unembed" else (f"{name}.",)
        own = {key: value for key, value in weights.items() if key.startswith(wanted)}
        turn = self._turn(len(inputs[0])) if ".rope_" in name else None
        return as_tensor(self._piece(name, own, turn, *map(as_array, inputs)))

    def _all_values(self, parameters: Any, tokens_P: Any, turn: Any) -> dict[str, Any]:
        values: dict[str, Any] = {}

        def op(address: str, *inputs: Any) -> Any:
            found = operation(self._config, parameters, turn, as_it_is, address, *inputs)
            values[address] = found
            return found

        forward(self._config.n_layers, op, tokens_P)
        return values

    def _one_value(self, name: str, weights: Any, turn: Any, *inputs: Any) -> Any:
        return operation(self._config, weights, turn, as_it_is, name, *inputs)
