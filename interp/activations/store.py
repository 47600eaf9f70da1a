"""Shards of a harvest, read back in batches of mixed rows.

Which rows make a batch is a function of the seed and the batch's number alone, so a run that was
interrupted goes on where it was. Shapes: N rows, d width.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from .harvesting import INDEX

MIXED_ROWS = 1 << 18
"""Rows that are held in memory and mixed at a time."""


@dataclass(frozen=True)
class Shard:
    """One file of a harvest."""

    path: Path
    n_rows: int
    n_tokens: int
    n_excluded: int


class ActivationStore:
    """The rows of a harvest.

    Memory: at most 262,144 rows of each hook, in fp32, and as much of a shard as is being read.
    """

    def __init__(self, folder: Path) -> None:
        """Reads harvest.json, index.json and the shards' headers.

        Raises FileNotFoundError where nothing was harvested or shards are missing, and ValueError
        for a damaged shard.
        """
        description = folder / "harvest.json"
        if not description.is_file():
            raise FileNotFoundError(f"{folder}: no harvest.json; nothing was harvested here")
        self.description: dict[str, Any] = json.loads(description.read_text())
        index = folder / INDEX
        if not index.is_file():
            raise FileNotFoundError(
                f"{folder}: the harvest is not complete; run it again, and it goes on where it was"
            )
        names: list[str] = json.loads(index.read_text())["shards"]
        widths = self.description["widths"]
        self.shards = [_open(folder / name, widths) for name in names]
        if not self.n_rows:
            raise ValueError(f"{folder}: the harvest holds no rows")

    @property
    def n_rows(self) -> int:
        return sum(shard.n_rows for shard in self.shards)

    @property
    def n_excluded(self) -> int:
        return sum(shard.n_excluded for shard in self.shards)

    def batches(
        self, batch_size: int, seed: int, start: int = 0
    ) -> Iterator[dict[str, torch.Tensor]]:
        """Yields batches without end from number `start` on: fp32 [batch_size, d] by hook name.

        Each epoch takes the shards in another order, some at a time, and mixes the rows of these.

        Raises ValueError where there are fewer rows than a batch.
        """
        if self.n_rows < batch_size:
            raise ValueError(
                f"the harvest holds {self.n_rows} rows, fewer than a batch of {batch_size}"
            )
        number = epoch = 0
        while True:
            for i, group in enumerate(self._groups(seed, epoch)):
                n_rows = sum(shard.n_rows for shard in group)
                n_batches = n_rows // batch_size
                if number + n_batches <= start:
                    number += n_batches
                    continue
                rows = self.read(group)
                order = torch.randperm(n_rows, generator=_generator(seed, epoch, i), device="cpu")
                for j in range(max(0, start - number), n_batches):
                    picked = order[j * batch_size : (j + 1) * batch_size]
                    yield {name: x[picked] for name, x in rows.items()}
                number += n_batches
                del rows
            epoch += 1

    def sample(self, n_rows: int) -> dict[str, torch.Tensor]:
        """Returns the first rows of the harvest, fp32 [at most n_rows, d] by hook name."""
        shard = self.read(self.shards[:1])
        return {name: x[:n_rows] for name, x in shard.items()}

    def _groups(self, seed: int, epoch: int) -> Iterator[list[Shard]]:
        order = torch.randperm(
            len(self.shards), generator=_generator(seed, epoch), device="cpu"
        ).tolist()
        group: list[Shard] = []
        for index in order:
            shard = self.shards[index]
            if group and sum(s.n_rows for s in group) + shard.n_rows > MIXED_ROWS:
                yield group
                group = []
            group.append(shard)
        yield group

    def read(self, group: list[Shard]) -> dict[str, torch.Tensor]:
        """Returns the rows of some shards, fp32 [N, d] by hook name."""
        n_rows = sum(shard.n_rows for shard in group)
        widths: dict[str, int] = self.description["widths"]
        rows = {
            name: torch.empty(n_rows, width, dtype=torch.float32, device="cpu")
            for name, width in widths.items()
        }
        at = 0
        for shard in group:
            with safe_open(shard.path, framework="pt") as file:
                for name, x in rows.items():
                    x[at : at + shard.n_rows] = file.get_tensor(name)
            at += shard.n_rows
        return rows


def _generator(*numbers: int) -> torch.Generator:
    mixed = 0
    for number in numbers:
        mixed = (mixed * 1_000_003 + number + 1) % (1 << 62)
    return torch.Generator().manual_seed(mixed)


def _open(path: Path, widths: dict[str, int]) -> Shard:
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path}: damaged: {error}; remove it and harvest again") from error
    n_rows = next(iter(shapes.values()), (0,))[0]
    if shapes != {name: (n_rows, width) for name, width in widths.items()}:
        raise ValueError(f"{path}: not a shard of this harvest; remove it and harvest again")
    return Shard(path, n_rows, int(metadata["n_tokens"]), int(metadata["n_excluded"]))
