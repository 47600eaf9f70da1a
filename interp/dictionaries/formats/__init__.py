"""Files of dictionaries: everybody's layouts, recognised by the files that a folder holds.

Reading never runs code: safetensors, JSON, plain YAML and arrays of numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from ..config import DictionaryConfig, DictionaryError
from . import circuit_tracer, gemma_scope, llama_scope, sae_lens, sparsify
from .reading import is_pickle

Tensors = dict[str, torch.Tensor]


class Layout(NamedTuple):
    """One layout.

    Attributes:
        name: Whose it is.
        files: What a folder of it holds.
        read: Returns config and tensors of such a folder.
    """

    name: str
    files: tuple[str, ...]
    read: Callable[[Path], tuple[DictionaryConfig, Tensors]]


LAYOUTS: tuple[Layout, ...] = (
    Layout("SAELens", sae_lens.FILES, sae_lens.read_folder),
    Layout("sparsify", sparsify.FILES, sparsify.read_folder),
    Layout("Llama Scope", llama_scope.FILES, llama_scope.read_folder),
    Layout("Gemma Scope 2", gemma_scope.FILES_2, gemma_scope.read_second),
    Layout("Gemma Scope", gemma_scope.FILES_1, gemma_scope.read_first),
)

WRITERS: Mapping[str, Callable[[DictionaryConfig, Mapping[str, torch.Tensor], Path], None]] = {
    "sae_lens": sae_lens.save_folder,
    "sparsify": sparsify.save_folder,
    "circuit_tracer": circuit_tracer.save_layer,
}
"""What `Dictionary.save_model` writes, by its name for the format."""


def layout_of(folder: Path) -> Layout | None:
    """Returns the layout whose files a folder holds; None for none."""
    for layout in LAYOUTS:
        if all((folder / name).is_file() for name in layout.files):
            return layout
    return None


def read(path: Path) -> tuple[DictionaryConfig, Tensors]:
    """Reads a dictionary: a folder of one of the layouts, or a layer's file of a transcoder set.

    Raises:
        FileNotFoundError: a folder that holds none, with what is missing and what there is.
        DictionaryError: a file that is damaged, or a dictionary that is not supported.
    """
    if path.is_file():
        if is_pickle(path):
            raise DictionaryError(_pickle(path.name, path))
        return circuit_tracer.read_layer(path)
    layout = layout_of(path)
    if layout is None:
        raise FileNotFoundError(_absent(path))
    try:
        return layout.read(path)
    except DictionaryError as error:
        raise DictionaryError(f"{path}: {error}") from error


def _absent(path: Path) -> str:
    if (path / circuit_tracer.CONFIG).is_file():
        return (
            f"{path}: a set of transcoders: load_dictionaries reads all of it, load_dictionary one "
            "layer's file, and load_cross_layer a cross-layer transcoder"
        )
    pickles = [p.name for p in path.glob("*") if is_pickle(p)]
    if pickles:
        return f"{path}: there is no cfg.json with weights beside it; {_pickle(pickles[0], path)}"
    if (path / sae_lens.CONFIG).is_file():
        return f"{path}: there is no {sae_lens.WEIGHTS} beside {sae_lens.CONFIG}"
    known = "; ".join(f"{layout.name}: {', '.join(layout.files)}" for layout in LAYOUTS)
    return f"{path}: there is no {sae_lens.CONFIG}, nor the files of another layout ({known})"


def _pickle(name: str, path: Path) -> str:
    return (
        f"{name} is a pickle, which runs code when it is read. Convert it where you trust it, with "
        "the library that wrote it: `safetensors.torch.save_file(torch.load(name, "
        "weights_only=True), 'sae_weights.safetensors')`, with a cfg.json as SAELens writes"
    )
