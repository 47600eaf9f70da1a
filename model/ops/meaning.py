"""The meaning of operations by a config, for comparison with others (precision/meaning)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ...precision.meaning import Quantities, Quantity
from ..config import LayerConfig, ModelConfig
from ..hooks.overrides import op_addresses
from ..rope.scaling import rotary_frequencies
from .sites import operation_at

U32 = 2.0**-24
BASE_ERROR = 2.0**-18
"""How far that moves the base they give: by d_head / (d_head - 2) as much, for bases up to 1e9."""

SCALED_FREQUENCIES = 2.0**-13
"""How far fp32 moves a scaled frequency: the ramps of yarn and llama3 take 2000 roundings at most,
for factors up to 64 (docs/numerics.md)."""


@dataclass(frozen=True)
class ConfigQuantities:
    """A config alone as something that says what it derives."""

    config: ModelConfig

    def derived_quantities(self, tokens: torch.Tensor, /) -> Quantities:
        """See `precision.meaning.Derives`."""
        return config_quantities(self.config, tokens.shape[-1])


def config_quantities(config: ModelConfig, n_positions: int) -> Quantities:
    """Returns every quantity by name and address; for a pass over so many positions."""
    found: dict[str, dict[str, Quantity]] = {
        "embedding scale": {"embed": Quantity(config.embed_scale, 2 * U32)},
        "norm epsilon": {
            address: Quantity(config.eps, 2 * U32)
            for address in op_addresses(config)
            if operation_at(address) == "rms_norm"
        },
        "unembedding": {"unembed": Quantity(TIED if config.tie_embeddings else UNTIED)},
    }
    for i, layer in enumerate(config.layers):
        for name in ("rope_q", "rope_k"):
            rotary = rope_quantities(layer, config.d_head, n_positions)
            add(found, f"blocks.{i}.attn.{name}", rotary)
        add(found, f"blocks.{i}.attn.attention", attention_quantities(config, layer))
        add(found, f"blocks.{i}.mlp.act", {"activation": Quantity(config.act_fn)})
    return found


TIED, UNTIED = "the embedding's matrix", "a matrix of its own"


def add(
    found: dict[str, dict[str, Quantity]], address: str, quantities: dict[str, Quantity]
) -> None:
    """Puts quantities of one address among those of others."""
    for name, quantity in quantities.items():
        found.setdefault(name, {})[address] = quantity


def rope_quantities(layer: LayerConfig, d_head: int, n_positions: int) -> dict[str, Quantity]:
    """Returns the quantities of a layer's rotation; scaled frequencies have no base."""
    scaled = rotary_frequencies(layer.rope_theta, d_head, layer.rope_scaling, n_positions)
    found = {
        "positions": Quantity(positions_text(range(n_positions))),
        "RoPE attention factor": Quantity(scaled.attention_factor, 8 * U32),
    }
    off = SCALED_FREQUENCIES if layer.rope_scaling is not None else frequency_error(layer)
    found["RoPE frequencies"] = Quantity(scaled.inv_freq, off, unless="RoPE base")
    if layer.rope_scaling is None:
        found["RoPE base"] = Quantity(layer.rope_theta, BASE_ERROR)
    return found


def frequency_error(layer: LayerConfig) -> float:
    """Bounds fp32's relative error of frequency theta^(-2j / d_head): the rounding of its exponent
    by ln(theta) u, the power and the quotient by a few."""
    return (math.log(layer.rope_theta) + 8) * U32


def attention_quantities(config: ModelConfig, layer: LayerConfig) -> dict[str, Quantity]:
    """Returns the quantities of a layer's attention."""
    settings = config.attention_of(layer)
    return {
        "attention scale": Quantity(settings.scale, 4 * U32),
        "attention window": Quantity(settings.window),
        "attention soft cap": Quantity(settings.cap, 2 * U32),
        "attention mask": Quantity("causal"),
    }


def positions_text(positions: range | list[int]) -> str:
    """Such as "0 to 23", or the first of those that do not follow one another."""
    found = list(positions)
    if len(found) > 1 and found == list(range(found[0], found[0] + len(found))):
        return f"{found[0]} to {found[-1]}"
    return ", ".join(map(str, found[:8])) + (", ..." if len(found) > 8 else "")
