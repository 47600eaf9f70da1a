"""Draws the inputs of attention and soft caps; H heads, G key/value heads."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from hypothesis import strategies as st

from ...formats import Format
from ...strategies.attention import attention_inputs, attention_sinks
from ...strategies.drawing import (
    Drawing,
    Formats,
    inner_length,
    many_terms,
    operand_beside,
    span_within,
    unary_inputs,
)
from ...strategies.fills import Constant, Fill, Integers
from ...strategies.logits import masked_logits
from ...strategies.operands import KINDS, LISTED
from ...strategies.recipe import Recipe
from ...strategies.sums import stagnating_terms
from ...strategies.tensors import extreme_tensors


def _attention(draw: st.DrawFn, formats: Formats, kind: str, max_size: int) -> dict[str, Any]:
    fmt = formats.storage
    kv_heads = draw(st.integers(1, 2))
    heads = kv_heads * draw(st.integers(1, 2))
    if kind == "stagnating_sums":
        return _uniform_attention(draw, formats, max_size)
    # Keys pass a tile and values are drawn by the kind; queries are few, they are all alike.
    keys = inner_length(draw, kind, min(max_size, 257))
    queries = draw(st.integers(1, min(3, keys)))
    if kind == "more_queries_than_keys":
        keys = draw(st.integers(1, 2))
        queries = keys + draw(st.integers(1, 2))
    d_head = draw(st.sampled_from([1, 2, 16, 64]))
    if kind == "attention_sinks":
        recipes = draw(attention_sinks(heads, kv_heads, queries, keys, d_head, fmt))
    else:
        recipes = draw(attention_inputs(heads, kv_heads, queries, keys, d_head, fmt))
        kind = "random" if kind == "more_queries_than_keys" else kind
        recipes["v"] = draw(
            KINDS[kind]((kv_heads, keys, d_head), fmt, span_within((-3, 1), fmt, 60))
        )
        if kind == "extremes":
            name, shape = draw(st.sampled_from([("q", queries), ("k", keys)]))
            heads_of = heads if name == "q" else kv_heads
            recipes[name] = draw(extreme_tensors((heads_of, shape, d_head), fmt))
    options = draw(_attention_options(queries, keys, d_head))
    if queries > keys:
        options["past"] = keys - queries
    return dict(recipes) | options | draw(_score_options(heads, queries, keys, fmt, kind))


@st.composite
def _score_options(
    draw: st.DrawFn, heads: int, queries: int, keys: int, fmt: Format, kind: str
) -> dict[str, Any]:
    """What hides keys one by one, what is added to scores, and what rows without a key are."""
    shape = draw(st.sampled_from([(queries, keys), (heads, 1, keys), (1, queries, 1)]))
    fills: list[Fill] = [Constant(1.0), Integers(1, 1), Constant(0.0), Integers(2, 1)]
    fill = draw(st.sampled_from(fills))
    beside = "extremes" if kind in LISTED else kind
    bias = operand_beside(beside, shape, fmt, (-4, 1))
    if fmt.infinities and draw(st.booleans()):
        bias = masked_logits(shape, fmt) if shape[-1] > 2 else bias
    return {
        "mask": Recipe(shape, "int64", fill),
        "bias": draw(bias),
        "sinks": draw(operand_beside(beside, (heads,), fmt, (-4, 2))),
        "slopes": draw(operand_beside(beside, (heads,), fmt, (-6, -1))),
        "empty": draw(st.sampled_from(["zero", "mean"])),
    }


@st.composite
def _attention_options(draw: st.DrawFn, queries: int, keys: int, d_head: int) -> dict[str, Any]:
    """Scale, masks and soft cap, half of the time other than their defaults.

    Queries may stand before the last keys or behind them, where a window leaves some without any.
    """
    usual = float(d_head**-0.5)
    scale = draw(st.sampled_from([usual, usual, usual, 1.0, 0.3, -usual, 0.0]))
    options: dict[str, Any] = {"scale": scale, "causal": draw(st.booleans())}
    if options["causal"] and draw(st.booleans()):
        options["window"] = draw(st.sampled_from([1, keys]) | st.integers(1, keys))
    if draw(st.booleans()):
        options["past"] = draw(st.sampled_from([0, keys - queries, keys // 2, keys]))
    if draw(st.booleans()):
        options["cap"] = draw(st.sampled_from([0.5, 3.0, 30.0, 30000.0, 2.0**-6]))
    if draw(st.integers(0, 7)) == 7:  # the first query sees the last key, the next ones none
        options |= {"causal": True, "window": 1, "past": keys - 1}
    return options


def _uniform_attention(draw: st.DrawFn, formats: Formats, max_size: int) -> dict[str, Any]:
    """Zero queries: the output is the plain mean of the values."""
    fmt, d_head = formats.storage, 2
    # A power of two: the probabilities are exact, and so are their products.
    keys = 2 ** (many_terms(draw, max_size).bit_length() - 1)
    return {
        "q": Recipe((1, 1, d_head), fmt.name, Constant(0.0)),
        "k": Recipe((1, keys, d_head), fmt.name, Constant(1.0)),
        "v": stagnating_terms((1, keys, d_head), 1, fmt, formats.accumulate),
        "scale": 0.5,
        "causal": False,
    }


def _soft_cap(draw: st.DrawFn, formats: Formats, kind: str, max_size: int) -> dict[str, Any]:
    return unary_inputs(draw, formats, kind, max_size) | {
        "cap": draw(st.sampled_from([1.0, 20.3, 50.0, 2.0**-10, 30000.0]))
    }


def _without(recipes: dict[str, Any], dropped: set[str]) -> dict[str, Any]:
    """A window goes with the causal mask that it needs."""
    unwanted = {"window"} if "causal" in dropped else set()
    return {name: value for name, value in recipes.items() if name not in unwanted}


def _kinds_with(names: list[str], arguments: Collection[str]) -> list[str]:
    """More queries than keys leave some without any, which takes a convention."""
    needs = {"empty", "past"} <= set(arguments)
    return [name for name in names if needs or name != "more_queries_than_keys"]


DRAWINGS = {
    "attention": Drawing(
        _attention,
        ("attention_sinks", "stagnating_sums", "more_queries_than_keys"),
        kinds_with=_kinds_with,
        without=_without,
        sometimes=("mask", "bias", "sinks", "slopes", "empty"),
    ),
    "soft_cap": Drawing(_soft_cap),
}
