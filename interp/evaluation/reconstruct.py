"""Rows and what a dictionary makes of them, in a bounded memory.

Shapes: N rows, F features, d width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from ..dictionaries import Dictionary, Features

_ACTIVATIONS_AT_A_TIME = 1 << 24


@dataclass(frozen=True, eq=False)
class Reconstructed:
    """Some rows.

    Attributes:
        features: Their active features.
        x: fp32 [N, d_out], what is to be reconstructed.
        x_hat: fp32 [N, d_out], the reconstruction.
        kept: Bool [N], False at outliers.
    """

    features: Features
    x: torch.Tensor
    x_hat: torch.Tensor
    kept: torch.Tensor


def hooks_of(dictionary: Dictionary) -> list[str]:
    """Returns the hook it reads, and the one it writes where that is another."""
    return list(dict.fromkeys((dictionary.cfg.hook_name, dictionary.cfg.hook_name_out)))


def reconstruct(
    dictionary: Dictionary, rows: Mapping[str, torch.Tensor], kept: torch.Tensor
) -> Iterator[Reconstructed]:
    """Yields the rows [N, d] of a batch, by hook, with their reconstructions, some at a time.

    At most 2^24 dense activations (64 MiB) are in memory at once, or those of one row.
    """
    cfg = dictionary.cfg
    read, written = rows[cfg.hook_name], rows[cfg.hook_name_out]
    step = max(1, _ACTIVATIONS_AT_A_TIME // cfg.d_sae)
    for at in range(0, len(read), step):
        source = read[at : at + step]
        features = dictionary.encode_sparse(source)
        x_hat = dictionary.decode(features, source if cfg.decodes_with_input else None)
        yield Reconstructed(features, written[at : at + step].float(), x_hat, kept[at : at + step])


def encode(
    dictionary: Dictionary, rows: Mapping[str, torch.Tensor], kept: torch.Tensor
) -> Iterator[tuple[Features, torch.Tensor]]:
    """Yields active features and `kept` as `reconstruct` does, without reconstructions."""
    source = rows[dictionary.cfg.hook_name]
    step = max(1, _ACTIVATIONS_AT_A_TIME // dictionary.cfg.d_sae)
    for at in range(0, len(source), step):
        yield dictionary.encode_sparse(source[at : at + step]), kept[at : at + step]
