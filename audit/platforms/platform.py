"""The platforms that a model can be run on, and how each is run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from ...model.load import load
from ...model.sources.resolve import open_checkpoint
from ...model.weights.checkpoint import Checkpoint
from ...policies import STEPWISE

Logits = Callable[[np.ndarray], np.ndarray]
"""From tokens int64 [P] to logits fp32 [P, V]."""


@dataclass(frozen=True)
class Platform:
    """One way of running a model.

    Attributes:
        what: In words.
        policy: The policy of bitlens whose roundings it states: its error is held against theirs.
        make: Loads a checkpoint for passes of so many tokens.
        path: What `bitlens audit --b` calls it, where its operations have addresses.
        environment: What its process is started with.
        same_bits: Whether it claims the bits of `policy`.
    """

    what: str
    policy: str
    make: Callable[[Checkpoint, int], Logits]
    path: str | None = None
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    same_bits: bool = False


def _bitlens(checkpoint: Checkpoint, n: int) -> Logits:
    model = load(checkpoint)
    return lambda tokens_P: model(torch.from_numpy(tokens_P)[None])[0].numpy()


def _transformers(dtype: torch.dtype, *, compiled: bool = False) -> Callable[..., Logits]:
    def make(checkpoint: Checkpoint, n: int) -> Logits:
        from ...model.interop.transformers_llama import transformers_llama

        model: Any = transformers_llama(checkpoint, dtype)
        forward: Any = torch.compile(model) if compiled else model

        def run(tokens_P: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                found = forward(torch.from_numpy(tokens_P)[None], use_cache=False)
            logits_PV: torch.Tensor = found.logits[0]
            return logits_PV.float().numpy()

        return run

    return make


def _jax(dtype: str) -> Callable[..., Logits]:
    def make(checkpoint: Checkpoint, n: int) -> Logits:
        from ...model.interop.jax_llama import jax_llama

        return jax_llama(checkpoint, dtype)

    return make


def _onnx(level: str) -> Callable[..., Logits]:
    def make(checkpoint: Checkpoint, n: int) -> Logits:
        from ...model.interop.onnx_llama import onnx_llama

        try:
            import onnxruntime
        except ModuleNotFoundError as error:
            raise RuntimeError(
                "this needs ONNX Runtime: pip install 'bitlens[platforms]'"
            ) from error
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(
            onnx_llama(checkpoint, n), options, providers=["CPUExecutionProvider"]
        )
        return lambda tokens_P: session.run(None, {"tokens": tokens_P})[0]

    return make


EXCESS = "--xla_allow_excess_precision={}"
_FP32, _BF16 = torch.float32, torch.bfloat16

PLATFORMS: Mapping[str, Platform] = MappingProxyType(
    {
        "generic": Platform(
            "bitlens, generic kernels", "fp32", _bitlens,
            environment={"BITLENS_ISA": "generic"}, same_bits=True,
        ),
        "avx2": Platform(
            "bitlens, AVX2 kernels", "fp32", _bitlens,
            environment={"BITLENS_ISA": "avx2"}, same_bits=True,
        ),
        "hf": Platform("transformers eager, fp32", "fp32", _transformers(_FP32), "hf"),
        "hf-bf16": Platform("transformers eager, bf16", STEPWISE, _transformers(_BF16), "hf-bf16"),
        "compile": Platform(
            "torch.compile of transformers, fp32", "fp32", _transformers(_FP32, compiled=True)
        ),
        "compile-bf16": Platform(
            "torch.compile of transformers, bf16", STEPWISE, _transformers(_BF16, compiled=True)
        ),
        "jax": Platform("XLA through JAX, fp32", "fp32", _jax("float32")),
        "jax-bf16": Platform(
            "XLA through JAX, bf16, excess precision allowed (its default)", STEPWISE,
            _jax("bfloat16"), environment={"XLA_FLAGS": EXCESS.format("true")},
        ),
        "jax-bf16-strict": Platform(
            "XLA through JAX, bf16, excess precision forbidden", STEPWISE,
            _jax("bfloat16"), environment={"XLA_FLAGS": EXCESS.format("false")},
        ),
        "onnx": Platform(
            "ONNX Runtime, fp32, graph optimised", "fp32", _onnx("ORT_ENABLE_ALL")
        ),
        "onnx-plain": Platform(
            "ONNX Runtime, fp32, graph as it is", "fp32", _onnx("ORT_DISABLE_ALL")
        ),
    }
)  # fmt: skip
"""By name."""


def open_for(platform: str, source: str, n: int) -> Logits:
    """Returns a platform's function of tokens. Raises as its library does."""
    return PLATFORMS[platform].make(open_checkpoint(source), n)
