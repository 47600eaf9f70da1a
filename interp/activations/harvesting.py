"""Activations of a text, kept in shards on disk.

A shard is a fixed span of the text: so a harvest that was interrupted goes on with the first shard
that is missing, and ranks that share a folder each write every n-th shard of the same harvest. A
shard appears under its name only when it is whole.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from ...model.transformer import HookedTransformer
from ...model.weights.atomic import write_json, write_tensors
from .documents import TextSource
from .read import hook_widths, norm_limits, outliers, read_rows
from .sequences import Batch, Packing, batches

INDEX = "index.json"
BATCH_TOKENS = 4096
SHARD_TOKENS = 1 << 16

Progress = Callable[[int, int], None]
"""Called with tokens done and tokens in all."""


@dataclass(frozen=True)
class HarvestConfig:
    """The settings of a harvest: its hooks, size and packing.

    Attributes:
        hook_names: Hooks whose rows are kept, all from one pass.
        n_tokens: Tokens to run the model on; what is excluded counts.
        packing: How documents become sequences.
        exclude_outliers: Leave out tokens whose norm exceeds 3 times the median (at any hook),
            found on the first 8,192 tokens. SmolLM2's first position has 150 times the median.
        dtype: What rows are stored in: "float32", or "bfloat16" for half the disk.
    """

    hook_names: tuple[str, ...]
    n_tokens: int
    packing: Packing = field(default_factory=Packing)
    exclude_outliers: bool = True
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if not self.hook_names:
            raise ValueError("hook_names: a harvest needs at least one hook")
        if self.n_tokens < 1:
            raise ValueError(f"n_tokens = {self.n_tokens}: expected at least 1")
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"dtype = {self.dtype!r}: expected 'float32' or 'bfloat16'")


def disk_bytes(config: HarvestConfig, widths: Mapping[str, int]) -> int:
    """Returns a bound on what the harvest takes on disk, for hooks of these widths."""
    rows = config.n_tokens + BATCH_TOKENS + config.packing.context_size
    return rows * sum(widths.values()) * (4 if config.dtype == "float32" else 2)


def harvest(
    model: HookedTransformer,
    config: HarvestConfig,
    source: TextSource,
    folder: Path,
    *,
    rank: int = 0,
    n_ranks: int = 1,
    progress: Progress | None = None,
) -> None:
    """Runs the model on the training split of a text and writes the shards that are missing.

    Memory: the model, one batch of 4,096 tokens, and one shard of 65,536 tokens. Disk:
    `disk_bytes`, checked beforehand.

    Args:
        folder: Holds harvest.json and the shards; made here. One that holds another harvest is
            refused.
        rank: Of `n_ranks` processes that share the folder, the one this is.
        progress: Called after every batch.

    Raises:
        ValueError: text without a document long enough, NaN in an activation, or a folder of
            another harvest.
        OSError: the disk is full or too small.
    """
    widths = hook_widths(model, config.hook_names)
    folder.mkdir(parents=True, exist_ok=True)
    spans = _spans(model, config, source)
    first = next(spans, None)
    if first is None:
        raise ValueError(
            f"text {source.name!r}: no document of {config.packing.min_tokens} tokens or more"
        )
    limits = norm_limits(model, first, config.hook_names) if config.exclude_outliers else {}
    _claim(folder, _description(model, config, source, limits, widths))
    _check_disk(config, widths, folder)
    done = n_shards = 0
    for index, span in enumerate(_chain(first, spans)):
        size = sum(batch.n_tokens for batch in span)
        path = folder / shard_name(index)
        n_shards = index + 1
        if path.exists() or index % n_ranks != rank:
            done += size
            if progress is not None:
                progress(done, config.n_tokens)
            continue
        parts, n_excluded = [], 0
        for batch in span:
            rows = read_rows(model, batch, config.hook_names)
            kept = ~outliers(rows, limits)
            n_excluded += int((~kept).sum())
            parts.append({name: x[kept] for name, x in rows.items()})
            done += batch.n_tokens
            if progress is not None:
                progress(done, config.n_tokens)
        _write_shard(path, parts, config.dtype, size, n_excluded)
    _write_index(folder, n_shards)


def shard_name(index: int) -> str:
    """Returns the file name of a shard."""
    return f"activations_{index:05d}.safetensors"


def _spans(
    model: HookedTransformer, config: HarvestConfig, source: TextSource
) -> Iterator[list[Batch]]:
    """The batches of each shard."""
    if model.tokenizer is None:
        raise ValueError("harvest: this model was loaded without a tokenizer")
    if config.packing.context_size > model.config.n_ctx:
        raise ValueError(
            f"context_size = {config.packing.context_size} exceeds the model's {model.config.n_ctx}"
        )
    sequences = config.packing.sequences(source.documents("train"), model.tokenizer)
    limited = _first_tokens(sequences, config.n_tokens)
    counted = _counted(batches(limited, BATCH_TOKENS))
    for _, group in groupby(counted, key=lambda pair: pair[0] // SHARD_TOKENS):
        yield [batch for _, batch in group]


def _first_tokens(sequences: Iterable[list[int]], n_tokens: int) -> Iterator[list[int]]:
    seen = 0
    for sequence in sequences:
        if seen >= n_tokens:
            return
        seen += len(sequence)
        yield sequence


def _counted(items: Iterable[Batch]) -> Iterator[tuple[int, Batch]]:
    """Each batch with the number of tokens before it."""
    before = 0
    for batch in items:
        yield before, batch
        before += batch.n_tokens


def _chain(first: list[Batch], rest: Iterator[list[Batch]]) -> Iterator[list[Batch]]:
    yield first
    yield from rest


def _description(
    model: HookedTransformer,
    config: HarvestConfig,
    source: TextSource,
    limits: dict[str, float],
    widths: dict[str, int],
) -> dict[str, Any]:
    return {
        "hook_names": list(config.hook_names),
        "n_tokens": config.n_tokens,
        "packing": asdict(config.packing),
        "exclude_outliers": config.exclude_outliers,
        "max_norm": limits,
        "dtype": config.dtype,
        "model_name": Path(model.name).name,
        "model_fingerprint": model.fingerprint(),
        "policy": model.ops.policy.name,
        "text": source.name,
        "text_sha256": source.digest,
        "widths": widths,
    }


def _claim(folder: Path, description: dict[str, Any]) -> None:
    """Writes harvest.json, or checks that the folder is of this harvest."""
    path = folder / "harvest.json"
    if not path.exists():
        write_json(path, description)
        return
    found = json.loads(path.read_text())
    for key, value in description.items():
        if found.get(key) != value and key != "model_name":
            raise ValueError(
                f"{folder} holds another harvest: {key} is {found.get(key)!r} there and {value!r} "
                "here; name another folder, or remove it"
            )


def _write_index(folder: Path, n_shards: int) -> None:
    """Names every shard, once all are there: the rank that ends last does."""
    names = [shard_name(i) for i in range(n_shards)]
    if all((folder / name).exists() for name in names):
        write_json(folder / INDEX, {"shards": names})


def _check_disk(config: HarvestConfig, widths: Mapping[str, int], folder: Path) -> None:
    written = sum(p.stat().st_size for p in folder.glob("activations_*.safetensors"))
    needed = disk_bytes(config, widths) - written
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            f"{config.n_tokens:,} tokens of {', '.join(config.hook_names)} need "
            f"{needed / 2**30:.1f} GiB in {folder}, where {free / 2**30:.1f} GiB are free: lower "
            'n_tokens, or store them as dtype="bfloat16"'
        )


def _write_shard(
    path: Path, parts: list[dict[str, torch.Tensor]], dtype: str, n_tokens: int, n_excluded: int
) -> None:
    kind = torch.float32 if dtype == "float32" else torch.bfloat16
    tensors = {
        name: torch.cat([part[name] for part in parts]).to(kind).contiguous() for name in parts[0]
    }
    for name, rows in tensors.items():
        if not bool(torch.isfinite(rows).all()):
            raise ValueError(f"{name} holds NaN or infinity: nothing can be trained on it")
    metadata = {"n_tokens": str(n_tokens), "n_excluded": str(n_excluded)}
    write_tensors(path, tensors, metadata)
