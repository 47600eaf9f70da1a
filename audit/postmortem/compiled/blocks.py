"""Excess precision in a model's blocks: what XLA leaves out, who is outside its contract, and which
roundings bring the bits back.

A block is compiled once and run for every layer, as a scan over layers does. Each starts from what
the program with all its roundings gave before, so that layers are judged apart.

Tensor names: P positions, d residual.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

from ....model.config import ModelConfig
from ....model.interop.jax_arrays import as_tensor, same_rows
from ....model.interop.jax_llama import block_output, block_weights, jax_parameters
from ....model.interop.jax_operations import as_it_is, require_jax
from ....model.interop.jax_roundings import addresses_of, compiled, observed, rounding_at
from ....model.interop.plain_llama import rotation
from ....model.weights.checkpoint import Checkpoint
from .operations import operations

Progress = Callable[[str, int, int], None]
Pass = tuple[dict[str, Any], Any]
"""A layer's weights, and the residual that it starts from."""

ROWS = 4
"""Positions of a prompt, evenly apart, at which operations are held against contracts."""


@dataclass
class Judged:
    """An operation's values so far: how many were checked, and how many lie outside."""

    values: int = 0
    outside: int = 0


@dataclass(frozen=True)
class BlockFindings:
    """The findings on one model.

    Attributes:
        rows: Positions of all prompts and layers.
        stated: Of them, those where the program with the flag off gives, bit for bit, what its
            operations give one by one.
        moved: Those where the block's output has other bits with the flag on.
        judged: By flag ("strict", "excess"), then by address, values outside the contract.
        restored: By address, the share of moved positions that this rounding alone brings back.
        fewest: Addresses whose roundings together bring back all that all of them do, none of
            which can be left out.
        together: The share of moved positions that they bring back.
    """

    layers: int
    rows: int
    stated: int
    moved: int
    judged: dict[str, dict[str, Judged]]
    restored: dict[str, float]
    fewest: tuple[str, ...]
    together: float

    def violated(self, flag: str) -> list[str]:
        """Returns the addresses that lie outside their contract under a flag."""
        return [address for address, found in self.judged[flag].items() if found.outside]


def judge_blocks(
    checkpoint: Checkpoint, tokens_NP: torch.Tensor, progress: Progress
) -> BlockFindings:
    """Runs all blocks on all prompts. Raises ValueError for a model that has more than a plain
    Llama, biases among it, and RuntimeError without JAX."""
    _require_plain_weights(checkpoint)
    blocks = _Blocks(checkpoint, tokens_NP)
    stated, passes, judged = blocks.judged_passes(progress)
    strict = [blocks.strict(*each) for each in passes]
    free = blocks.outputs((), passes)
    moved = [~same_rows(as_tensor(a), as_tensor(b)) for a, b in zip(strict, free, strict=True)]
    n_moved = sum(int(each.sum()) for each in moved)

    @cache
    def share(names: tuple[str, ...]) -> float:
        found = blocks.outputs(names, passes)
        back = (
            same_rows(as_tensor(a), as_tensor(b)) & was
            for a, b, was in zip(strict, found, moved, strict=True)
        )
        return sum(int(each.sum()) for each in back) / max(n_moved, 1)

    restored = {}
    for i, address in enumerate(blocks.addresses):
        restored[address] = share((address,))
        progress("one rounding put back", i + 1, len(blocks.addresses))
    fewest = _fewest(blocks.addresses, share, progress)
    rows = tokens_NP.numel() * checkpoint.config.n_layers
    return BlockFindings(
        checkpoint.config.n_layers, rows, stated, n_moved, judged, restored, fewest, share(fewest)
    )


def _fewest(
    addresses: tuple[str, ...], share: Callable[[tuple[str, ...]], float], progress: Progress
) -> tuple[str, ...]:
    """Leaves out one address after the other wherever nothing is lost by it."""
    kept, whole = addresses, share(addresses)
    for i, address in enumerate(addresses):
        rest = tuple(other for other in kept if other != address)
        if share(rest) >= whole:
            kept = rest
        progress("roundings left out", i + 1, len(addresses))
    return kept


