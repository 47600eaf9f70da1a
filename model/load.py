"""`bitlens.load`: from the name of a model to a model that runs."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from .._core import numerics_version
from ..policies import GRADIENTS
from .ops.bf16_products import settle_bf16_products
from .ops.interface import Ops
from .ops.native import NativeOps
from .ops.native_huggingface import NativeHuggingFaceOps
from .ops.policy import Policy, get_policy
from .ops.torch_huggingface import HuggingFaceOps
from .ops.torch_ops import TorchOps
from .parallel import Group, ShardedHuggingFaceOps, ShardedOps, agreement, as_group
from .rope.parameters import with_rope_scaling
from .runners.fused import FusedRunner
from .runners.interface import RunnerFactory
from .runners.sharded import ShardedRunner
from .runners.unfused import UnfusedRunner
from .sources.resolve import open_checkpoint
from .sources.transformers_model import is_transformers_model
from .transformer import HookedTransformer
from .weights.checkpoint import Checkpoint
from .weights.low_rank_settings import LowRank

if TYPE_CHECKING:
    from .weights.trained import TrainedWeights

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class _Loaded:
    """What `load` was called with, of a model in a file or on the hub."""

    source: str | Path
    options: Mapping[str, Any]

    def reopen(self, fingerprint: str) -> HookedTransformer:
        """Loads the model again. Raises ValueError where the source has changed."""
        model = load(self.source, **self.options)
        if model.fingerprint() != fingerprint:
            raise ValueError(
                f"{self.source}: its weights are not those of the pickled model; pickle it again, "
                "or put the old file back"
            )
        return model

    def with_rope_scaling(self, rope_scaling: Mapping[str, Any]) -> _Loaded:
        """Returns the same call with other rotary positions."""
        options = {**self.options, "rope_scaling": dict(rope_scaling)}
        return dataclasses.replace(self, options=options)


Backend = Literal["native", "torch"]
Storage = Literal["packed", "fp32"]
Trainable = Literal["full", "lora"] | LowRank


def load(
    source: str | Path | nn.Module | Checkpoint,
    *,
    revision: str | None = None,
    tokenizer: Any = None,
    dtype: str = "fp32",
    backend: Backend = "native",
    device: str | torch.device = "cpu",
    rope_scaling: Mapping[str, Any] | None = None,
    storage: Storage = "packed",
    group: Any = None,
    trainable: Trainable | None = None,
) -> HookedTransformer:
    """Loads a model.

    Args:
        source: An alias (`smollm2-135m-instruct`, `gemma-3-270m`); a .gguf file, or any shard of
            one; a Hugging Face directory; a model on the Hugging Face hub, `org/name` or
            `org/name@revision` (needs the `hub` extra; a directory of that name wins), with
            `:Q4_K_M` or `:file.gguf` for a GGUF file in it; a transformers model in memory, of
            which this takes a copy as it is now; or a Checkpoint that is open.
        revision: The branch, tag or commit of a model on the hub.
        tokenizer: For a model in memory: the fast tokenizer of transformers that goes with it.
        dtype: The precision policy: "fp32", "bf16", "bf16_weights", "hf_bf16" (rounded step by
            step as transformers' eager models in bf16) or "fp64" (with the torch backend only);
            docs/numerics.md has their rounding points.
        backend: "native", whose bits are fixed, or "torch", the differentiable reference.
        device: "cpu", or "cuda" and "cuda:N": the same bits (docs/cuda.md).
        rope_scaling: RoPE scaling in place of the checkpoint's own, as Hugging Face spells it,
            such as {"rope_type": "yarn", "factor": 4.0}; the context grows by the factor. Types are
            in docs/numerics.md.
        storage: How the native backend keeps weights: "packed", the narrowest format that holds a
            matrix exactly, or "fp32". The bits are the same.
        group: Spreads the weights over the ranks of a torch.distributed group (gloo); each of them
            calls this with the same arguments. The bits are the same (docs/tensor_parallel.md).
        trainable: "full" keeps fp32 weights that can be trained beside those that kernels read;
            "lora", or a `LowRank` with a rank, trains low-rank adapters alone (docs/training.md).
            Under fp32, bf16 and bf16_weights, on native kernels without a group. Until something
            is trained the bits are the same.

    Raises:
        FileNotFoundError: no such source.
        FetchError: it is not on this machine and cannot be fetched.
        TypeError: no source at all.
        CheckpointError: a damaged or unsupported checkpoint, naming file and tensor or field; a
            model in memory that computes something else than its class, naming where.
        RuntimeError: K-quants without the `gguf` package; says what to install.
        ValueError: an argument that cannot be, naming it and what can.
        CudaUnavailable: a GPU that native kernels cannot run on; its text says what is missing.
        ConfigError: a rope_scaling that cannot be, or one whose frequencies follow the length of
            the sequence, with the native backend.
        GroupError: ranks that loaded different models, or one that failed to load its own.
    """
    ranks = as_group(group)
    started = time.perf_counter()
    with (
        torch.inference_mode(False),  # weights made now serve gradients later
        agreement(ranks, "bitlens.load", "settings", "weights") as statement,
    ):
        if trainable is not None:
            storage = _storage_of_trained(trainable, dtype, backend, storage, ranks, device)
        ops, make_runner = _backend(backend, get_policy(dtype), _device(device), storage, ranks)
        checkpoint = _open(source, revision, tokenizer)
        own_config = checkpoint.config
        if rope_scaling is not None:
            config = with_rope_scaling(checkpoint.config, rope_scaling)
            checkpoint = dataclasses.replace(checkpoint, config=config)
        ops.adopt(checkpoint.config)
        if trainable not in (None, "full"):
            make_runner = UnfusedRunner  # fused blocks know no adapters
        model = HookedTransformer(checkpoint, ops, make_runner)
        if trainable is not None:
            assert isinstance(ops, NativeOps)
            model.trained = _trained(checkpoint, ops, model, trainable)
            model.forward_pass.trains = True
        if is_transformers_model(source):
            # Here, as it brings all of bitlens.precision: importing bitlens stays light.
            from .interop.own_function import require_own_function

            require_own_function(source, own_config)
        if isinstance(ops, ShardedOps):
            statement.say("settings", numerics_version, ops.policy, model.config)
            statement.say("weights", ops.digest.digest())
    seconds = time.perf_counter() - started
    _log.info("loaded %s under %s (%s) in %.1f s", checkpoint.name, dtype, backend, seconds)
    if isinstance(source, str | Path) and trainable is None:
        options = {"revision": revision, "dtype": dtype, "backend": backend, "device": str(device)}
        scaling = None if rope_scaling is None else dict(rope_scaling)
        model.origin = _Loaded(source, {**options, "rope_scaling": scaling, "storage": storage})
    return model


def _trained(
    checkpoint: Checkpoint, ops: NativeOps, model: HookedTransformer, trainable: Trainable
) -> TrainedWeights:
    """Puts weights that can change into a model."""
    # Here, since most models are not trained: importing bitlens stays light.
    from .weights.low_rank import low_rank_weights
    from .weights.trained import full_weights

    modules = list(model.modules())
    if trainable == "full":
        return full_weights(checkpoint, ops, modules)
    settings = trainable if isinstance(trainable, LowRank) else LowRank()
    return low_rank_weights(checkpoint, ops, modules, settings)


def _storage_of_trained(
    trainable: Trainable,
    dtype: str,
    backend: str,
    storage: Storage,
    group: Group | None,
    device: str | torch.device,
) -> Storage:
    """Returns how trained weights are kept. Raises ValueError for what cannot be trained."""
    if trainable not in ("full", "lora") and not isinstance(trainable, LowRank):
        raise ValueError(f"trainable = {trainable!r}: expected 'full', 'lora', a LowRank or None")
    if backend != "native":
        raise ValueError(
            'trainable: weights of backend="torch" are Parameters already; drop one of the two'
        )
    if group is not None:
        raise ValueError("trainable: no weight gradients over several ranks; drop the group")
    if _device(device).type != "cpu":
        raise ValueError(f'trainable: no gradients on device = "{device}" yet; train on "cpu"')
    if dtype not in GRADIENTS:
        raise ValueError(
            f"trainable: dtype = {dtype!r} has no gradients; load as {', '.join(GRADIENTS)}"
        )
    return "fp32" if dtype == "fp32" and trainable == "full" else storage


def _open(
    source: str | Path | nn.Module | Checkpoint, revision: str | None, tokenizer: Any
) -> Checkpoint:
    if not isinstance(source, Checkpoint):
        return open_checkpoint(source, revision=revision, tokenizer=tokenizer)
    if revision is not None or tokenizer is not None:
        raise ValueError("revision, tokenizer: a Checkpoint that is open takes neither")
    return source


def _device(device: str | torch.device) -> torch.device:
    try:
        return torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f'device = {device!r}: expected "cpu", or "cuda"') from error


def _backend(
    backend: str, policy: Policy, device: torch.device, storage: str, group: Group | None
) -> tuple[Ops, RunnerFactory]:
    stepwise = policy.stepwise
    if backend == "torch":
        if group is not None:
            raise ValueError(
                'group: only native kernels run on several ranks; drop backend="torch"'
            )
        if storage != "packed":
            raise ValueError('storage: only the native backend packs; drop it with backend="torch"')
        if device.type == "cuda" and not torch.cuda.is_available():
            raise ValueError(f'device = "{device}": this torch finds no CUDA device')
        return (HuggingFaceOps if stepwise else TorchOps)(policy, device), UnfusedRunner
    if backend != "native":
        raise ValueError(f"backend = {backend!r}: expected 'native' or 'torch'")
    if device.type == "cuda":
        return _on_gpu(policy, device, storage, group)
    if device.type != "cpu":
        raise ValueError(
            f'device = "{device}": native kernels run on "cpu" and "cuda"; load with '
            'backend="torch"'
        )
    if policy.activation is torch.bfloat16:
        settle_bf16_products()
    if group is not None:
        sharded = (ShardedHuggingFaceOps if stepwise else ShardedOps)(policy, storage, group)
        return sharded, ShardedRunner
    if stepwise:
        return NativeHuggingFaceOps(policy, storage), UnfusedRunner
    return NativeOps(policy, storage), FusedRunner


def _on_gpu(
    policy: Policy, device: torch.device, storage: str, group: Group | None
) -> tuple[Ops, RunnerFactory]:
    """Operations and blocks on a GPU. Raises CudaUnavailable where there is none to run on."""
    # Here, since most models run on the CPU: importing bitlens stays light.
    from .ops.cuda.kernels import CudaKernels
    from .ops.cuda.library import cuda_library
    from .ops.cuda.ops import cuda_ops
    from .runners.cuda import CudaRunner

    if group is not None:
        raise ValueError(f'group: ranks run on the CPU; drop it, or device="{device}"')
    ops = cuda_ops(policy, storage, CudaKernels(cuda_library(device)))
    return ops, UnfusedRunner if policy.stepwise else CudaRunner
