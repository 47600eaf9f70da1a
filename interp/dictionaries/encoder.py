"""Encoders: the features that are active, by architecture.

Shapes: N rows, F features, d width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import torch

from ...model.hooks.overrides import OverrideRegistry
from ...model.ops.packed import PackedWeight
from ...model.weights.checkpoint import DENSE_DTYPES
from . import kernels
from .config import DictionaryConfig
from .features import Features
from .row_scaling import RowScaling, row_scaling

T = TypeVar("T")

_ROWS_AT_A_TIME = 256

_FORMATS = {dtype: format for format, dtype in DENSE_DTYPES.items()}


class Weights(Protocol):
    """The weights of a dictionary, those that its architecture has."""

    cfg: DictionaryConfig
    W_enc: torch.nn.Parameter
    W_dec: torch.nn.Parameter
    b_dec: torch.nn.Parameter
    b_enc: torch.nn.Parameter
    threshold: torch.nn.Parameter
    b_gate: torch.nn.Parameter
    b_mag: torch.nn.Parameter
    r_mag: torch.nn.Parameter


class Encoder:
    """Encodes rows with a dictionary's weights, which it packs once and again when they change."""

    def __init__(self, dictionary: Weights, overrides: OverrideRegistry) -> None:
        self._dictionary = dictionary
        self._overrides = overrides
        self._kept: dict[str, tuple[tuple[int, int], Any]] = {}

    def parameters(self) -> list[torch.nn.Parameter]:
        """Returns the parameters that the encoding depends on."""
        names = ("W_enc", "b_enc", "b_gate", "b_mag", "r_mag", "b_dec", "threshold")
        return [getattr(self._dictionary, n) for n in names if hasattr(self._dictionary, n)]

    def __call__(self, rows: torch.Tensor, shape: tuple[int, ...]) -> Features:
        """Returns the active features of fp32 rows [N, d], as Features of this shape.

        They are those of `select(scores(rows))`, bit for bit; scores of all rows and features never
        are in memory at once.
        """
        d, cfg = self._dictionary, self._dictionary.cfg
        if self._takes_scores():
            parts = [
                self.select(self.scores(part), (len(part), cfg.d_sae))
                for part in torch.split(rows, _ROWS_AT_A_TIME)
            ]
            return Features.joined(parts, shape)
        weight, x = self._packed(), self.centred(rows)
        if cfg.selects_top_k:
            assert cfg.k is not None
            return Features.from_top_k(kernels.encode_top_k(x, weight, d.b_enc, cfg.k), shape)
        return Features(*kernels.encode_above(x, weight, d.b_enc, self.thresholds()), shape)

    def _takes_scores(self) -> bool:
        """Whether the product is needed as such: something is done to it, or in its place."""
        cfg = self._dictionary.cfg
        changed = cfg.architecture == "gated" or cfg.is_signed or cfg.rescale_acts_by_decoder_norm
        return changed or "encode" in self._overrides.installed

    def thresholds(self) -> torch.Tensor:
        """Returns what the scores of active features are strictly above, fp32 [F]."""
        d = self._dictionary
        if d.cfg.has_threshold:
            return d.threshold.detach().clamp(min=0)
        return torch.zeros(d.cfg.d_sae, dtype=torch.float32, device=d.b_dec.device)

    def scores(self, rows: torch.Tensor) -> torch.Tensor:
        """Returns what decides which features of fp32 rows [N, d] are active, fp32 [N, F]: their
        pre-activations, or the product that a gated SAE makes both gate and magnitude of."""
        x = self.centred(rows)
        gated = self._dictionary.cfg.architecture == "gated"
        return self._product(x, None) if gated else self.pre_activations(x)

    def select(self, scores: torch.Tensor, shape: tuple[int, ...]) -> Features:
        """Returns the features that are active by their scores, as Features of this shape."""
        cfg = self._dictionary.cfg
        if cfg.architecture == "gated":
            return Features.from_dense(self._gated(scores)).reshaped(shape)
        if cfg.selects_top_k:
            assert cfg.k is not None
            if cfg.is_signed:
                return Features.from_magnitudes(kernels.top_k(scores.abs(), cfg.k), scores, shape)
            return Features.from_top_k(kernels.top_k(scores, cfg.k), shape)
        active = scores > self.thresholds()
        return Features.from_dense(scores.where(active, 0.0)).reshaped(shape)

    def centred(self, rows: torch.Tensor) -> torch.Tensor:
        """Returns the rows that the encoder's product reads: normalised, and less b_dec."""
        d = self._dictionary
        if d.cfg.normalize_activations != "none":
            rows = self.row_scaling(rows).applied(rows)
        return rows - d.b_dec.detach() if d.cfg.apply_b_dec_to_input else rows

    def row_scaling(self, rows: torch.Tensor) -> RowScaling:
        """Returns how each row is normalised, by the kind that the dictionary has."""
        return row_scaling(self._dictionary.cfg.normalize_activations, rows)

    def pre_activations(self, x: torch.Tensor) -> torch.Tensor:
        """Returns what is compared with 0, a threshold or the k-th largest, fp32 [N, F]."""
        d = self._dictionary
        pre = self._product(x, d.b_enc.detach())
        if d.cfg.rescale_acts_by_decoder_norm:
            pre = pre * self.decoder_norms()
        return pre

    def decoder_norms(self) -> torch.Tensor:
        """Returns the norm of each feature's decoder row, fp32 [F]."""
        return kernels.sums_of_squares(self.widened(self._dictionary.W_dec)).sqrt()

    def widened(self, parameter: torch.nn.Parameter) -> torch.Tensor:
        """Returns a matrix in fp32, kept until it changes."""
        if parameter.dtype == torch.float32:
            return parameter.detach()
        return self._keep(f"fp32 {id(parameter)}", parameter, lambda: parameter.detach().float())

    def _gated(self, product: torch.Tensor) -> torch.Tensor:
        d = self._dictionary
        magnitude = product * kernels.exp(d.r_mag.detach()) + d.b_mag.detach()
        active = (product + d.b_gate.detach() > 0) & (magnitude > 0)
        return magnitude.where(active, 0.0)

    def _product(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        def product(x: torch.Tensor) -> torch.Tensor:
            return kernels.product(x, self._packed(), bias)

        override = self._overrides.installed.get("encode")
        found: torch.Tensor = product(x) if override is None else override(product, x)
        return found

    def _packed(self) -> PackedWeight:
        return self._keep("packed", self._dictionary.W_enc, self._pack)

    def _pack(self) -> PackedWeight:
        rows = self._dictionary.W_enc.detach().T
        return kernels.packed(rows, _FORMATS[rows.dtype])

    def _keep(self, kind: str, parameter: torch.nn.Parameter, make: Callable[[], T]) -> T:
        version = (parameter.data_ptr(), parameter._version)
        kept = self._kept.get(kind)
        if kept is None or kept[0] != version:
            kept = (version, make())
            self._kept[kind] = kept
        return kept[1]