class _Blocks:
    """A model's block as compiled programs, and its layers' weights."""

    def __init__(self, checkpoint: Checkpoint, tokens_NP: torch.Tensor) -> None:
        self._config: ModelConfig = checkpoint.config
        parameters = jax_parameters(checkpoint, "bfloat16")
        self._embedding = parameters["embed.weight"]
        self._layers = [block_weights(parameters, i) for i in range(self._config.n_layers)]
        self._tokens_NP = tokens_NP
        self._turn = rotation(self._config, tokens_NP.shape[1])
        self._examples = (self._layers[0], self._embedded(tokens_NP[0]))
        self.addresses = tuple(addresses_of(self._program, *self._examples))
        self.strict = compiled(self._program, *self._examples, excess=False, at=as_it_is)

    def judged_passes(
        self, progress: Progress
    ) -> tuple[int, list[Pass], dict[str, dict[str, Judged]]]:
        """Runs every layer once under both flags; returns how many rows are as stated, what each
        layer starts from, and the verdicts."""
        seen = {
            flag: compiled(observed(self._program), *self._examples, excess=excess, at=as_it_is)
            for flag, excess in (("strict", False), ("excess", True))
        }
        judged: dict[str, dict[str, Judged]] = {flag: {} for flag in seen}
        passes: list[Pass] = []
        stated = 0
        for i, (weights, x_Pd) in enumerate(self._walk()):
            passes.append((weights, x_Pd))
            stated += int(self._as_stated(weights, x_Pd).sum())
            for flag, run in seen.items():
                _, values = run(weights, x_Pd)
                self._judge(judged[flag], weights, x_Pd, values)
            progress("contracts", i + 1, len(self._layers) * len(self._tokens_NP))
        return stated, passes, judged

    def outputs(self, names: Collection[str], passes: Sequence[Pass]) -> list[Any]:
        """Returns each pass's output with the flag on, rounded again at some addresses."""
        run = compiled(self._program, *self._examples, excess=True, at=rounding_at(names))
        return [run(*each) for each in passes]

    def _program(self, weights: Any, x_Pd: Any, at: Any) -> Any:
        return block_output(self._config, weights, x_Pd, *self._turn, at)

    def _embedded(self, tokens_P: torch.Tensor) -> Any:
        return self._embedding[np.asarray(tokens_P)]

    def _walk(self) -> Iterator[Pass]:
        for tokens_P in self._tokens_NP:
            x_Pd = self._embedded(tokens_P)
            for weights in self._layers:
                yield weights, x_Pd
                x_Pd = self.strict(weights, x_Pd)

    def _as_stated(self, weights: Any, x_Pd: Any) -> torch.Tensor:
        with require_jax().disable_jit():
            alone = self._program(weights, x_Pd, as_it_is)
        return same_rows(as_tensor(alone), as_tensor(self.strict(weights, x_Pd)))

    def _judge(self, judged: dict[str, Judged], weights: Any, x_Pd: Any, values: Any) -> None:
        own = {name: as_tensor(value) for name, value in weights.items()}
        found = {name: as_tensor(value) for name, value in values.items()}
        for each in operations(self._config, own, as_tensor(x_Pd), found):
            verdict = each.some_rows(ROWS).judge()
            so_far = judged.setdefault(each.address, Judged())
            so_far.values += verdict.elements
            so_far.outside += verdict.violations


def _require_plain_weights(checkpoint: Checkpoint) -> None:
    biases = [name for name in checkpoint.names() if name.endswith(".bias")]
    if biases:
        raise ValueError(
            f"{checkpoint.name}: {biases[0]}: compiled blocks are judged without biases"
        )
    if checkpoint.config.layers[0].rope_scaling is not None:
        raise ValueError(f"{checkpoint.name}: compiled blocks are judged without RoPE scaling")
