"""Opens what a user names, or has in memory, as a Checkpoint."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from torch import nn

from ...names import SOURCES, no_such_model
from ..weights.checkpoint import Checkpoint, CheckpointError
from .alias import ALIASES, Progress, fetch
from .gguf import open_gguf
from .gguf_format import MAGIC
from .safetensors_dir import open_directory
from .transformers_model import is_transformers_model, open_transformers_model


def open_checkpoint(
    source: str | Path | nn.Module, *, revision: str | None = None, tokenizer: Any = None
) -> Checkpoint:
    """Opens what `bitlens.load` takes; aliases and models on the hub are fetched when absent.

    Raises:
        FileNotFoundError: nothing is there; says what a source can be.
        TypeError: no path and no model.
        ValueError: a revision or a tokenizer for a source that has none, or has its own.
        CheckpointError: what is there is damaged or not supported.
        FetchError: it is not on this machine and cannot be fetched.
    """
    if isinstance(source, nn.Module):
        return _open_model(source, revision, tokenizer)
    if not isinstance(source, str | Path):
        raise TypeError(f"source: {SOURCES}; got {type(source).__name__}")
    if tokenizer is not None:
        raise ValueError(
            f"tokenizer: {source!s} brings its own; only a transformers model in memory takes one"
        )
    found = locate(source, revision=revision)
    checkpoint = open_directory(found.path) if found.path.is_dir() else _open_file(found.path)
    return checkpoint if found.name is None else dataclasses.replace(checkpoint, name=found.name)


@dataclasses.dataclass(frozen=True)
class Located:
    """A source on this machine.

    Attributes:
        name: A model on the hub with its commit, which `locate` takes again; else None.
    """

    path: Path
    name: str | None = None


def locate(
    source: str | Path, *, revision: str | None = None, progress: Progress | None = None
) -> Located:
    """Returns a source's path, fetched if need be; raises as `open_checkpoint` does.

    What is here wins over the hub. `progress` is for aliases: the hub's library has bars of its
    own.
    """
    path = Path(source).expanduser()
    is_alias = isinstance(source, str) and source in ALIASES
    is_here = path.is_dir() or path.is_file()
    model = None
    if isinstance(source, str) and not is_alias and not is_here:
        # Imported here: with it comes the tokenizers library, half of what `import bitlens` takes.
        from .hub import HubModel, fetch_from_hub

        model = HubModel.parse(source)
    if model is not None:
        if revision is not None and model.revision not in (None, revision):
            raise ValueError(f"revision = {revision!r}, but the id says {source}: give one of them")
        pinned, path = fetch_from_hub(
            dataclasses.replace(model, revision=revision or model.revision)
        )
        return Located(path, str(pinned))
    if revision is not None:
        raise ValueError(f"revision: only models on the hub have one, {source!s} is none")
    if is_alias:
        return Located(fetch(str(source), progress))
    if not is_here:
        raise no_such_model(str(source))
    return Located(path)


def _open_model(model: nn.Module, revision: str | None, tokenizer: Any) -> Checkpoint:
    if revision is not None:
        raise ValueError("revision: a model in memory has none")
    if not is_transformers_model(model):
        kind = type(model)
        raise TypeError(
            f"source: a {kind.__module__}.{kind.__name__} is no transformers model; pass the "
            "PreTrainedModel inside it (peft: merge_and_unload(); torch.compile: _orig_mod; "
            "DataParallel: module)"
        )
    return open_transformers_model(model, tokenizer)


def _open_file(path: Path) -> Checkpoint:
    with path.open("rb") as file:
        magic = file.read(len(MAGIC))
    if magic == MAGIC or path.suffix == ".gguf":
        return open_gguf(path)
    if path.suffix in (".safetensors", ".json"):
        raise CheckpointError(f"{path}: pass the directory, which also holds config.json")
    if path.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl"):
        raise CheckpointError(f"{path}: pickles are not read, they can run code; {SOURCES}")
    raise CheckpointError(f"{path}: not a model bitlens can read; {SOURCES}")
