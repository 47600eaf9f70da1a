"""Queries, keys and values of an attention in which one key takes nearly everything."""

from __future__ import annotations

from hypothesis import strategies as st

from ..formats import format_of
from .fills import Random
from .floats import FormatLike, float_values
from .recipe import Edit, Recipe
from .tensors import MAX_SEED, random_tensors


@st.composite
def attention_sinks(
    draw: st.DrawFn,
    heads: int,
    kv_heads: int,
    queries: int,
    keys: int,
    d_head: int,
    format: FormatLike = "fp32",
    *,
    score: int = 8,
) -> dict[str, Recipe]:
    """Recipes of q [heads, queries, d], k and v [kv_heads, keys, d] with a sink at key 0.

    The first channel of every query and of key 0 makes its score (at scale 1/sqrt(d)) about `score`
    above the rest, and its value is near zero: what trained models do with their first token (Xiao
    et al. 2023, "Efficient streaming language models with attention sinks"). The output is then
    made of the small probabilities.
    """
    fmt = format_of(format)
    q = draw(random_tensors((heads, queries, d_head), fmt, exponents=(-3, -1)))
    k = draw(random_tensors((kv_heads, keys, d_head), fmt, exponents=(-3, -1)))
    v = draw(random_tensors((kv_heads, keys, d_head), fmt, exponents=(-3, 1)))
    height = max(1, score.bit_length() - 1 + (d_head.bit_length() - 1) // 2)
    raised = float_values(
        fmt, min_exponent=height // 2, max_exponent=height // 2, zero=False, negative=False
    )
    pull, sink = draw(raised), draw(raised) * 2.0 ** (height - 2 * (height // 2))
    small = 2.0 ** draw(st.integers(max(-12, fmt.min_exponent), -6))
    return {
        "q": Recipe(q.shape, q.format, q.fill, (Edit((None, None, 0), pull),)),
        "k": Recipe(k.shape, k.format, k.fill, (Edit((None, 0, 0), sink),)),
        "v": Recipe(v.shape, v.format, v.fill, (Edit((None, 0, None), small),)),
    }


@st.composite
def attention_inputs(
    draw: st.DrawFn,
    heads: int,
    kv_heads: int,
    queries: int,
    keys: int,
    d_head: int,
    format: FormatLike = "fp32",
) -> dict[str, Recipe]:
    """Recipes of ordinary q, k, v."""
    fmt = format_of(format)
    shapes = {"q": (heads, queries, d_head), "k": (kv_heads, keys, d_head)}
    shapes["v"] = shapes["k"]
    spread = (-draw(st.integers(0, 3)), draw(st.integers(0, 1)))
    seed = draw(st.integers(0, MAX_SEED // 4))
    return {
        name: Recipe(shape, fmt.name, Random(4 * seed + i, None, spread))
        for i, (name, shape) in enumerate(shapes.items())
    }
