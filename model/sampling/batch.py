"""A batch of requests as the kernels read it: one record a row."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from .params import SamplingParams

ROW = np.dtype(
    [
        ("seed", "<u8"), ("min_weight", "<u8"), ("position", "<u4"), ("draw", "<u4"),
        ("domain", "<u4"), ("x_max", "<f4"), ("top_p", "<f4"), ("typical_p", "<f4"),
        ("top_k", "<u4"), ("joint", "<u4"),
    ]
)  # fmt: skip
"""`SamplingRow` of csrc/cpu/sampling.h."""

WEIGHT_BITS = 44
VOCAB_LIMIT = 2**20
"""Vocabularies must be smaller, so that sums of Q0.44 weights fit in 64 bits."""

Ids = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Batch:
    """Parameters, counters and histories of B rows; every rank has the same.

    Attributes:
        params: One a row.
        rows: Records [B]; x_max is set once all ranks' maxima are known.
        temperature: fp32 [B]; 1 for greedy rows.
        prompts, outputs: Token ids of each row so far, for penalties and min_tokens.
    """

    params: list[SamplingParams]
    rows: npt.NDArray[np.void]
    temperature: npt.NDArray[np.float32]
    prompts: Ids
    outputs: Ids

    def __len__(self) -> int:
        return len(self.params)

    @classmethod
    def make(
        cls,
        params: SamplingParams | Sequence[SamplingParams],
        positions: torch.Tensor | Sequence[int],
        draws: torch.Tensor | Sequence[int] | None,
        prompt_ids: Ids | None,
        output_ids: Ids | None,
        *,
        size: int,
        seeds_must_agree: bool,
    ) -> Batch:
        """Checks the arguments of `sample` for a batch of `size`; raises ValueError naming one."""
        every = [params] * size if isinstance(params, SamplingParams) else list(params)
        if len(every) != size:
            raise ValueError(f"params: {len(every)} of them for a batch of {size}")
        if seeds_must_agree and any(p.seed is None and not p.greedy for p in every):
            raise ValueError("seed: each rank would draw its own; give every row a seed")
        rows = np.zeros(size, dtype=ROW)
        rows["position"] = _counters("positions", positions, size)
        rows["draw"] = 0 if draws is None else _counters("draws", draws, size)
        if isinstance(params, SamplingParams):
            rows[_FILTERS] = _filters(params)
        else:
            rows[_FILTERS] = [_filters(p) for p in every]
        rows["seed"] = [_seed(p) for p in every]
        temperature = np.array([1 if p.greedy else p.temperature for p in every], dtype=np.float32)
        prompts, outputs = (
            _ids("prompt_ids", prompt_ids, size),
            _ids("output_ids", output_ids, size),
        )
        for name, ids, needed in (
            ("prompt_ids", prompt_ids, _needs_prompt),
            ("output_ids", output_ids, _needs_output),
        ):
            if ids is None and any(map(needed, every)):
                raise ValueError(f"{name}: penalties and min_tokens need them, empty lists will do")
        return cls(every, rows, temperature, prompts, outputs)

    def digests(self, *options: object) -> npt.NDArray[np.uint64]:
        """Returns the digests that ranks compare: of the parameters, the counters, and the rest."""
        texts = {id(p): repr(p) for p in self.params}
        described = [texts[id(p)] for p in self.params]
        parts = (
            repr((described, self.prompts, self.outputs)).encode() + self.rows["seed"].tobytes(),
            self.rows["position"].tobytes() + self.rows["draw"].tobytes(),
            repr((len(self), *options)).encode(),
        )
        digests = [hashlib.blake2b(part, digest_size=8).digest() for part in parts]
        return np.frombuffer(b"".join(digests), dtype=np.uint64)


DIGESTED = (
    "parameters, seeds or histories",
    "positions or draws",
    "batch size, logits dtype, vocab_size, path or what to return",
)
"""What each of `Batch.digests` stands for."""


_FILTERS = ["min_weight", "top_p", "typical_p", "top_k", "joint"]


def _filters(p: SamplingParams) -> tuple[int, float, float, int, int]:
    """Fields _FILTERS of a record."""
    if p.greedy:
        return 1, 1, 1, 1, 0
    min_weight = 1
    if p.min_p:
        numerator, denominator = float(np.float32(p.min_p)).as_integer_ratio()
        min_weight = max(1, -(-(numerator << WEIGHT_BITS) // denominator))
    top_k = 0 if p.top_k is None or p.top_k <= 0 else min(p.top_k, VOCAB_LIMIT)
    top_p, typical_p = (1 if share is None else share for share in (p.top_p, p.typical_p))
    return min_weight, top_p, typical_p, top_k, p.filter_apply_order == "joint"


def _seed(p: SamplingParams) -> int:
    if p.greedy:
        return 0
    return secrets.randbits(64) if p.seed is None else p.seed


def _counters(name: str, values: torch.Tensor | Sequence[int], size: int) -> npt.NDArray[np.uint32]:
    found = np.asarray(values.cpu() if isinstance(values, torch.Tensor) else values)
    if found.shape != (size,) or (size and found.dtype.kind not in "iu"):
        raise ValueError(f"{name}: expected {size} integers, got {found.dtype} {found.shape}")
    if ((found < 0) | (found >= 2**32)).any():
        raise ValueError(f"{name}: expected 0 <= value < 2^32")
    return found.astype(np.uint32)


def _ids(name: str, ids: Ids | None, size: int) -> Ids:
    if ids is None:
        return [()] * size
    if len(ids) != size:
        raise ValueError(f"{name}: {len(ids)} lists for a batch of {size}")
    return [tuple(map(int, row)) for row in ids]


def _needs_prompt(p: SamplingParams) -> bool:
    return p.repetition_penalty != 1


def _needs_output(p: SamplingParams) -> bool:
    return _needs_prompt(p) or bool(p.frequency_penalty or p.presence_penalty or p.min_tokens)
