"""Cross-layer transcoders (Ameisen et al., 2025, Circuit Tracing): features read one layer and
write to it and every later one.

Files are circuit-tracer's: config.yaml, and for each layer i `W_enc_i.safetensors` (`W_enc_i`
[F, d], `b_enc_i`, `b_dec_i`, and `threshold_i` for JumpReLU) and `W_dec_i.safetensors` (`W_dec_i`
[F, L - i, d]). Shapes: L layers, F features of a layer, d d_model, N rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...model.weights.atomic import write_json, write_tensors
from . import kernels
from .config import DictionaryError
from .features import Features
from .formats.circuit_tracer import CONFIG
from .formats.circuit_tracer import CROSS_LAYER as _KIND
from .formats.flat_yaml import read_flat_yaml
from .formats.reading import read_tensors


@dataclass(frozen=True, kw_only=True)
class CrossLayerConfig:
    """Shape and options of a cross-layer transcoder.

    Attributes:
        activation: "relu", "jumprelu" or "topk".
        k: Active features of a layer and row, for "topk".
        feature_input_hook: What each layer reads, such as "hook_mlp_in", without the block.
        feature_output_hook: What it predicts, such as "hook_mlp_out".
    """

    n_layers: int
    d_model: int
    d_sae: int
    activation: str = "jumprelu"
    k: int | None = None
    feature_input_hook: str = "hook_mlp_in"
    feature_output_hook: str = "hook_mlp_out"
    model_name: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("n_layers", "d_model", "d_sae"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise DictionaryError(f"{name} = {value!r}: expected a positive integer")
        if self.activation not in ("relu", "jumprelu", "topk"):
            raise DictionaryError(
                f"activation = {self.activation!r}: expected 'relu', 'jumprelu' or 'topk'"
            )
        for name in ("feature_input_hook", "feature_output_hook", "model_name"):
            if not isinstance(getattr(self, name), str):
                raise DictionaryError(f"{name} = {getattr(self, name)!r}: expected a name")
        if self.activation == "topk" and not (
            isinstance(self.k, int) and 1 <= self.k <= self.d_sae
        ):
            raise DictionaryError(f"k = {self.k!r}: expected an integer from 1 to d_sae")

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Returns the tensors and their shapes."""
        shapes: dict[str, tuple[int, ...]] = {}
        for i in range(self.n_layers):
            shapes[f"W_enc_{i}"] = (self.d_sae, self.d_model)
            shapes[f"b_enc_{i}"] = (self.d_sae,)
            shapes[f"b_dec_{i}"] = (self.d_model,)
            if self.activation == "jumprelu":
                shapes[f"threshold_{i}"] = (self.d_sae,)
            shapes[f"W_dec_{i}"] = (self.d_sae, self.n_layers - i, self.d_model)
        return shapes


