"""Transcoders of a model's layers under one interface: per-layer sets and cross-layer ones.

Shapes: T rows, F features of a layer, n of them, d d_model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ...model.transformer import HookedTransformer
from ..dictionaries import (
    CrossLayerTranscoder,
    Dictionary,
    DictionaryError,
    Features,
    check_fits,
    kernels,
)

READS = ("hook_mlp_in", "hook_resid_mid", "ln2.hook_normalized", "mlp.hook_in")
"""Hooks of a block that features may read: linear in the residual stream, its norm frozen."""

WRITES = ("hook_mlp_out", "mlp.hook_out")
"""Hooks of a block that features may write."""

Transcoders = Dictionary | Sequence[Dictionary] | Mapping[str, Dictionary] | CrossLayerTranscoder


class LayerTranscoders(ABC):
    """Features that stand for MLPs.

    Attributes:
        n_layers: Layers of the model.
        layers: Those of them that have features, ascending.
        reads: What features of a layer read, by layer, as one of `READS`.
        writes: What is predicted in a layer, as one of `WRITES`.
        name: What graphs call them.
        metadata: What their files say of them.
    """

    n_layers: int
    layers: tuple[int, ...]
    reads: dict[int, str]
    writes: dict[int, str]
    name: str
    metadata: Mapping[str, Any]

    def read_hook(self, layer: int) -> str:
        """Returns the full name of the hook that features of a layer read."""
        return f"blocks.{layer}.{self.reads[layer]}"

    def write_hook(self, layer: int) -> str:
        """Returns the full name of the hook that is predicted in a layer."""
        return f"blocks.{layer}.{self.writes.get(layer, WRITES[0])}"

    @abstractmethod
    def encode(self, layer: int, x_Td: torch.Tensor) -> Features:
        """Returns the active features of rows of what the layer reads."""

    @abstractmethod
    def decode(
        self, layer: int, features: Mapping[int, Features], x_Td: torch.Tensor | None
    ) -> torch.Tensor:
        """Returns what features of this layer and those before predict in it, fp32 [T, d].

        `x_Td` is what the layer's features read, which skip transcoders need.
        """

    @abstractmethod
    def encoder(self, layer: int, features: torch.Tensor) -> torch.Tensor:
        """Returns the directions that features read, fp32 [n, d]."""

    @abstractmethod
    def encoder_bias(self, layer: int, features: torch.Tensor) -> torch.Tensor:
        """Returns what is added to their products, fp32 [n]."""

    @abstractmethod
    def sources(self, layer: int) -> Sequence[int]:
        """Returns the layers whose features write to this one."""

    @abstractmethod
    def decoder(
        self, source: int, layer: int, features: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns a table [R, d] and the rows of it, int32 [n], that features of `source` write to
        `layer`."""

    @abstractmethod
    def b_dec(self, layer: int) -> torch.Tensor | None:
        """Returns what is added to the prediction of a layer, fp32 [d]; None without one."""

    def skip(self, layer: int) -> torch.Tensor | None:
        """Returns the linear map [d, d] beside the features, W_skip; None without one."""
        return None

    @abstractmethod
    def check(self, layer: int, feature: int) -> None:
        """Raises ValueError for a feature that there is not."""


