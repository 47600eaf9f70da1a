"""The model of a longer context, for a pool of its own."""

from __future__ import annotations

from typing import Literal

from ..config_error import ConfigError
from ..transformer import HookedTransformer

Stretch = Literal["yarn", "ntk"]
"""How a RoPE is stretched: by parts, with an attention factor, or by its base alone."""


def long_context(
    model: HookedTransformer, tokens: int, rope_type: Stretch = "yarn"
) -> HookedTransformer:
    """Returns the model with a context of at least so many tokens, over the same packed matrices.

    The factor of its RoPE scaling is whole: the context is a multiple of the model's own.

    Raises:
        ConfigError: a context that is no longer than the model's, a model whose RoPE is scaled
            already, or a type that is neither.
        ValueError: as `HookedTransformer.with_rope_scaling`.
    """
    own = model.config.n_ctx
    if tokens <= own:
        raise ConfigError(f"a long context of {tokens} tokens: the model's own has {own} already")
    scaled = [each.rope_scaling for each in model.config.layers if each.rope_scaling is not None]
    if scaled:
        raise ConfigError(
            f"the model's RoPE is scaled already ({scaled[0].rope_type}), and so is what it was "
            "trained for: load it with the rope_scaling that you want"
        )
    if rope_type not in ("yarn", "ntk"):
        raise ConfigError(f"rope_type = {rope_type!r}: expected 'yarn' or 'ntk'")
    factor = float(-(-tokens // own))
    return model.with_rope_scaling({"rope_type": rope_type, "factor": factor})
