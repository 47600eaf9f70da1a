"""Tells stored tensors apart where a Hugging Face checkpoint leaves room.

Wrappers of a model put names of their own before its tensors' names, a checkpoint of the base model
lacks the `model.` prefix, and tied weights may be stored under either name or, with values that
differ, under both. What transformers makes of the last three is what this makes of them.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

from ..config import ModelConfig
from ..weights.architectures import huggingface_name, tensor_shapes
from ..weights.checkpoint import CheckpointError

_Place = TypeVar("_Place")
EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
_BASE = "model."
# torch.compile, FSDP and activation checkpointing wrap a module anywhere.
_WRAPPERS = frozenset(("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"))
_PARALLEL = "module."  # DataParallel and DistributedDataParallel wrap the whole model


def plain_names(found: Mapping[str, _Place], config: ModelConfig, file: str) -> dict[str, _Place]:
    """Returns the tensors under the names that transformers' causal models use.

    Raises:
        CheckpointError: two tensors that would have one name.
    """
    if config.n_layers > len(found):  # which `match_tensors` refuses
        return dict(found)
    known = {huggingface_name(name, config) for name in tensor_shapes(config)} | meaningless(config)
    plain: dict[str, _Place] = {}
    for stored, place in found.items():
        name = stored if stored in known else _plain(stored, known)
        if name in plain:
            raise CheckpointError(
                f"{file}: {stored!r} and another tensor both stand for {name!r}; keep one of them"
            )
        plain[name] = place
    return plain


def meaningless(config: ModelConfig) -> set[str]:
    """Returns names of tensors that may be stored and that transformers ignores too."""
    names = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq" for i in range(config.n_layers)}
    return names | {HEAD} if config.tie_embeddings else names


def settle_head(
    tensors: Mapping[str, _Place],
    config: ModelConfig,
    equal: Callable[[_Place, _Place], bool],
    file: str,
) -> tuple[dict[str, _Place], ModelConfig]:
    """Returns the tensors and the config of a model whose embeddings say that they are tied.

    A stored head of other values than the embedding's is kept, and the model is not tied; of two
    tied weights, the one that is stored is both.
    """
    if not config.tie_embeddings or HEAD not in tensors:
        return dict(tensors), config
    if EMBEDDING not in tensors:
        return {**tensors, EMBEDDING: tensors[HEAD]}, config
    if equal(tensors[EMBEDDING], tensors[HEAD]):
        return dict(tensors), config
    warnings.warn(
        f"{file}: tie_word_embeddings is true, but {HEAD} and {EMBEDDING} are both stored with "
        "different values, so they are not tied, as in transformers; set it to false to silence "
        "this",
        stacklevel=2,
    )
    return dict(tensors), dataclasses.replace(config, tie_embeddings=False)


def _plain(stored: str, known: Collection[str]) -> str:
    """Returns the known name that a stored one means, or the stored one where it means none."""
    name = ".".join(part for part in stored.split(".") if part not in _WRAPPERS)
    while name.startswith(_PARALLEL):
        name = name.removeprefix(_PARALLEL)
    for candidate in (name, _BASE + name):
        if candidate in known:
            return candidate
    return stored
