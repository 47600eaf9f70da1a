"""A transformers model in memory -> Checkpoint.

What it computes is known from its classes: every module must be of the class that transformers
puts there for the same config.
"""

from __future__ import annotations

import copy
import functools
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any

import torch

from ..config import ModelConfig
from ..config_error import ConfigError
from ..weights.architectures import huggingface_name
from ..weights.checkpoint import DENSE_DTYPES, Checkpoint, CheckpointError, StoredMatrix
from .huggingface_config import config_from_huggingface
from .huggingface_names import meaningless, settle_head
from .match_tensors import match_tensors

if TYPE_CHECKING:
    from ..text.tokenizer import Tokenizer

_FORMATS = {dtype: format for format, dtype in DENSE_DTYPES.items()}


def is_transformers_model(source: object) -> bool:
    """Whether it is a PreTrainedModel: without transformers imported there can be none."""
    transformers = sys.modules.get("transformers")
    return transformers is not None and isinstance(source, transformers.PreTrainedModel)


def open_transformers_model(model: Any, tokenizer: Any = None) -> Checkpoint:
    """Reads config and shapes; tensors are copied one at a time, when asked for.

    Args:
        model: A PreTrainedModel for causal language modelling, on the CPU.
        tokenizer: A fast tokenizer of transformers.

    Raises:
        CheckpointError: the model is not supported, or not the class's own (quantised, adapters,
            replaced modules, weights elsewhere than in memory); names what and the way out.
        TypeError: the tokenizer is none of transformers', or a slow one.
    """
    name = type(model).__name__
    _require_plain_weights(model, name)
    try:
        config = config_from_huggingface(json.loads(model.config.to_json_string(use_diff=False)))
    except ConfigError as error:
        raise CheckpointError(f"{name}: config: {error}") from error
    _require_own_modules(model, name)
    tensors = {key: x for key, x in model.state_dict().items() if isinstance(x, torch.Tensor)}
    _require_readable(tensors, name)
    tensors, config = settle_head(tensors, config, _same, name)
    names = match_tensors(
        name,
        config,
        {key: tuple(x.shape) for key, x in tensors.items()},
        huggingface_name,
        ignored=meaningless(config),
    )
    return Checkpoint(
        config=config,
        tokenizer=None if tokenizer is None else _tokenizer(tokenizer, model, config),
        name=f"{model.name_or_path or name} in memory",
        reader=StateDictReader({ours: tensors[theirs] for ours, theirs in names.items()}),
        volatile=True,
    )


@dataclass(frozen=True)
class StateDictReader:
    """Copies tensors by canonical name, as they are at that moment."""

    tensors: Mapping[str, torch.Tensor]

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {name: tuple(x.shape) for name, x in self.tensors.items()}

    def read(self, name: str) -> StoredMatrix:
        x = self.tensors[name]
        n, k = (1, *x.shape)[-2:]
        # A copy: training on must not move a model that is loaded.
        data = x.detach().clone(memory_format=torch.contiguous_format).view(n, k)
        return StoredMatrix(_FORMATS[x.dtype], n, k, data)


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Says whether two weights are one, or hold the same values."""
    return a.data_ptr() == b.data_ptr() or (a.dtype is b.dtype and torch.equal(a, b))


def _require_plain_weights(model: Any, name: str) -> None:
    if getattr(model.config, "quantization_config", None) is not None:
        raise CheckpointError(
            f"{name}: its weights are quantised by another library; model.dequantize() first, or "
            "load a GGUF file"
        )
    if getattr(model, "peft_config", None) or getattr(model, "_hf_peft_config_loaded", False):
        raise CheckpointError(
            f"{name}: it has adapters, whose weights lie beside the model's; merge them with peft: "
            "PeftModel.merge_and_unload()"
        )


def _require_own_modules(model: Any, name: str) -> None:
    """The class that transformers has for this config, of modules nobody has replaced."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    expected = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model.config.model_type]
    if name != expected or not type(model).__module__.startswith("transformers.models."):
        raise CheckpointError(
            f"{type(model).__module__}.{name}: what it computes is not known; pass a "
            f"transformers {expected}"
        )
    config = copy.deepcopy(model.config)
    config._attn_implementation = "eager"  # which every class has; the modules are the same
    with torch.device("meta"):
        built = type(model)(config)
    kinds = {address: type(module) for address, module in built.named_modules()}
    for address, module in model.named_modules():
        kind = type(module)
        if kind is not kinds.pop(address, None):
            raise CheckpointError(
                f"{name}: {address} is a {kind.__module__}.{kind.__name__}, and what that computes "
                "is not known; pass the model without it"
            )
        # accelerate wraps a forward to move its tensors, which changes none of them.
        if "forward" in vars(module) and not hasattr(module, "_hf_hook"):
            raise CheckpointError(
                f"{name}: the forward of {address or 'the model'} was replaced, and what it "
                "computes is not known; undo that first"
            )
        _require_own_code(module, address or "the model", name)
    if kinds:
        raise CheckpointError(f"{name}: {next(iter(kinds))} is missing, which its class has")


