"""Sparse autoencoders and transcoders that run: one class an activation, one encode, one decode.

Shapes: N rows, F features (d_sae), d_in and d_out widths.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from ...model.hooks.overrides import Override, OverrideRegistry
from ...precision.addresses import Site
from . import kernels
from .config import DictionaryConfig, DictionaryError
from .differentiable import Decode, Encode, Skip, needs_graph
from .encoder import Encoder
from .features import Features
from .formats import WRITERS
from .sites import ADDRESSES, site_of

Format = Literal["sae_lens", "sparsify", "circuit_tracer"]

MATRICES = ("W_enc", "W_dec", "W_skip")
"""The tensors that may be narrower than fp32."""


class Dictionary(nn.Module):
    """A trained dictionary of features.

    Matrices may be stored in bf16 or fp16; biases and thresholds are fp32, and so is all
    arithmetic. The parameters do not require gradients unless asked to; gradients flow to the
    input wherever it is part of a graph.

    Attributes:
        cfg: What it is made of.
        W_enc: [d_in, F].
        W_dec: [F, d_out].
        b_enc: [F]; of a gated SAE there are `b_gate`, `b_mag` and `r_mag` instead.
        b_dec: [d_out].
        threshold: [F], of JumpReLU architectures.
        W_skip: [d_out, d_in], of skip transcoders.
        encoder: Decides which features are active, in two steps: scores, then a selection.
        folder: Where it was loaded from; None for one that was not.
    """

    W_enc: nn.Parameter
    W_dec: nn.Parameter
    b_dec: nn.Parameter
    b_enc: nn.Parameter
    threshold: nn.Parameter
    b_gate: nn.Parameter
    b_mag: nn.Parameter
    r_mag: nn.Parameter
    W_skip: nn.Parameter

    def __init__(self, cfg: DictionaryConfig, tensors: dict[str, torch.Tensor]) -> None:
        """Takes the tensors that `cfg` lists. Raises DictionaryError for one that does not fit."""
        super().__init__()
        self.cfg = cfg
        self.folder: Path | None = None
        shapes = cfg.tensor_shapes()
        if missing := shapes.keys() - tensors.keys():
            raise DictionaryError(f"{cfg.architecture}: no tensor {min(missing)!r}")
        if extra := tensors.keys() - shapes.keys():
            raise DictionaryError(f"{cfg.architecture}: has no use for tensor {min(extra)!r}")
        for name, shape in shapes.items():
            x = tensors[name]
            if tuple(x.shape) != shape:
                raise DictionaryError(f"{name}: expected shape {list(shape)}, got {list(x.shape)}")
            if not x.is_floating_point() or not bool(torch.isfinite(x).all()):
                raise DictionaryError(f"{name} holds values that are no finite numbers")
            if name not in MATRICES or x.dtype not in (torch.bfloat16, torch.float16):
                x = x.float()
            setattr(self, name, nn.Parameter(x, requires_grad=False))
        self._overrides = OverrideRegistry(list(ADDRESSES))
        self.encoder = Encoder(self, self._overrides)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the matrices."""
        return self.W_enc.dtype

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Moves the module; biases and thresholds stay fp32 whatever the matrices become."""
        small = {n: p.data for n, p in self.named_parameters() if n not in MATRICES}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, before in small.items():
            parameter = getattr(self, name)
            if parameter.dtype != torch.float32:
                parameter.data = before.to(parameter.device)
        return self

    def encoded_by(self) -> list[nn.Parameter]:
        """Returns the parameters that `encode` depends on."""
        return self.encoder.parameters()

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the features' activations, fp32 [..., F], of rows x [..., d_in].

        Raises ValueError for rows of another width or that hold NaN.
        """
        if needs_graph(x, *self.parameters()):
            if self.cfg.normalize_activations != "none":
                raise ValueError(
                    "encode: no gradients flow through "
                    f"{self.cfg.normalize_activations}: call it under torch.no_grad()"
                )
            rows = x.reshape(-1, self.cfg.d_in)
            acts: torch.Tensor = Encode.apply(rows, self, *self.encoded_by())  # type: ignore[no-untyped-call]
            return acts.view(*x.shape[:-1], self.cfg.d_sae)
        return self.encode_sparse(x).dense()

    def encode_sparse(self, x: torch.Tensor) -> Features:
        """Returns the active features of rows x [..., d_in]; `.dense()` equals `encode`.

        Raises ValueError for rows of another width, on another device, or that hold NaN.
        """
        if x.shape[-1] != self.cfg.d_in:
            raise ValueError(
                f"encode: rows of {x.shape[-1]} values; this dictionary reads {self.cfg.hook_name} "
                f"with d_in = {self.cfg.d_in}"
            )
        if x.device != self.b_dec.device:
            raise ValueError(
                f"encode: rows on {x.device}, this dictionary is on {self.b_dec.device}: move it "
                "with to()"
            )
        rows = x.detach().reshape(-1, self.cfg.d_in).float()
        if bool(torch.isnan(rows).any()):
            raise ValueError("encode: the activations hold NaN")
        return self.encoder(rows, (*x.shape[:-1], self.cfg.d_sae))

    def pre_activations(self, x: torch.Tensor) -> torch.Tensor:
        """Returns what 0, a threshold or the k-th largest is compared with, fp32 [..., F].

        Raises ValueError for a gated SAE, which compares two products.
        """
        if self.cfg.architecture == "gated":
            raise ValueError("pre_activations: a gated SAE has two of them, gate and magnitude")
        rows = x.detach().reshape(-1, self.cfg.d_in).float()
        pre = self.encoder.pre_activations(self.encoder.centred(rows))
        return pre.view(*x.shape[:-1], self.cfg.d_sae)

    def decode(self, acts: torch.Tensor | Features, x: torch.Tensor | None = None) -> torch.Tensor:
        """Returns the reconstruction, fp32 [..., d_out].

        Args:
            acts: Dense [..., F], or the Features of `encode_sparse`.
            x: The rows that were encoded: a skip transcoder adds a map of them, and a dictionary
                that normalises rows has to undo it.

        Raises:
            ValueError: acts of another width, or a dictionary of these kinds without `x`.
        """
        if self.cfg.decodes_with_input and x is None:
            kind = "a skip transcoder" if self.cfg.has_skip else "a dictionary of normalised rows"
            raise ValueError(f"decode: {kind} needs x, the rows that were encoded")
        width = acts.shape[-1]
        if width != self.cfg.d_sae:
            raise ValueError(f"decode: {width} features; this dictionary has {self.cfg.d_sae}")
        if isinstance(acts, torch.Tensor) and needs_graph(acts, *self.parameters()):
            if self.cfg.rescale_acts_by_decoder_norm and self.W_dec.requires_grad:
                raise ValueError("rescale_acts_by_decoder_norm: W_dec gets no gradient here")
            rows = acts.reshape(-1, self.cfg.d_sae)
            table = self.decoder_rows() if self.cfg.rescale_acts_by_decoder_norm else self.W_dec
            y: torch.Tensor = Decode.apply(rows, table, self.b_dec)  # type: ignore[no-untyped-call]
            y = y.view(*acts.shape[:-1], self.cfg.d_out)
        else:
            features = acts if isinstance(acts, Features) else Features.from_dense(acts.detach())
            override = self._overrides.installed.get("decode")
            y = self._sums(features) if override is None else override(self._sums, features)
            y = y.view(*features.shape[:-1], self.cfg.d_out)
        if x is None or not self.cfg.decodes_with_input:
            return y
        if self.cfg.has_skip:
            return y + self._skip(x)
        scaling = self.encoder.row_scaling(x.detach().reshape(-1, self.cfg.d_in).float())
        return scaling.undone(y.view(-1, self.cfg.d_out)).view(y.shape)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns `decode(encode(x))`."""
        if needs_graph(x, *self.parameters()):
            return self.decode(self.encode(x), x)
        return self.decode(self.encode_sparse(x), x)

    def save_model(self, path: str | Path, format: Format = "sae_lens") -> None:
        """Writes a folder that `load_dictionary` and the format's own library read.

        "circuit_tracer" adds a transcoder's layer to the set in the folder; sparsify takes the hook
        from the folder's name.

        Raises ValueError for a format that is none or cannot hold this dictionary, and OSError
        where it cannot be written.
        """
        if format not in WRITERS:
            raise ValueError(f"format = {format!r}: expected one of {', '.join(WRITERS)}")
        WRITERS[format](self.cfg, dict(self.named_parameters()), Path(path))

    @property
    def op_addresses(self) -> list[str]:
        """The operations that have an address: "encode" and "decode"."""
        return list(self._overrides.addresses)

    def override(self, address: str, fn: Override, /) -> AbstractContextManager[None]:
        """Calls fn(original, *args) in place of an operation in a `with` block, also where the
        dictionary is spliced into a model. See `Addressable.override`; gradients pass it by."""
        return self._overrides.added(address, fn)

    def site(self, address: str, /) -> Site:
        """Returns an operation in terms of its contract; see `Addressable.site`."""
        self._overrides.check(address)
        return site_of(self, address)

    def _sums(self, features: Features) -> torch.Tensor:
        return kernels.weighted_sums(
            features.values, features.indices, features.indptr, self.decoder_rows(), self.b_dec
        )

    def decoder_rows(self) -> torch.Tensor:
        """Returns what active features add, fp32 [F, d_out]: W_dec, its rows of norm 1 where
        activations are rescaled by their norms."""
        table = self.encoder.widened(self.W_dec)
        if self.cfg.rescale_acts_by_decoder_norm:
            table = table.clone()
            kernels.unit_rows_(table)
        return table

    def _skip(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.reshape(-1, self.cfg.d_in)
        if needs_graph(x, self.W_skip):
            y: torch.Tensor = Skip.apply(rows, self.W_skip)  # type: ignore[no-untyped-call]
        else:
            y = kernels.dense(rows.float(), self.encoder.widened(self.W_skip), None)
        return y.view(*x.shape[:-1], self.cfg.d_out)

    def extra_repr(self) -> str:
        c = self.cfg
        where = c.hook_name if not c.is_transcoder else f"{c.hook_name} -> {c.hook_name_out}"
        k = "" if c.k is None else f", k={c.k}"
        return f"{c.architecture}, d_in={c.d_in}, d_sae={c.d_sae}{k}, {where}"
