"""The platforms that a model can be run on, and how each is run.

Tensor names: P positions, V vocabulary, K best tokens that a platform lists.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from ...model.load import load
from ...model.sources.resolve import open_checkpoint
from ...model.text.prompts import require_tokenizer
from ...model.weights.checkpoint import Checkpoint
from ...policies import STEPWISE

Outputs = Mapping[str, np.ndarray]
"""`logits` fp32 [P, V]; `top` int64 [P, K], the best tokens where a platform lists them itself."""

Run = Callable[[np.ndarray], Outputs]
"""Runs a prompt's tokens, int64."""


def every_position(n: int) -> Sequence[int]:
    """Returns all positions of a prompt of n tokens."""
    return range(n)


SAMPLED = 4
"""Positions of a prompt, where each costs a request."""


def sampled_positions(n: int) -> Sequence[int]:
    """Returns up to `SAMPLED` of them, evenly apart, with the last."""
    parts = min(n, SAMPLED)
    return [n * (i + 1) // parts - 1 for i in range(parts)]


@dataclass(frozen=True)
class Platform:
    """One way of running a model.

    Attributes:
        what: In words.
        policy: The policy of bitlens whose roundings it states: its error is held against theirs.
        make: Loads a checkpoint for passes of so many tokens.
        has_addresses: Whether its operations have addresses, under which it is audited.
        environment: What its process is started with.
        same_bits: Whether it claims the bits of `policy`.
        positions: Those of a prompt that it gives logits at.
        most_tokens: It runs on as many prompts as have so many tokens together, at least two; None
            for all.
        remark: Says what to know of it on this checkpoint.
    """

    what: str
    policy: str
    make: Callable[[Checkpoint, int], Run]
    has_addresses: bool = False
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    same_bits: bool = False
    positions: Callable[[int], Sequence[int]] = every_position
    most_tokens: int | None = None
    remark: Callable[[Checkpoint], str | None] = lambda checkpoint: None

    def prompts(self, n_prompts: int, n_tokens: int) -> int:
        """Returns on how many of the prompts, each of so many tokens, it runs."""
        if self.most_tokens is None:
            return n_prompts
        return min(n_prompts, max(2, self.most_tokens // n_tokens))


def _bitlens(checkpoint: Checkpoint, n: int) -> Run:
    model = load(checkpoint)
    return lambda tokens_P: {"logits": model(torch.from_numpy(tokens_P)[None])[0].numpy()}


def _transformers(dtype: torch.dtype, *, compiled: bool = False) -> Callable[..., Run]:
    def make(checkpoint: Checkpoint, n: int) -> Run:
        from ...model.interop.transformers_llama import transformers_llama

        model: Any = transformers_llama(checkpoint, dtype)
        forward: Any = torch.compile(model) if compiled else model

        def run(tokens_P: np.ndarray) -> Outputs:
            with torch.inference_mode():
                found = forward(torch.from_numpy(tokens_P)[None], use_cache=False)
            logits_PV: torch.Tensor = found.logits[0]
            return {"logits": logits_PV.float().numpy()}

        return run

    return make


def _jax(dtype: str) -> Callable[..., Run]:
    def make(checkpoint: Checkpoint, n: int) -> Run:
        from ...model.interop.jax_llama import jax_llama

        logits = jax_llama(checkpoint, dtype)
        return lambda tokens_P: {"logits": logits(tokens_P)}

    return make


def _jax_sharded(checkpoint: Checkpoint, n: int) -> Run:
    from ...model.interop.jax_sharded import jax_sharded_llama

    logits_and_best = jax_sharded_llama(checkpoint)
    return lambda tokens_P: dict(zip(("logits", "top"), logits_and_best(tokens_P), strict=True))


def _llama_cpp(*, wide: bool) -> Callable[..., Run]:
    def make(checkpoint: Checkpoint, n: int) -> Run:
        from ...model.interop.gguf_widened import write_widened
        from ...model.interop.llama_cpp import gguf_path, llama_cpp, require_llama_cpp

        require_llama_cpp()
        path, places = gguf_path(checkpoint), sampled_positions(n)
        if wide:
            source, path = path, Path(tempfile.mkdtemp()) / "widened.gguf"
            write_widened(source, path)
        said = require_tokenizer(checkpoint.tokenizer).encode("a")[-1]
        threads = torch.get_num_threads()
        logprobs = llama_cpp(path, places, said=said, threads=threads, wide=wide)
        return lambda tokens_P: {"logits": logprobs(tokens_P)}

    return make


def _roundings(checkpoint: Checkpoint) -> str:
    from ...model.interop.llama_cpp import roundings

    return roundings(checkpoint)


def _onnx(level: str) -> Callable[..., Run]:
    def make(checkpoint: Checkpoint, n: int) -> Run:
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
        return lambda tokens_P: {"logits": session.run(None, {"tokens": tokens_P})[0]}

    return make


DEVICES = 8
EXCESS = "--xla_allow_excess_precision={}"
_FP32, _BF16 = torch.float32, torch.bfloat16

PLATFORMS: Mapping[str, Platform] = MappingProxyType(
    {
        "generic": Platform(
            "bitlens, generic kernels", "fp32", _bitlens,
            environment={"BITLENS_ISA": "generic"}, same_bits=True, most_tokens=256,
        ),
        "avx2": Platform(
            "bitlens, AVX2 kernels", "fp32", _bitlens,
            environment={"BITLENS_ISA": "avx2"}, same_bits=True,
        ),
        "hf": Platform(
            "transformers eager, fp32", "fp32", _transformers(_FP32), has_addresses=True
        ),
        "hf-bf16": Platform(
            "transformers eager, bf16", STEPWISE, _transformers(_BF16), has_addresses=True
        ),
        "compile": Platform(
            "torch.compile of transformers, fp32", "fp32", _transformers(_FP32, compiled=True)
        ),
        "compile-bf16": Platform(
            "torch.compile of transformers, bf16", STEPWISE, _transformers(_BF16, compiled=True)
        ),
        "jax": Platform("XLA through JAX, fp32", "fp32", _jax("float32"), has_addresses=True),
        "jax-bf16": Platform(
            "XLA through JAX, bf16, excess precision allowed (its default)", STEPWISE,
            _jax("bfloat16"), has_addresses=True,
            environment={"XLA_FLAGS": EXCESS.format("true")},
        ),
        "jax-bf16-strict": Platform(
            "XLA through JAX, bf16, excess precision forbidden", STEPWISE,
            _jax("bfloat16"), has_addresses=True,
            environment={"XLA_FLAGS": EXCESS.format("false")},
        ),
        "jax-sharded": Platform(
            f"XLA through JAX, fp32, unembedding and top-k over {DEVICES} devices (GSPMD)", "fp32",
            _jax_sharded,
            environment={"XLA_FLAGS": f"--xla_force_host_platform_device_count={DEVICES}"},
        ),
        "onnx": Platform(
            "ONNX Runtime, fp32, graph optimised", "fp32", _onnx("ORT_ENABLE_ALL")
        ),
        "onnx-plain": Platform(
            "ONNX Runtime, fp32, graph as it is", "fp32", _onnx("ORT_DISABLE_ALL")
        ),
        "llama.cpp": Platform(
            "llama.cpp on this GGUF file, as it is by default", "fp32", _llama_cpp(wide=False),
            positions=sampled_positions, remark=_roundings,
        ),
        "llama.cpp-wide": Platform(
            "llama.cpp on the same weights widened to fp32, keys and values in fp32", "fp32",
            _llama_cpp(wide=True), positions=sampled_positions,
        ),
    }
)  # fmt: skip
"""By name."""


def open_for(platform: str, source: str, n: int) -> Run:
    """Returns a platform's function of tokens. Raises as its library does."""
    return PLATFORMS[platform].make(open_checkpoint(source), n)
