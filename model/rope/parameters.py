"""Hugging Face's `rope_parameters` (formerly `rope_scaling`) -> base and RopeScaling."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..config import LayerConfig, ModelConfig
from ..config_error import ConfigError
from .scaling import NTK, Dynamic, Linear, Llama3, LongRope, RopeScaling, Yarn

LAYER_TYPES = ("full_attention", "sliding_attention")

# A type ignores what belongs to another one, as in transformers; what no type knows is an error.
_KNOWN = frozenset(
    {
        "rope_type",
        "type",
        "rope_theta",
        "partial_rotary_factor",
        "factor",
        "original_max_position_embeddings",
        "attention_factor",
        "beta_fast",
        "beta_slow",
        "mscale",
        "mscale_all_dim",
        "truncate",
        "short_factor",
        "long_factor",
        "low_freq_factor",
        "high_freq_factor",
        "finetuned",
    }
)
_LARGEST_FACTOR = 1e6
_LARGEST_CONTEXT = 2**40
_SMALLEST_DIVISOR, _LARGEST_DIVISOR = 1e-3, 1e300
_LONGEST_SHOWN = 120


def scaling_from_huggingface(
    fields: Mapping[str, Any], where: str, n_ctx: int
) -> RopeScaling | None:
    """The scaling that one (not nested) dict asks for; None for type "default".

    Args:
        where: What to call the dict in messages.
        n_ctx: The model's `max_position_embeddings`.

    Raises:
        ConfigError: names the field, its value and what is supported.
    """
    if not isinstance(fields, Mapping):
        raise ConfigError(f"{where} = {fields!r}: expected an object")
    unknown = sorted(set(map(str, fields)) - _KNOWN)
    if unknown:
        raise ConfigError(f"{where}.{unknown[0]}: bitlens does not know this setting")
    if fields.get("partial_rotary_factor") not in (None, 1, 1.0):
        raise ConfigError(
            f"{where}.partial_rotary_factor: only full rotary embeddings are supported"
        )
    kind = fields.get("rope_type", fields.get("type", "default"))
    if kind == "default":
        return None
    if not isinstance(kind, str) or kind not in _READERS:
        raise ConfigError(
            f"{where} asks for RoPE scaling of type {kind!r}: supported are default, "
            f"{', '.join(_READERS)}"
        )
    return _READERS[kind](_Fields(fields, where, n_ctx))


def with_rope_scaling(config: ModelConfig, fields: Mapping[str, Any]) -> ModelConfig:
    """The config with this scaling in place of its own, its context stretched by the factor.

    A dict for all layers, or one for each of "full_attention" and "sliding_attention". Where
    sliding layers have a base of their own (Gemma 3), a dict for all is for the others, as in
    transformers.

    Raises:
        ConfigError: as `scaling_from_huggingface`.
    """
    if not isinstance(fields, Mapping):
        raise ConfigError(f"rope_scaling = {fields!r}: expected a dict")
    own_base = len({layer.rope_theta for layer in config.layers}) > 1
    nested = is_nested(fields)
    layers, n_ctx = [], config.n_ctx
    for layer in config.layers:
        kind = LAYER_TYPES[layer.window is not None]
        if nested and kind in fields:
            part, where = fields[kind], f"rope_scaling.{kind}"
        elif nested or (own_base and layer.window is not None):
            layers.append(layer)
            continue
        else:
            part, where = fields, "rope_scaling"
        layers.append(_rescaled(layer, part, where, config.n_ctx))
        if layers[-1].rope_scaling is not None:
            n_ctx = max(n_ctx, _Fields(part, where, config.n_ctx).reach())
    return dataclasses.replace(config, layers=tuple(layers), n_ctx=n_ctx)


def context_reached(n_ctx: int, layers: Sequence[LayerConfig], *, is_trained: bool) -> int:
    """The context of a checkpoint that says `n_ctx`.

    yarn's is the trained one times its factor. Files with the other types that have a factor name
    either context: the trained one where `is_trained`, which is then stretched, too.
    """
    reached = n_ctx
    for layer in layers:
        scaling = layer.rope_scaling
        if isinstance(scaling, Yarn):
            reached = max(reached, int(scaling.original_max_position_embeddings * scaling.factor))
        elif isinstance(scaling, Linear | NTK | Dynamic) and is_trained:
            reached = max(reached, int(n_ctx * scaling.factor))
    return reached


def is_nested(fields: Mapping[str, Any]) -> bool:
    """Whether parameters are given by layer type."""
    return any(kind in fields for kind in LAYER_TYPES)


def _rescaled(layer: LayerConfig, fields: Mapping[str, Any], where: str, n_ctx: int) -> LayerConfig:
    scaling = scaling_from_huggingface(fields, where, n_ctx)
    theta = layer.rope_theta
    if fields.get("rope_theta") is not None:
        theta = _Fields(fields, where, n_ctx).number("rope_theta", 1.0, 1e300)
    return dataclasses.replace(layer, rope_theta=theta, rope_scaling=scaling)


class _Fields:
    """One dict with checked access."""

    def __init__(self, fields: Mapping[str, Any], where: str, n_ctx: int) -> None:
        self._fields, self._where, self.n_ctx = fields, where, n_ctx

    def has(self, name: str) -> bool:
        return self._fields.get(name) is not None

    def number(self, name: str, least: float, most: float, default: float | None = None) -> float:
        value = self._fields.get(name)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.error(name, "a number")
        if not least <= value <= most:  # also where it is NaN
            raise self.error(name, f"{least:g} to {most:g}")
        return float(value)

    def factor(self) -> float:
        return self.number("factor", 1.0, _LARGEST_FACTOR)

    def trained(self) -> int:
        """`original_max_position_embeddings`: the model's own where it is left out."""
        value = self._fields.get("original_max_position_embeddings")
        value = self.n_ctx if value is None else value
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.error("original_max_position_embeddings", "an integer")
        if not 2 <= value <= _LARGEST_CONTEXT:
            raise self.error("original_max_position_embeddings", f"2 to {_LARGEST_CONTEXT}")
        return value

    def stretch(self) -> float:
        """`factor`, or where it is null the ratio of both contexts."""
        return self.factor() if self.has("factor") else self.n_ctx / self.trained()

    def reach(self) -> int:
        """The context that the scaling is for."""
        factor = self.factor() if self.has("factor") else 1.0
        return max(self.n_ctx, int(self.trained() * factor))

    def optional(self, name: str, least: float, most: float) -> float | None:
        return self.number(name, least, most) if self.has(name) else None

    def flag(self, name: str, default: bool) -> bool:
        value = self._fields.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.error(name, "true or false")
        return value

    def divisors(self, name: str) -> tuple[float, ...]:
        value = self._fields.get(name)
        if not isinstance(value, list | tuple) or not value:
            raise self.error(name, "a list of numbers")
        for x in value:
            if isinstance(x, bool) or not isinstance(x, (int, float)):
                raise self.error(name, "a list of numbers")
            if not _SMALLEST_DIVISOR <= x <= sys.float_info.max:  # JSON has longer integers
                raise self.error(name, f"finite numbers of at least {_SMALLEST_DIVISOR}")
        return tuple(map(float, value))

    def error(self, name: str, expected: str) -> ConfigError:
        shown = repr(self._fields.get(name))[:_LONGEST_SHOWN]
        return ConfigError(f"{self._where}.{name} = {shown}: expected {expected}")


