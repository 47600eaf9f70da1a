"""The two paths an audit compares, from what the command line calls them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..model.load import load
from ..model.ops.policy import NATIVE_POLICIES, get_policy
from ..model.sources.resolve import open_checkpoint
from ..model.transformer import HookedTransformer
from ..precision.addresses import Addressable

if TYPE_CHECKING:
    from ..model.text.tokenizer import Tokenizer
    from ..model.weights.checkpoint import Checkpoint

HUGGING_FACE = {"hf": "fp32", "hf-bf16": "bf16"}
"""Hugging Face's eager Llama on the model's own weights, by its name on the command line."""


def choices() -> str:
    """Returns the names that B may have, for an error."""
    from .platforms.platform import PLATFORMS

    return f"{', '.join([*NATIVE_POLICIES, *PLATFORMS])}, or another checkpoint"


def shows_logits_only(choice: str) -> bool:
    """Returns whether a path is a platform whose operations have no addresses."""
    from .platforms.platform import PLATFORMS

    return choice in PLATFORMS and not PLATFORMS[choice].has_addresses


@dataclass(frozen=True)
class ModelPath:
    """One way of computing a model.

    Attributes:
        name: What it is called in the report.
        model: Its operations by address.
        implementation: Whose kernels run.
        vocabulary: Logits a position has.
        checkpoint: The weights that it computes with, before its policy rounds them where they come
            from a file; None where no one can say.
    """

    name: str
    model: Addressable
    implementation: str
    policy: str
    vocabulary: int
    tokenizer: Tokenizer | None
    checkpoint: Checkpoint | None = None

    @property
    def rounds_to(self) -> str | None:
        """ "bf16" where it keeps its weights so, else None."""
        return "bf16" if get_policy(self.policy).weight is torch.bfloat16 else None


def reference_path(source: str, dtype: str) -> tuple[ModelPath, HookedTransformer]:
    """Path A: the model under a policy. Raises ValueError for a policy that is none."""
    if dtype not in NATIVE_POLICIES:
        raise ValueError(f"--a {dtype}: expected one of {', '.join(NATIVE_POLICIES)}")
    checkpoint = open_checkpoint(source)
    model = load(checkpoint, dtype=dtype)
    return bitlens_path(dtype, dtype, model, checkpoint), model


def check_device(choice: str | nn.Module, device: str) -> None:
    """Raises ValueError for a path on another device than the CPU that bitlens does not load."""
    from .platforms.platform import PLATFORMS

    if device != "cpu" and (not isinstance(choice, str) or choice in PLATFORMS):
        raise ValueError(
            f"--device {device}: only what bitlens loads for B runs there; choose one of "
            f"{', '.join(NATIVE_POLICIES)}, or another checkpoint, or drop it"
        )


def path_on_trial(
    source: str, choice: str | nn.Module, reference: ModelPath, device: str = "cpu"
) -> ModelPath:
    """Path B: a policy, a platform whose operations have addresses, another checkpoint under A's
    policy, or a model in memory. What bitlens loads for it runs on the device.

    Raises ValueError for a path that is A itself, for one of another vocabulary, for a platform
    that shows logits only and for another device than the CPU for what bitlens does not load, and
    as `load`, `TransformersAddresses` and `JaxProcess` do.
    """
    from .platforms.platform import PLATFORMS

    check_device(choice, device)
    if not isinstance(choice, str):
        return _path_in_memory(choice, reference)
    if choice == reference.name and device == "cpu":
        raise ValueError(f"--b {choice}: the same path as --a; choose {choices()}")
    if choice in HUGGING_FACE:
        return _hugging_face_path(source, choice, reference)
    if shows_logits_only(choice):
        raise ValueError(f"--b {choice}: it shows logits only")
    if choice in PLATFORMS:
        return _jax_path(source, choice, reference)
    place = "" if device == "cpu" else f" on {device}"
    if choice in NATIVE_POLICIES:
        model = load(reference.checkpoint or source, dtype=choice, device=device)
        return bitlens_path(choice + place, choice, model, reference.checkpoint)
    try:
        checkpoint = open_checkpoint(choice)
    except FileNotFoundError as error:
        raise ValueError(f"--b {choice}: no such file or directory; choose {choices()}") from error
    name = choice.rstrip("/").rpartition("/")[2]
    model = load(checkpoint, dtype=reference.policy, device=device)
    path = bitlens_path(name + place, reference.policy, model, checkpoint)
    _check_comparable(reference, path)
    return path


def _path_in_memory(model: nn.Module, reference: ModelPath) -> ModelPath:
    """Whatever its code has become: patched, adapted, wrapped."""
    if isinstance(model, HookedTransformer):
        name = f"a bitlens model under {model.ops.policy.name}"
        path = bitlens_path(name, model.ops.policy.name, model)
        _check_comparable(reference, path)
        return path
    from ..model.interop.transformers_addresses import TransformersAddresses

    path = _transformers_path(f"{type(model).__name__} in memory", TransformersAddresses(model))
    _check_comparable(reference, path)
    return path


def bitlens_path(
    name: str, policy: str, model: HookedTransformer, checkpoint: Checkpoint | None = None
) -> ModelPath:
    """A loaded model as a path; without a checkpoint, its weights are those in memory."""
    backend = type(model.ops).__name__
    return ModelPath(
        name,
        model,
        f"bitlens {backend}",
        policy,
        model.config.d_vocab,
        model.tokenizer,
        checkpoint,
    )


def _hugging_face_path(source: str, choice: str, reference: ModelPath) -> ModelPath:
    from ..model.interop.transformers_addresses import TransformersAddresses
    from ..model.interop.transformers_llama import transformers_llama

    checkpoint = reference.checkpoint or open_checkpoint(source)
    weight = get_policy(HUGGING_FACE[choice]).weight
    return _transformers_path(choice, TransformersAddresses(transformers_llama(checkpoint, weight)))


def _jax_path(source: str, choice: str, reference: ModelPath) -> ModelPath:
    from ..model.interop.jax_addresses import JaxAddresses
    from ..model.interop.jax_sites import IMPLEMENTATION
    from ..model.interop.plain_llama import require_plain
    from .platforms.jax_process import JaxProcess
    from .platforms.platform import PLATFORMS

    platform = PLATFORMS[choice]
    checkpoint = reference.checkpoint or open_checkpoint(source)
    require_plain(checkpoint)
    weight = get_policy(platform.policy).weight
    dtype = str(weight).removeprefix("torch.")
    programs = JaxProcess(source, dtype, platform.environment)
    model = JaxAddresses(checkpoint, weight, programs)
    vocabulary = checkpoint.config.d_vocab
    return ModelPath(choice, model, IMPLEMENTATION, platform.policy, vocabulary, None, checkpoint)


def _transformers_path(name: str, peer: Any) -> ModelPath:
    from ..model.interop.transformers_weights import weights_in_memory

    policy = {torch.float32: "fp32", torch.bfloat16: "bf16"}[peer.dtype]
    weights = weights_in_memory(peer.model, name)
    return ModelPath(name, peer, "transformers eager", policy, peer.config.d_vocab, None, weights)


def _check_comparable(a: ModelPath, b: ModelPath) -> None:
    """Raises ValueError for logits that cannot be held against each other."""
    if a.vocabulary != b.vocabulary:
        raise ValueError(
            f"--b {b.name}: a vocabulary of {b.vocabulary} against {a.vocabulary}; only models "
            "with as many tokens can be compared token by token"
        )
