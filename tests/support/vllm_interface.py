"""vLLM's logits-processor interface, without vLLM: the names and signatures of
vllm/v1/sample/logits_processor/interface.py (as in 0.29), and how its sampler calls one.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from types import ModuleType
from typing import Any

import torch


@dataclass
class VllmSamplingParams:
    """The fields of `vllm.SamplingParams` that shape a token, with its defaults."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    logit_bias: dict[int, float] = field(default_factory=dict)
    extra_args: dict[str, Any] | None = None


class MoveDirectionality(Enum):
    UNIDIRECTIONAL = auto()
    SWAP = auto()


@dataclass(frozen=True)
class BatchUpdate:
    batch_size: int
    removed: Sequence[int] = ()
    added: Sequence[tuple[int, VllmSamplingParams, list[int] | None, list[int]]] = ()
    moved: Sequence[tuple[int, int, MoveDirectionality]] = ()


class LogitsProcessor(ABC):
    @classmethod
    def validate_params(cls, sampling_params: VllmSamplingParams) -> None:
        return None

    @abstractmethod
    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None: ...

    @abstractmethod
    def apply(self, logits: torch.Tensor) -> torch.Tensor: ...

    @abstractmethod
    def is_argmax_invariant(self) -> bool: ...

    @abstractmethod
    def update_state(self, batch_update: BatchUpdate | None) -> None: ...


@contextmanager
def installed() -> Iterator[None]:
    """`import vllm.v1.sample.logits_processor` finds the above."""
    names = ["vllm", "vllm.v1", "vllm.v1.sample", "vllm.v1.sample.logits_processor"]
    before = {name: sys.modules.get(name) for name in names}
    for name in names:
        sys.modules[name] = ModuleType(name)
    interface: Any = sys.modules[names[-1]]
    interface.LogitsProcessor = LogitsProcessor
    interface.BatchUpdate = BatchUpdate
    interface.MoveDirectionality = MoveDirectionality
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def what_vllm_does_next(logits: torch.Tensor, params: list[VllmSamplingParams]) -> torch.Tensor:
    """The rest of vLLM's sampler: penalties on every token, temperature, min-p, top-k, top-p, and
    exponential noise; greedy rows take the argmax.
    """
    chosen = []
    for row, p in zip(logits.float(), params, strict=True):
        row = torch.where(row > 0, row / p.repetition_penalty, row * p.repetition_penalty)
        row = row - 3 * p.frequency_penalty - p.presence_penalty
        if p.temperature < 1e-5:
            chosen.append(row.argmax())
            continue
        row = row / p.temperature
        probabilities = row.softmax(0)
        row[probabilities < probabilities.max() * p.min_p] = -torch.inf
        values, order = row.sort()
        if p.top_k > 0:
            values[values < values[-p.top_k]] = -torch.inf
        outside = values.softmax(0).cumsum(0) <= 1 - p.top_p
        outside[-1] = False
        values[outside] = -torch.inf
        probabilities = torch.empty_like(row).scatter_(0, order, values).softmax(0)
        chosen.append((probabilities / torch.empty_like(row).exponential_()).argmax())
    return torch.stack(chosen)