def _yarn(fields: _Fields) -> Yarn:
    return Yarn(
        factor=fields.stretch(),
        original_max_position_embeddings=fields.trained(),
        attention_factor=fields.optional("attention_factor", 1e-6, 1e6),
        beta_fast=fields.number("beta_fast", 1e-6, 1e9, 32.0),
        beta_slow=fields.number("beta_slow", 1e-6, 1e9, 1.0),
        mscale=fields.optional("mscale", 0.0, 1e6),
        mscale_all_dim=fields.optional("mscale_all_dim", 0.0, 1e6),
        truncate=fields.flag("truncate", True),
    )


def _longrope(fields: _Fields) -> LongRope:
    short, long = fields.divisors("short_factor"), fields.divisors("long_factor")
    trained = fields.trained()
    if fields.has("attention_factor"):
        attention_factor = fields.number("attention_factor", 1e-6, 1e6)
    else:
        attention_factor = LongRope.default_attention_factor(fields.stretch(), trained)
    return LongRope(
        short_factor=short,
        # Where the context ends with the trained one the long list is never used.
        long_factor=long if fields.reach() > trained else short,
        original_max_position_embeddings=trained,
        attention_factor=attention_factor,
    )


def _llama3(fields: _Fields) -> Llama3:
    low = fields.number("low_freq_factor", 1e-6, 1e6)
    high = fields.number("high_freq_factor", 1e-6, 1e6)
    if not low < high:
        raise fields.error("high_freq_factor", f"more than low_freq_factor = {low}")
    return Llama3(
        factor=fields.factor(),
        low_freq_factor=low,
        high_freq_factor=high,
        original_max_position_embeddings=fields.trained(),
    )


_READERS: Mapping[str, Callable[[_Fields], RopeScaling]] = {
    "linear": lambda fields: Linear(factor=fields.factor()),
    "ntk": lambda fields: NTK(factor=fields.factor()),
    "dynamic": lambda fields: Dynamic(
        factor=fields.factor(), original_max_position_embeddings=fields.n_ctx
    ),
    "yarn": _yarn,
    "longrope": _longrope,
    "llama3": _llama3,
}


def huggingface_rope(layer: LayerConfig) -> dict[str, Any]:
    """`rope_parameters` by which transformers computes this layer's RoPE.

    Raises ConfigError for dynamic, whose trained context is a field of the model's config there.
    """
    scaling, theta = layer.rope_scaling, {"rope_theta": layer.rope_theta}
    if scaling is None:
        return {"rope_type": "default", **theta}
    if isinstance(scaling, Dynamic | NTK):
        raise ConfigError(
            f"RoPE scaling of type {scaling.rope_type!r}: no rope_parameters say it; keep the "
            "weights in safetensors, and load the source again with this rope_scaling"
        )
    fields = dataclasses.asdict(scaling)  # type: ignore[call-overload]
    lists = {name: list(x) for name, x in fields.items() if isinstance(x, tuple)}
    return {**theta, **{name: x for name, x in fields.items() if x is not None}, **lists}