class CrossLayerTranscoder(nn.Module):
    """A cross-layer transcoder that runs; its tensors are parameters under their files' names."""

    def __init__(self, cfg: CrossLayerConfig, tensors: Mapping[str, torch.Tensor]) -> None:
        """Takes the tensors that `cfg` lists. Raises DictionaryError for one that does not fit."""
        super().__init__()
        self.cfg = cfg
        for name, shape in cfg.tensor_shapes().items():
            x = tensors.get(name)
            if x is None or tuple(x.shape) != shape:
                found = "nothing" if x is None else list(x.shape)
                raise DictionaryError(f"{name}: expected shape {list(shape)}, got {found}")
            if not x.is_floating_point() or not bool(torch.isfinite(x).all()):
                raise DictionaryError(f"{name} holds values that are no finite numbers")
            if name.startswith("threshold_") and not bool((x >= 0).all()):
                raise DictionaryError(f"{name} is below 0, which would let negative features be")
            narrow = name.startswith("W_") and x.dtype in (torch.bfloat16, torch.float16)
            self.register_parameter(
                name, nn.Parameter(x if narrow else x.float(), requires_grad=False)
            )

    def encode(self, x: torch.Tensor, layer: int) -> Features:
        """Returns the active features of a layer, for what it reads, x [..., d].

        Raises ValueError for rows of another width or that hold NaN, and IndexError for a layer
        that there is not.
        """
        self._check(layer)
        if x.shape[-1] != self.cfg.d_model:
            raise ValueError(f"encode: rows of {x.shape[-1]} values, not {self.cfg.d_model}")
        rows = x.detach().reshape(-1, self.cfg.d_model).float()
        if bool(torch.isnan(rows).any()):
            raise ValueError("encode: the activations hold NaN")
        pre = kernels.dense(rows, self._float(f"W_enc_{layer}"), self._float(f"b_enc_{layer}"))
        shape = (*x.shape[:-1], self.cfg.d_sae)
        if self.cfg.activation == "topk":
            assert self.cfg.k is not None
            return Features.from_top_k(kernels.top_k(pre, self.cfg.k), shape)
        jump = self.cfg.activation == "jumprelu"
        above = pre > (self._float(f"threshold_{layer}").clamp(min=0) if jump else 0)
        return Features.from_dense(pre.where(above, 0.0)).reshaped(shape)

    def decode(self, features: Sequence[Features], layer: int) -> torch.Tensor:
        """Returns the prediction of what a layer writes, fp32 [..., d].

        The sums over features of layers 0 to `layer`, `features` in this order, are added in this
        order, and b_dec last.

        Raises ValueError for fewer layers of features than that.
        """
        self._check(layer)
        if len(features) <= layer:
            raise ValueError(f"decode: layer {layer} needs the features of {layer + 1} layers")
        total: torch.Tensor | None = None
        for source in range(layer + 1):
            table = self._float(f"W_dec_{source}")[:, layer - source].contiguous()
            f = features[source]
            part = kernels.weighted_sums(f.values, f.indices, f.indptr, table)
            total = part if total is None else total + part
        assert total is not None
        y = total + self._float(f"b_dec_{layer}")
        return y.view(*features[0].shape[:-1], self.cfg.d_model)

    def save_model(self, path: str | Path) -> None:
        """Writes circuit-tracer's folder. Raises OSError where it cannot be written."""
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: p.detach().contiguous() for name, p in self.named_parameters()}
        for i in range(self.cfg.n_layers):
            small = {n: tensors[n] for n in _with_encoder(i) if n in tensors}
            write_tensors(folder / f"W_enc_{i}.safetensors", small)
            write_tensors(folder / f"W_dec_{i}.safetensors", {f"W_dec_{i}": tensors[f"W_dec_{i}"]})
        cfg = self.cfg
        # JSON is YAML, too.
        write_json(
            folder / CONFIG,
            {
                "model_name": cfg.model_name,
                "model_kind": _KIND,
                "feature_input_hook": cfg.feature_input_hook,
                "feature_output_hook": cfg.feature_output_hook,
                "activation": cfg.activation,
                "k": cfg.k,
                "bitlens": dict(cfg.metadata),
            },
        )

    def _check(self, layer: int) -> None:
        if not 0 <= layer < self.cfg.n_layers:
            raise IndexError(f"layer {layer} of {self.cfg.n_layers}")

    def _float(self, name: str) -> torch.Tensor:
        parameter: torch.Tensor = getattr(self, name)
        return parameter.detach().float()


def load_cross_layer(path: str | Path) -> CrossLayerTranscoder:
    """Reads a folder of circuit-tracer, as `CrossLayerTranscoder.save_model` writes it, too.

    Raises FileNotFoundError for one without config.yaml, and DictionaryError for one that is
    damaged or lacks a layer.
    """
    folder = Path(path)
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(f"{folder}: there is no {CONFIG}")
    found = read_flat_yaml(folder / CONFIG)
    if found.get("model_kind") != _KIND:
        raise DictionaryError(f"{folder / CONFIG}: model_kind is not {_KIND}")
    n_layers = 0
    tensors: dict[str, torch.Tensor] = {}
    while (folder / f"W_enc_{n_layers}.safetensors").is_file():
        for kind in ("enc", "dec"):
            tensors |= read_tensors(folder / f"W_{kind}_{n_layers}.safetensors")
        n_layers += 1
    first = tensors.get("W_enc_0")
    if first is None or first.ndim != 2:
        raise DictionaryError(f"{folder}: there is no W_enc_0 of two axes")
    d_sae, d_model = first.shape
    names = ("activation", "k", "feature_input_hook", "feature_output_hook", "model_name")
    values = {name: found[name] for name in names if found.get(name) is not None}
    values.setdefault("activation", "jumprelu" if "threshold_0" in tensors else "relu")
    metadata = found.get("bitlens")
    config = CrossLayerConfig(
        n_layers=n_layers,
        d_model=d_model,
        d_sae=d_sae,
        metadata=metadata if isinstance(metadata, dict) else {},
        **values,
    )
    if extra := tensors.keys() - config.tensor_shapes().keys():
        raise DictionaryError(f"{folder}: nothing here has a use for tensor {min(extra)!r}")
    return CrossLayerTranscoder(config, tensors)


def _with_encoder(i: int) -> tuple[str, ...]:
    return (f"W_enc_{i}", f"b_enc_{i}", f"b_dec_{i}", f"threshold_{i}")