class PerLayer(LayerTranscoders):
    """One transcoder a layer, in all of a model's layers or some."""

    def __init__(self, dictionaries: Sequence[Dictionary], model: HookedTransformer) -> None:
        """Raises DictionaryError for one that is no transcoder of an MLP of this model."""
        if not dictionaries:
            raise DictionaryError("trace: no dictionaries")
        self.n_layers = model.config.n_layers
        self._by_layer: dict[int, Dictionary] = {}
        self.reads, self.writes = {}, {}
        for each in dictionaries:
            layer, read, write = _places(each, model)
            if layer in self._by_layer:
                raise DictionaryError(f"two transcoders write {each.cfg.hook_name_out}: give one")
            check_fits(each, model)
            self._by_layer[layer] = each
            self.reads[layer], self.writes[layer] = read, write
        self.layers = tuple(sorted(self._by_layer))
        self.metadata = dictionaries[0].cfg.metadata
        self.name = str(self.metadata.get("release", "per-layer transcoders"))

    def encode(self, layer: int, x_Td: torch.Tensor) -> Features:
        return self._by_layer[layer].encode_sparse(x_Td)

    def decode(
        self, layer: int, features: Mapping[int, Features], x_Td: torch.Tensor | None
    ) -> torch.Tensor:
        return self._by_layer[layer].decode(features[layer], x_Td)

    def encoder(self, layer: int, features: torch.Tensor) -> torch.Tensor:
        return self._by_layer[layer].W_enc.detach()[:, features].T.float().contiguous()

    def encoder_bias(self, layer: int, features: torch.Tensor) -> torch.Tensor:
        d = self._by_layer[layer]
        bias = d.b_enc.detach()[features].float()
        if d.cfg.apply_b_dec_to_input:
            bias = bias - (self.encoder(layer, features) @ d.b_dec.detach()).float()
        return bias

    def sources(self, layer: int) -> Sequence[int]:
        return (layer,) if layer in self._by_layer else ()

    def decoder(
        self, source: int, layer: int, features: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return self._by_layer[source].W_dec.detach().float(), features.to(torch.int32)

    def b_dec(self, layer: int) -> torch.Tensor | None:
        d = self._by_layer.get(layer)
        return None if d is None else d.b_dec.detach().float()

    def skip(self, layer: int) -> torch.Tensor | None:
        d = self._by_layer.get(layer)
        return d.W_skip.detach().float() if d is not None and d.cfg.has_skip else None

    def check(self, layer: int, feature: int) -> None:
        _check_feature(layer, feature, self._by_layer[layer].cfg.d_sae)


class CrossLayer(LayerTranscoders):
    """A cross-layer transcoder."""

    def __init__(self, transcoder: CrossLayerTranscoder, model: HookedTransformer) -> None:
        """Raises DictionaryError for a transcoder of another model."""
        cfg = transcoder.cfg
        found = model.config.n_layers, model.config.d_model
        if (cfg.n_layers, cfg.d_model) != found:
            raise DictionaryError(
                f"the cross-layer transcoder has {cfg.n_layers} layers of width {cfg.d_model}; "
                f"{model.name} has {found[0]} of {found[1]}"
            )
        for hook, known in ((cfg.feature_input_hook, READS), (cfg.feature_output_hook, WRITES)):
            if hook not in known:
                raise DictionaryError(f"hook {hook!r}: a graph needs one of {', '.join(known)}")
        expected = cfg.metadata.get("model_fingerprint")
        if expected is not None and expected != model.fingerprint():
            raise DictionaryError(
                f"the cross-layer transcoder was trained on a model with fingerprint "
                f"{str(expected)[:12]}...; {model.name} has {model.fingerprint()[:12]}..."
            )
        self._clt = transcoder
        self.n_layers = cfg.n_layers
        self.layers = tuple(range(cfg.n_layers))
        self.reads = dict.fromkeys(self.layers, cfg.feature_input_hook)
        self.writes = dict.fromkeys(self.layers, cfg.feature_output_hook)
        self.metadata = cfg.metadata
        self.name = str(cfg.metadata.get("release", "cross-layer transcoder"))
        reach = (cfg.metadata.get("training") or {}).get("max_reach")
        self._reach = reach if isinstance(reach, int) else cfg.n_layers

    def encode(self, layer: int, x_Td: torch.Tensor) -> Features:
        return self._clt.encode(x_Td, layer)

    def decode(
        self, layer: int, features: Mapping[int, Features], x_Td: torch.Tensor | None
    ) -> torch.Tensor:
        return self._clt.decode([features[i] for i in range(layer + 1)], layer)

    def encoder(self, layer: int, features: torch.Tensor) -> torch.Tensor:
        return self._tensor(f"W_enc_{layer}")[features].float()

    def encoder_bias(self, layer: int, features: torch.Tensor) -> torch.Tensor:
        return self._tensor(f"b_enc_{layer}")[features].float()

    def sources(self, layer: int) -> Sequence[int]:
        return range(max(0, layer - self._reach + 1), layer + 1)

    def decoder(
        self, source: int, layer: int, features: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        W_dec = self._tensor(f"W_dec_{source}").float()
        rows = features * W_dec.shape[1] + (layer - source)
        return W_dec.flatten(0, 1), rows.to(torch.int32)

    def b_dec(self, layer: int) -> torch.Tensor | None:
        return self._tensor(f"b_dec_{layer}").float()

    def check(self, layer: int, feature: int) -> None:
        _check_feature(layer, feature, self._clt.cfg.d_sae)

    def _tensor(self, name: str) -> torch.Tensor:
        parameter: torch.Tensor = getattr(self._clt, name)
        return parameter.detach()


def layer_transcoders(transcoders: Transcoders, model: HookedTransformer) -> LayerTranscoders:
    """Returns what stands for a model's MLPs.

    Raises DictionaryError for dictionaries that do not fit the model, or are no transcoders.
    """
    if isinstance(transcoders, CrossLayerTranscoder):
        return CrossLayer(transcoders, model)
    if isinstance(transcoders, Dictionary):
        return PerLayer([transcoders], model)
    if isinstance(transcoders, Mapping):
        return PerLayer(list(transcoders.values()), model)
    return PerLayer(list(transcoders), model)


def weighted_decoders(
    transcoders: LayerTranscoders,
    source: int,
    layer: int,
    features: torch.Tensor,
    values: torch.Tensor,
    positions: torch.Tensor,
    n_rows: int,
) -> torch.Tensor:
    """Returns what features of `source`, sorted by position, with these values add to `layer`,
    fp32 [T, d], by ascending entry."""
    table, rows = transcoders.decoder(source, layer, features)
    starts = torch.searchsorted(positions, torch.arange(n_rows + 1, device="cpu"))
    return kernels.weighted_sums(values, rows, starts, table)


def _places(dictionary: Dictionary, model: HookedTransformer) -> tuple[int, str, str]:
    """Layer, read and written hook of a transcoder."""
    if not isinstance(dictionary, Dictionary):
        raise DictionaryError(f"trace: expected dictionaries, got {type(dictionary).__name__}")
    cfg = dictionary.cfg
    if not cfg.is_transcoder:
        raise DictionaryError(
            f"the dictionary of {cfg.hook_name} is a sparse autoencoder: it reads what it writes, "
            "so nothing leads into its features; a graph needs transcoders "
            "(`bitlens clt train`), which read before an MLP and write after it"
        )
    if cfg.rescale_acts_by_decoder_norm:
        raise DictionaryError(
            f"{cfg.hook_name}: rescale_acts_by_decoder_norm is not traced; fold the norms into the "
            "encoder first"
        )
    parts = cfg.hook_name.split(".", 2), cfg.hook_name_out.split(".", 2)
    (read, write) = parts
    if read[0] != "blocks" or read[1] != write[1] or read[2] not in READS or write[2] not in WRITES:
        raise DictionaryError(
            f"the transcoder reads {cfg.hook_name} and writes {cfg.hook_name_out}; a graph needs "
            f"one of {', '.join(READS)} and one of {', '.join(WRITES)} of the same block"
        )
    if cfg.hook_name not in model.hook_dict:
        raise DictionaryError(f"the dictionary's hook {cfg.hook_name} is none of {model.name}'s")
    return int(read[1]), read[2], write[2]


def _check_feature(layer: int, feature: int, d_sae: int) -> None:
    if not 0 <= feature < d_sae:
        raise ValueError(f"layer {layer} has {d_sae} features, 0 to {d_sae - 1}; not {feature}")
