"""The definition of a dictionary as data, under SAELens's names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ARCHITECTURES = (
    "standard",
    "topk",
    "abstopk",
    "jumprelu",
    "gated",
    "transcoder",
    "skip_transcoder",
    "jumprelu_transcoder",
    "jumprelu_skip_transcoder",
    "topk_transcoder",
    "topk_skip_transcoder",
)
"""Those that can be read and run. BatchTopK and Matryoshka dictionaries are JumpReLU ones, once
they are trained."""

NORMALIZATIONS = ("none", "constant_norm_rescale", "layer_norm")
"""What can be done to every row before it is encoded, and undone after decoding: scaling it to a
norm of sqrt(d_in), or subtracting its mean and dividing by its deviation, both as SAELens does."""

_LARGEST = 1 << 26
_REFUSED = {
    "crosscoder": "crosscoders read several layers or models at once, which nothing here runs",
    "acausal_crosscoder": "crosscoders read several layers or models at once, which nothing here "
    "runs",
    "temporal": "temporal SAEs read earlier positions",
    "matching_pursuit": "matching-pursuit SAEs encode step by step",
    "batchtopk": "a BatchTopK dictionary is saved as jumprelu, with the threshold it learned",
    "matryoshka_batchtopk": "a Matryoshka dictionary is saved as jumprelu, with the threshold it "
    "learned",
    "cross_layer_transcoder": "a cross-layer transcoder is a folder of layers, not one dictionary",
}


class DictionaryError(ValueError):
    """A dictionary that is damaged, unsupported or of another model; names what and the way out."""


@dataclass(frozen=True, kw_only=True)
class DictionaryConfig:
    """Shape and options of a dictionary. Checked when made; raises DictionaryError.

    Attributes:
        architecture: One of `ARCHITECTURES`.
        d_in: Width of the hook it reads.
        d_sae: Number of features, F.
        d_out: Width of what it writes; `d_in` for an SAE.
        k: Features of a row, for the top-k architectures.
        hook_name: The hook it reads.
        hook_name_out: The hook it writes; an SAE's is `hook_name`.
        apply_b_dec_to_input: Whether b_dec is taken from the input before encoding.
        rescale_acts_by_decoder_norm: Whether top-k ranks pre-activations times the norm of their
            decoder row.
        normalize_activations: One of `NORMALIZATIONS`.
        metadata: What else SAELens keeps: model_name, context_size, prepend_bos, and ours,
            model_fingerprint among them.
    """

    architecture: str
    d_in: int
    d_sae: int
    d_out: int
    hook_name: str
    hook_name_out: str
    k: int | None = None
    apply_b_dec_to_input: bool = True
    rescale_acts_by_decoder_norm: bool = False
    normalize_activations: str = "none"
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.architecture in _REFUSED:
            raise DictionaryError(
                f"architecture {self.architecture!r} is not supported: "
                f"{_REFUSED[self.architecture]}"
            )
        if self.architecture not in ARCHITECTURES:
            raise DictionaryError(
                f"architecture {self.architecture!r}: expected one of {', '.join(ARCHITECTURES)}"
            )
        for name in ("d_in", "d_sae", "d_out"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _LARGEST:
                raise DictionaryError(f"{name} = {value!r}: expected an integer from 1 to 2^26")
        if self.selects_top_k:
            k = self.k
            if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= self.d_sae:
                raise DictionaryError(f"k = {k!r}: expected an integer from 1 to d_sae")
        if not self.is_transcoder and self.d_out != self.d_in:
            raise DictionaryError(f"an SAE writes where it reads, but d_out = {self.d_out}")
        if self.normalize_activations not in NORMALIZATIONS:
            raise DictionaryError(
                f"normalize_activations = {self.normalize_activations!r}: expected one of "
                f"{', '.join(NORMALIZATIONS)}"
            )
        if self.is_transcoder and self.normalize_activations != "none":
            raise DictionaryError("normalize_activations: a transcoder writes rows of another kind")
        if not self.hook_name:
            raise DictionaryError("hook_name is empty: a dictionary says which hook it reads")

    @property
    def selects_top_k(self) -> bool:
        """Whether the k largest pre-activations are the active features."""
        return self.architecture.startswith("topk") or self.is_signed

    @property
    def is_signed(self) -> bool:
        """Whether the k largest by magnitude are active, whatever their signs."""
        return self.architecture == "abstopk"

    @property
    def decodes_with_input(self) -> bool:
        """Whether decoding needs the rows that were encoded."""
        return self.has_skip or self.normalize_activations != "none"

    @property
    def has_threshold(self) -> bool:
        """Whether a feature is active above a threshold of its own."""
        return self.architecture.startswith("jumprelu")

    @property
    def is_transcoder(self) -> bool:
        """Whether it predicts another hook than the one it reads."""
        return self.architecture.endswith("transcoder")

    @property
    def has_skip(self) -> bool:
        """Whether it adds a linear map of its input."""
        return self.architecture.endswith("skip_transcoder")

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Returns the tensors of this architecture and their shapes."""
        d_in, d_sae, d_out = self.d_in, self.d_sae, self.d_out
        shapes: dict[str, tuple[int, ...]] = {
            "W_enc": (d_in, d_sae),
            "W_dec": (d_sae, d_out),
            "b_dec": (d_out,),
        }
        if self.architecture == "gated":
            shapes |= dict.fromkeys(("b_gate", "b_mag", "r_mag"), (d_sae,))
        else:
            shapes["b_enc"] = (d_sae,)
        if self.has_threshold:
            shapes["threshold"] = (d_sae,)
        if self.has_skip:
            shapes["W_skip"] = (d_out, d_in)
        return shapes

    def n_parameters(self) -> int:
        """Returns the number of weights."""
        return sum(math.prod(shape) for shape in self.tensor_shapes().values())
