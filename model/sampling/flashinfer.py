"""FlashInfer's sampling calls, argument for argument.

Imported as `from bitlens.model.sampling import flashinfer`.

Each returns the tokens alone, int32 [B], as FlashInfer does. docs/sampling.md lists what differs:
where no generator is given noise comes from torch's default one, a row's token follows from its own
noise alone, every call is deterministic, and a row that leaves nothing to draw gives -1.
"""

from __future__ import annotations

import torch

from . import flashinfer_api, flashinfer_probs
from .flashinfer_api import (
    Noise,
    PerRow,
    top_k_mask_logits,
    top_k_renorm_probs,
    top_p_renorm_probs,
)
from .flashinfer_api import softmax as _softmax
from .params import FilterOrder
from .sample import SampleOutput

__all__ = [
    "min_p_sampling_from_probs",
    "sampling_from_logits",
    "sampling_from_probs",
    "softmax",
    "top_k_mask_logits",
    "top_k_renorm_probs",
    "top_k_sampling_from_probs",
    "top_k_top_p_sampling_from_logits",
    "top_k_top_p_sampling_from_probs",
    "top_p_renorm_probs",
    "top_p_sampling_from_probs",
]

Tensor = torch.Tensor


def softmax(
    logits: Tensor, temperature: PerRow | None = None, enable_pdl: bool | None = None
) -> Tensor:
    """Softmax of logits / temperature [B, V] in fp32; `enable_pdl` changes nothing here."""
    return _softmax(logits, 1.0 if temperature is None else temperature)


def sampling_from_logits(
    logits: Tensor,
    indices: Tensor | None = None,
    deterministic: bool = True,
    generator: torch.Generator | None = None,
    check_nan: bool = False,
    seed: int | None = None,
    offset: int | None = None,
) -> Tensor:
    """A token of the softmax of each row, or of each row that `indices` names."""
    rows = _rows(logits, indices, check_nan)
    return _tokens(flashinfer_api.sampling_from_logits(rows, _noise(rows, generator, seed, offset)))


def sampling_from_probs(
    probs: Tensor,
    indices: Tensor | None = None,
    deterministic: bool = True,
    generator: torch.Generator | None = None,
    check_nan: bool = False,
    seed: int | None = None,
    offset: int | None = None,
) -> Tensor:
    """A token of each row, or of each row that `indices` names."""
    rows = _rows(probs, indices, check_nan)
    return _tokens(
        flashinfer_probs.sampling_from_probs(rows, _noise(rows, generator, seed, offset))
    )


def top_p_sampling_from_probs(
    probs: Tensor,
    top_p: PerRow,
    indices: Tensor | None = None,
    deterministic: bool = True,
    generator: torch.Generator | None = None,
    check_nan: bool = False,
    seed: int | None = None,
    offset: int | None = None,
) -> Tensor:
    """A token of each row's nucleus of mass top_p; of 0, the best token."""
    rows = _rows(probs, indices, check_nan)
    noise = _noise(rows, generator, seed, offset)
    return _tokens(flashinfer_probs.top_p_sampling_from_probs(rows, top_p, noise))


def top_k_sampling_from_probs(
    probs: Tensor,
    top_k: PerRow,
    indices: Tensor | None = None,
    deterministic: bool = True,
    generator: torch.Generator | None = None,
    check_nan: bool = False,
    seed: int | None = None,
    offset: int | None = None,
) -> Tensor:
    """A token among the top_k best of each row."""
    rows = _rows(probs, indices, check_nan)
    noise = _noise(rows, generator, seed, offset)
    return _tokens(flashinfer_probs.top_k_sampling_from_probs(rows, top_k, noise))


def min_p_sampling_from_probs(
    probs: Tensor,
    min_p: PerRow,
    indices: Tensor | None = None,
    deterministic: bool = True,
    generator: torch.Generator | None = None,
    check_nan: bool = False,
    seed: int | None = None,
    offset: int | None = None,
) -> Tensor:
    """A token among those at least min_p times as likely as the best."""
    rows = _rows(probs, indices, check_nan)
    noise = _noise(rows, generator, seed, offset)
    return _tokens(flashinfer_probs.min_p_sampling_from_probs(rows, min_p, noise))


def top_k_top_p_sampling_from_logits(
    logits: Tensor,
    top_k: PerRow,
    top_p: PerRow,
    indices: Tensor | None = None,
    filter_apply_order: FilterOrder = "top_k_first",
    deterministic: bool = True,
    generator: torch.Generator | None = None,
    check_nan: bool = False,
    seed: int | None = None,
    offset: int | None = None,
) -> Tensor:
    """A token that both filters keep."""
    rows = _rows(logits, indices, check_nan)
    noise = _noise(rows, generator, seed, offset)
    return _tokens(
        flashinfer_api.top_k_top_p_sampling_from_logits(
            rows, top_k, top_p, noise, filter_apply_order=filter_apply_order
        )
    )


def top_k_top_p_sampling_from_probs(
    probs: Tensor,
    top_k: PerRow,
    top_p: PerRow,
    indices: Tensor | None = None,
    filter_apply_order: FilterOrder = "top_k_first",
    deterministic: bool = True,
    generator: torch.Generator | None = None,
    check_nan: bool = False,
    seed: int | None = None,
    offset: int | None = None,
) -> Tensor:
    """A token that both filters keep."""
    rows = _rows(probs, indices, check_nan)
    noise = _noise(rows, generator, seed, offset)
    return _tokens(
        flashinfer_probs.top_k_top_p_sampling_from_probs(
            rows, top_k, top_p, noise, filter_apply_order=filter_apply_order
        )
    )


def _rows(x: Tensor, indices: Tensor | None, check_nan: bool) -> Tensor:
    if check_nan and bool(x.isnan().any()):
        raise ValueError("input contains NaN")
    if indices is None:
        return x
    if indices.ndim != 1 or indices.is_floating_point():
        raise ValueError(f"indices: expected integers [rows], got {list(indices.shape)}")
    return x[indices.long().to(x.device)]


def fresh_seed(generator: torch.Generator | None) -> int:
    """Draws a seed from a generator, on whatever device that is, or from torch's default one."""
    device = "cpu" if generator is None else generator.device
    drawn = torch.randint(2**63 - 1, (1,), generator=generator, dtype=torch.int64, device=device)
    return int(drawn)


def _noise(
    rows: Tensor, generator: torch.Generator | None, seed: int | None, offset: int | None
) -> Noise:
    """One seed a call, from `seed` and `offset` where they are given, else from the generator; rows
    stand at positions of their own."""
    if seed is None:
        return Noise(seed=fresh_seed(generator))
    start = 0 if offset is None else int(offset)
    return Noise(seed=int(seed), positions=range(start, start + len(rows)))


def _tokens(output: SampleOutput) -> Tensor:
    return output.tokens.to(torch.int32)
