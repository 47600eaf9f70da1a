"""Bounds the movement of a dictionary's scores between two runs by that of its rows.

With s = W x + b, where x is the row as the encoder's product reads it (less b_dec, and normalised
where the dictionary does that), exact arithmetic moves the score of feature f by w_f . (x_b - x_a),
which |w_f| . |x_b - x_a| bounds whatever the signs are. Each run's kernels add what their contract
permits.

Shapes: N rows, F features, d width.
"""

from __future__ import annotations

import torch

from ...precision.arithmetic.growth import product_growth
from ...precision.contracts import bitlens_contract
from ...precision.head import contract_growth
from ..dictionaries import Dictionary, kernels

_U = 2.0**-24
_TINY = 2.0**-126
_UPWARDS = 1 + 2.0**-20  # more than the fp64 and fp32 arithmetic on bounds rounds away


class Movement:
    """The bound of one dictionary: called with the rows of both runs."""

    def __init__(self, dictionary: Dictionary) -> None:
        cfg = dictionary.cfg
        rows_Fd = dictionary.W_enc.detach().float().T.contiguous()
        self._encoder = dictionary.encoder
        self._sizes_Fd = rows_Fd.abs()
        norms_F = torch.linalg.vector_norm(rows_Fd, dim=1, dtype=torch.float64)
        if cfg.architecture != "gated":
            norms_F = torch.hypot(norms_F, dictionary.b_enc.detach().double())
        self._norms_F = norms_F * _UPWARDS
        self._scale_F = torch.ones_like(norms_F)
        if cfg.rescale_acts_by_decoder_norm:
            self._scale_F = self._encoder.decoder_norms().double()
        # The bias is one more term; scaling the sum rounds once.
        growth = contract_growth(bitlens_contract("matmul", "fp32"), cfg.d_in + 1)
        self._relative = growth.relative + 2 * _U
        self._absolute = growth.absolute + 4 * _TINY

    def __call__(self, x_a: torch.Tensor, x_b: torch.Tensor) -> torch.Tensor:
        """Returns fp64 [N, F]: more than any score differs between rows x_a and x_b, fp32 [N, d],
        as the encoder computes both."""
        x_a, x_b = (self._encoder.centred(x) for x in (x_a, x_b))
        away_Nd = (x_b.double() - x_a.double()).abs()
        # Rounded to fp32 upwards; the product of sizes is then off by its growth alone.
        away_Nd = (away_Nd * _UPWARDS).float()
        d = away_Nd.shape[1]
        distance_NF = kernels.dense(away_Nd, self._sizes_Fd, None).double()
        distance_NF = distance_NF * (1 + product_growth(d + 3, _U)) + d * _TINY
        size_N1 = self._size(x_a) + self._size(x_b)
        kernels_NF = self._relative * size_N1 * self._norms_F + 2 * self._absolute
        moved_NF = (distance_NF + kernels_NF) * self._scale_F + 2 * self._absolute
        bound: torch.Tensor = moved_NF * _UPWARDS
        return bound

    def _size(self, rows: torch.Tensor) -> torch.Tensor:
        """The norm of a row with a one for the bias, rounded upwards, [N, 1]."""
        norm = torch.linalg.vector_norm(rows, dim=1, keepdim=True, dtype=torch.float64)
        return torch.hypot(norm, torch.ones_like(norm)) * _UPWARDS
