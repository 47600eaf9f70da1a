"""The two paths an audit compares, from what the command line calls them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..model.load import load
from ..model.ops.policy import NATIVE_POLICIES, get_policy
from ..model.transformer import HookedTransformer
from ..precision.addresses import Addressable

if TYPE_CHECKING:
    from ..model.text.tokenizer import Tokenizer

HUGGING_FACE = {"hf": "fp32", "hf-bf16": "bf16"}
"""Hugging Face's eager Llama on the model's own weights, by its name on the command line."""

CHOICES = f"{', '.join(NATIVE_POLICIES)}, {', '.join(HUGGING_FACE)}, or another checkpoint"


@dataclass(frozen=True)
class ModelPath:
    """One way of computing a model.

    Attributes:
        name: What it is called in the report.
        model: Its operations by address.
        implementation: Whose kernels run.
        vocabulary: Logits a position has.
    """

    name: str
    model: Addressable
    implementation: str
    policy: str
    vocabulary: int
    tokenizer: Tokenizer | None


def reference_path(source: str, dtype: str) -> tuple[ModelPath, HookedTransformer]:
    """Path A: the model under a policy. Raises ValueError for a policy that is none."""
    if dtype not in NATIVE_POLICIES:
        raise ValueError(f"--a {dtype}: expected one of {', '.join(NATIVE_POLICIES)}")
    model = load(source, dtype=dtype)
    return bitlens_path(dtype, dtype, model), model


def path_on_trial(source: str, choice: str | nn.Module, reference: ModelPath) -> ModelPath:
    """Path B: a policy, Hugging Face, another checkpoint under A's policy, or a model in memory.

    Raises ValueError for a path that is A itself and for one whose tokens mean other things, and
    as `load` and `TransformersAddresses` do.
    """
    if not isinstance(choice, str):
        return _path_in_memory(choice, reference)
    if choice == reference.name:
        raise ValueError(f"--b {choice}: the same path as --a; choose {CHOICES}")
    if choice in HUGGING_FACE:
        return _hugging_face_path(source, choice, reference)
    if choice in NATIVE_POLICIES:
        return bitlens_path(choice, choice, load(source, dtype=choice))
    try:
        model = load(choice, dtype=reference.policy)
    except FileNotFoundError as error:
        raise ValueError(f"--b {choice}: no such file or directory; choose {CHOICES}") from error
    path = bitlens_path(choice.rstrip("/").rpartition("/")[2], reference.policy, model)
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

    peer: Any = TransformersAddresses(model)
    policy = {torch.float32: "fp32", torch.bfloat16: "bf16"}[peer.dtype]
    name = f"{type(model).__name__} in memory"
    vocabulary = peer.config.d_vocab
    path = ModelPath(name, peer, "transformers eager", policy, vocabulary, reference.tokenizer)
    _check_comparable(reference, path)
    return path


def bitlens_path(name: str, policy: str, model: HookedTransformer) -> ModelPath:
    """A loaded model as a path."""
    backend = type(model.ops).__name__
    return ModelPath(
        name, model, f"bitlens {backend}", policy, model.config.d_vocab, model.tokenizer
    )


def _hugging_face_path(source: str, choice: str, reference: ModelPath) -> ModelPath:
    from ..model.interop.transformers_addresses import TransformersAddresses
    from ..model.interop.transformers_llama import transformers_llama
    from ..model.sources.resolve import open_checkpoint

    checkpoint = open_checkpoint(source)
    policy = HUGGING_FACE[choice]
    peer: Any = TransformersAddresses(transformers_llama(checkpoint, get_policy(policy).weight))
    vocabulary, tokenizer = checkpoint.config.d_vocab, reference.tokenizer
    return ModelPath(choice, peer, "transformers eager", policy, vocabulary, tokenizer)


def _check_comparable(a: ModelPath, b: ModelPath) -> None:
    """Same vocabulary, same tokens for the same text."""
    if a.vocabulary != b.vocabulary:
        raise ValueError(
            f"--b {b.name}: a vocabulary of {b.vocabulary} against {a.vocabulary}; only models "
            "with one tokenizer can be compared token by token"
        )
    if a.tokenizer is None or b.tokenizer is None:
        return
    sample = 'The 3 cats: "naïve" fn(x) -> 12.5%\n\tなに?'
    mine, theirs = a.tokenizer.encode(sample), b.tokenizer.encode(sample)
    if mine != theirs:
        raise ValueError(
            f"--b {b.name}: its tokenizer gives other tokens for the same text; only models with "
            "one tokenizer can be compared token by token"
        )