def _require_own_code(module: Any, address: str, name: str) -> None:
    """Its class's forward, and what that calls by name, are the library's; no hook edits."""
    hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    if any(not _is_from_library(hook) for hook in hooks):
        raise CheckpointError(
            f"{name}: {address} has forward hooks, which may edit what it computes; remove them "
            "first"
        )
    kind = type(module)
    functions = {f"{kind.__name__}.forward": kind.forward}
    if kind.__module__.startswith("transformers.models."):
        functions |= {
            f"{kind.__module__}.{key}": value
            for key, value in vars(sys.modules[kind.__module__]).items()
            if isinstance(value, FunctionType) and value.__module__ not in sys.stdlib_module_names
        }
    for key, function in functions.items():
        if not _is_from_library(function):
            raise CheckpointError(
                f"{name}: {key} was replaced by {function.__qualname__} of {function.__module__}, "
                f"and what {address} computes with it is not known; undo that first"
            )


def _is_from_library(function: Any) -> bool:
    """Whether a function and those that it wraps are code of torch's, transformers' or
    accelerate's."""
    while True:
        function = getattr(function, "__func__", getattr(function, "func", function))
        code = getattr(function, "__code__", None)
        if code is not None and not code.co_filename.startswith(_library_folders()):
            return False
        inner = getattr(function, "__wrapped__", None)
        if inner is None:
            return code is not None
        function = inner


@functools.cache
def _library_folders() -> tuple[str, ...]:
    found = (find_spec(library) for library in ("torch", "transformers", "accelerate", "kernels"))
    return tuple(f"{Path(spec.origin).parent}{os.sep}" for spec in found if spec and spec.origin)


def _require_readable(tensors: Mapping[str, torch.Tensor], name: str) -> None:
    for key, x in tensors.items():
        kind = type(x)
        if kind not in (torch.Tensor, torch.nn.Parameter):  # its memory need not be its values
            raise CheckpointError(
                f"{name}: {key} is a {kind.__module__}.{kind.__name__}, quantised or spread out by "
                "another library; pass a model of plain tensors"
            )
        if x.device.type == "meta":
            raise CheckpointError(f"{name}: {key} has no data (meta device); load its weights")
        if x.device.type != "cpu":
            raise CheckpointError(f"{name}: {key} is on {x.device}; pass model.cpu()")
        if x.dtype not in _FORMATS:
            known = ", ".join(str(dtype).removeprefix("torch.") for dtype in _FORMATS)
            raise CheckpointError(
                f"{name}: {key} is {x.dtype}; supported are {known}: pass model.float()"
            )


def _tokenizer(tokenizer: Any, model: Any, config: ModelConfig) -> Tokenizer | None:
    """Reads both like a directory that they were saved to."""
    from .huggingface_tokenizer import tokenizer_from_directory

    kind = type(tokenizer).__name__
    if not getattr(tokenizer, "is_fast", False) or not hasattr(tokenizer, "save_pretrained"):
        raise TypeError(f"tokenizer: expected a fast tokenizer of transformers, got {kind}")
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        for part in (model.config, getattr(model, "generation_config", None)):
            if part is not None:
                part.save_pretrained(folder)
        try:
            return tokenizer_from_directory(Path(folder), config.d_vocab)
        except CheckpointError as error:
            raise CheckpointError(str(error).replace(folder, kind)) from error
