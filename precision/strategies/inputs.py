"""Inputs of a whole operation, drawn to suit its contract.

m rows, k inner length, n columns; H heads, G key/value heads, T queries, K keys, d head size.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from hypothesis import strategies as st

from ..contract import PrecisionContract
from ..formats import FORMATS, Format
from ..operations import OPERATIONS
from .attention import attention_inputs, attention_sinks
from .dot import DotFactor, shortest
from .drawn import DrawnInputs
from .fills import Constant, Listed
from .operands import KINDS, LISTED, LOGITS, Span, available
from .positions import long_rope_positions, tile_sizes
from .recipe import Recipe
from .sums import (
    near_zero_logsumexp,
    stagnating_exponentials,
    stagnating_norm,
    stagnating_terms,
    vanishing_probabilities,
)
from .tensors import MAX_SEED, exact_lattice, extreme_tensors, far_from_zero, random_tensors

_ROWS = st.sampled_from([1, 2, 3])

_OWN_KINDS = {
    "matmul": ["exact_lattice", "ill_conditioned_dot", "stagnating_sums"],
    "rms_norm": ["stagnating_sums", "small_numbers"],
    "layer_norm": ["small_numbers"],
    "softmax": ["stagnating_sums", "vanishing_probabilities"],
    "logsumexp": ["stagnating_sums", "near_zero_logsumexp"],
    "attention": ["attention_sinks", "stagnating_sums"],
    "rope": ["long_rope_positions", "scattered_positions", "rotation_tables"],
}
"""Beside the kinds of their main operand."""

_NEED_8_BITS = {"ill_conditioned_dot", "stagnating_sums", "vanishing_probabilities"}
"""Own kinds whose numbers fp8 does not hold."""


def strategy_names(
    contract: PrecisionContract, arguments: Collection[str] | None = None
) -> list[str]:
    """The kinds of inputs that `inputs_for` mixes for this contract and these arguments."""
    names = available(contract.storage, logits=contract.op in ("softmax", "logsumexp"))
    names += [
        name
        for name in _OWN_KINDS.get(contract.op, [])
        if FORMATS[contract.storage].precision >= 8 or name not in _NEED_8_BITS
    ]
    if contract.op == "rope" and arguments is not None:
        if not {"cos", "sin"} <= set(arguments):
            names.remove("rotation_tables")
        elif "positions" not in arguments:
            names = ["rotation_tables"]
    return names


@st.composite
def inputs_for(
    draw: st.DrawFn,
    contract: PrecisionContract,
    *,
    strategies: Sequence[str] | None = None,
    max_size: int = 513,
    arguments: Collection[str] | None = None,
) -> DrawnInputs:
    """Inputs by argument name for `contract.op`, in its storage format.

    Everything is drawn that the operation's input check allows: all optional arguments, at their
    edges, finite numbers up to the format's ends, and -inf for softmax and logsumexp.

    One of `strategies` (default: all of `strategy_names`) makes the main operand; sizes lie on tile
    boundaries up to `max_size`. `arguments` leaves out the optional ones that are not in it. Raises
    ValueError for a name that does not apply.
    """
    known = strategy_names(contract, arguments)
    names = list(known if strategies is None else strategies)
    if unknown := sorted(set(names) - set(known)):
        raise ValueError(
            f"{', '.join(unknown)}: no strategy for {contract.op} stored in {contract.storage}; "
            f"there are {', '.join(known)}"
        )
    kind = draw(st.sampled_from(names))
    recipes = _OPERATIONS[contract.op](draw, contract, kind, max_size)
    return DrawnInputs(**_without(contract.op, recipes, arguments))


def _without(op: str, recipes: dict[str, Any], arguments: Collection[str] | None) -> dict[str, Any]:
    """Less the optional arguments that an implementation does not take."""
    if arguments is None:
        return recipes
    dropped = set(OPERATIONS[op].optional) - set(arguments)
    if "causal" in dropped:
        dropped.add("window")
    if "inv_freq" in dropped and "inv_freq" in recipes and "theta" not in dropped:
        recipes = {**recipes, "theta": 10000.0}
    return {name: value for name, value in recipes.items() if name not in dropped}


def _matmul(
    draw: st.DrawFn, contract: PrecisionContract, kind: str, max_size: int
) -> dict[str, Any]:
    fmt = FORMATS[contract.storage]
    m, n = draw(_ROWS), draw(_ROWS)
    if kind == "ill_conditioned_dot":
        widest = min(60, 2 * (fmt.max_exponent - 8))
        kappa = 2.0 ** draw(st.integers(2, max(2, widest)))
        k = max(shortest(kappa, fmt), draw(tile_sizes(max_size=min(max_size, 65))))
        seed = draw(st.integers(0, MAX_SEED))
        a = Recipe((m, k), fmt.name, DotFactor(kappa, "a", 1, seed))
        return {"a": a, "b": Recipe((k, n), fmt.name, DotFactor(kappa, "b", 0, seed))}
    k = _length(draw, kind, max_size)
    if kind == "stagnating_sums":
        ones = Recipe((_many(draw, max_size), n), fmt.name, Constant(1.0))
        terms = stagnating_terms((m, ones.shape[0]), 1, fmt, FORMATS[contract.accumulate])
        return {"a": terms, "b": ones}
    if kind == "exact_lattice":
        a, b = draw(exact_lattice(m, k, n, fmt, accumulate=contract.accumulate))
        return {"a": a, "b": b}
    span = _span((-4, 1), fmt, max(1, (fmt.max_exponent - 10) // 2))
    lifted = (0, span.widest[1] // 2) if kind == "subnormals" else (-4, 1)
    inputs = {
        "a": draw(KINDS[kind]((m, k), fmt, span)),
        "b": draw(_beside(kind, (k, n), fmt, lifted)),
    }
    if kind == "extremes" or draw(st.booleans()):
        inputs["bias"] = draw(_beside(kind, (n,), fmt, (-4, 1)))
    return inputs


def _beside(
    kind: str, shape: tuple[int, ...], fmt: Format, exponents: tuple[int, int]
) -> st.SearchStrategy[Recipe]:
    """An operand that is not the main one: of ordinary numbers, or at the ends beside its like."""
    if kind == "extremes":
        return extreme_tensors(shape, fmt)
    return random_tensors(shape, fmt, exponents=exponents)


def _norm(draw: st.DrawFn, contract: PrecisionContract, kind: str, max_size: int) -> dict[str, Any]:
    fmt = FORMATS[contract.storage]
    if kind == "stagnating_sums":
        return draw(stagnating_norm(fmt, FORMATS[contract.accumulate]))
    rows, d = draw(_ROWS), _length(draw, kind, max_size)
    span = _span((-4, 1), fmt, (FORMATS[contract.compute].max_exponent - 10) // 2)
    if kind == "small_numbers":  # whose mean square is about eps
        low = max(-14, fmt.min_exponent)
        x = draw(random_tensors((rows, d), fmt, exponents=(low, max(-8, low))))
    else:
        x = draw(KINDS[kind]((rows, d), fmt, span))
    inputs = {"x": x, "weight": draw(_beside(kind, (d,), fmt, (-2, 1)))}
    if contract.op == "layer_norm":
        bias = _beside(kind, (d,), fmt, (-4, 0))
        # A bias would hide that a subnormal got lost.
        inputs["bias"] = (
            Recipe((d,), fmt.name, Constant(0.0)) if kind == "subnormals" else draw(bias)
        )
    return inputs | {"eps": draw(_EPS)}


_EPS = st.sampled_from([1e-6, 1e-5, 0.0, 1e-12, 0.25])


def _logits(
    draw: st.DrawFn, contract: PrecisionContract, kind: str, max_size: int
) -> dict[str, Any]:
    fmt = FORMATS[contract.storage]
    if kind == "stagnating_sums":
        many = _many(draw, max_size)
        return {"x": stagnating_exponentials((1, many), fmt, FORMATS[contract.accumulate])}
    if kind == "vanishing_probabilities":
        return {"x": vanishing_probabilities((1, draw(st.integers(2, 12))), fmt)}
    if kind == "near_zero_logsumexp":
        return {"x": draw(near_zero_logsumexp(fmt))}
    n = _length(draw, kind, max_size)
    shape = (draw(_ROWS), max(3, n) if kind in LOGITS else n)
    if kind == "far_from_zero":
        return {"x": draw(far_from_zero(shape, fmt, exponents=(4, min(13, fmt.max_exponent - 1))))}
    return {"x": draw(KINDS[kind](shape, fmt, Span((-4, 4), (max(-20, fmt.min_exponent), 6))))}


def _unary(
    draw: st.DrawFn, contract: PrecisionContract, kind: str, max_size: int
) -> dict[str, Any]:
    fmt = FORMATS[contract.storage]
    shape = (draw(_ROWS), _length(draw, kind, min(max_size, 65)))
    inputs: dict[str, Any] = {"x": draw(KINDS[kind](shape, fmt, _gate_span(fmt)))}
    if contract.op == "gelu":
        inputs["approximate"] = draw(st.sampled_from(["tanh", "none"]))
    return inputs


def _soft_cap(
    draw: st.DrawFn, contract: PrecisionContract, kind: str, max_size: int
) -> dict[str, Any]:
    return _unary(draw, contract, kind, max_size) | {
        "cap": draw(st.sampled_from([1.0, 20.3, 50.0, 2.0**-10, 30000.0]))
    }


def _swiglu(
    draw: st.DrawFn, contract: PrecisionContract, kind: str, max_size: int
) -> dict[str, Any]:
    fmt = FORMATS[contract.storage]
    shape = (draw(_ROWS), _length(draw, kind, min(max_size, 65)))
    return {
        "gate": draw(KINDS[kind](shape, fmt, _gate_span(fmt))),
        "up": draw(_beside(kind, shape, fmt, (-3, 3))),
        "activation": draw(st.sampled_from(["silu", "gelu_tanh"])),
    }


def _attention(
    draw: st.DrawFn, contract: PrecisionContract, kind: str, max_size: int
) -> dict[str, Any]:
    fmt = FORMATS[contract.storage]
    kv_heads = draw(st.integers(1, 2))
    heads = kv_heads * draw(st.integers(1, 2))
    if kind == "stagnating_sums":
        return _uniform_attention(draw, contract, max_size)
    # Keys pass a tile and values are drawn by the kind; queries are few, they are all alike.
    keys = _length(draw, kind, min(max_size, 257))
    queries = draw(st.integers(1, min(3, keys)))
    d_head = draw(st.sampled_from([1, 2, 16, 64]))
    if kind == "attention_sinks":
        recipes = draw(attention_sinks(heads, kv_heads, queries, keys, d_head, fmt))
    else:
        recipes = draw(attention_inputs(heads, kv_heads, queries, keys, d_head, fmt))
        recipes["v"] = draw(KINDS[kind]((kv_heads, keys, d_head), fmt, _span((-3, 1), fmt, 60)))
        if kind == "extremes":
            name, shape = draw(st.sampled_from([("q", queries), ("k", keys)]))
            heads_of = heads if name == "q" else kv_heads
            recipes[name] = draw(extreme_tensors((heads_of, shape, d_head), fmt))
    return dict(recipes) | draw(_attention_options(queries, keys, d_head))


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


def _uniform_attention(
    draw: st.DrawFn, contract: PrecisionContract, max_size: int
) -> dict[str, Any]:
    """Zero queries: the output is the plain mean of the values."""
    fmt, d_head = FORMATS[contract.storage], 2
    # A power of two: the probabilities are exact, and so are their products.
    keys = 2 ** (_many(draw, max_size).bit_length() - 1)
    return {
        "q": Recipe((1, 1, d_head), fmt.name, Constant(0.0)),
        "k": Recipe((1, keys, d_head), fmt.name, Constant(1.0)),
        "v": stagnating_terms((1, keys, d_head), 1, fmt, FORMATS[contract.accumulate]),
        "scale": 0.5,
        "causal": False,
    }


def _rope(draw: st.DrawFn, contract: PrecisionContract, kind: str, max_size: int) -> dict[str, Any]:
    fmt = FORMATS[contract.storage]
    tokens, d_head = draw(_ROWS), draw(st.sampled_from([2, 4, 64]))
    if kind in LISTED:
        d_head = 2
    drawn_as = "random" if kind in _OWN_KINDS["rope"] else kind
    x = draw(KINDS[drawn_as]((tokens, d_head), fmt, _span((-4, 3), fmt, 60)))
    if kind == "rotation_tables":
        table = random_tensors((tokens, d_head // 2), fmt, exponents=(-6, -1))
        return {"x": x, "cos": draw(table), "sin": draw(table)}
    if kind == "scattered_positions":
        places = draw(st.lists(_POSITIONS, min_size=tokens, max_size=tokens))
        positions = Recipe((tokens,), "int64", Listed(tuple(map(float, places))))
    else:
        longest = 2**20 if kind == "long_rope_positions" else 2**12
        positions = draw(long_rope_positions(tokens, max_position=longest))
    return {"x": x, "positions": positions} | draw(_rope_options(d_head // 2))


@st.composite
def _rope_options(draw: st.DrawFn, half: int) -> dict[str, Any]:
    """Mostly a base; else frequencies as scalings give them, often with a factor."""
    options: dict[str, Any] = {}
    if draw(st.integers(0, 3)) == 3:
        frequency = st.sampled_from([1.0, 0.0, 2.0**-10, 0.7, 1e-4])
        options["inv_freq"] = tuple(draw(st.lists(frequency, min_size=half, max_size=half)))
    else:
        options["theta"] = draw(st.sampled_from([10000.0, 500000.0, 1.0]))
    if draw(st.integers(0, 3)) == 3:
        options["attention_factor"] = draw(st.sampled_from([1.0, 1.25, 0.7, 0.0]))
    return options


_POSITIONS = (
    st.sampled_from([0, 2**31 - 1])
    | st.sampled_from([1, 255, 2049, 2**24 + 1])
    | st.integers(0, 2**17)
)


def _length(draw: st.DrawFn, kind: str, max_size: int) -> int:
    """An inner length: on tile boundaries, or short where elements are drawn one by one."""
    if kind in LISTED:
        return draw(st.integers(1, min(max_size, 8)))
    return draw(tile_sizes(max_size=max_size))


def _many(draw: st.DrawFn, max_size: int) -> int:
    """So many terms that a chain of all and one of blocks of 256 err differently."""
    return min(draw(st.integers(1024, 2048)), max(2, 2 * max_size))


def _span(usual: tuple[int, int], fmt: Format, reach: int) -> Span:
    """Exponents in the format's range, no further than `reach` from 0."""
    low, high = max(-reach, fmt.min_exponent), max(0, min(reach, fmt.max_exponent - 2))
    return Span((max(usual[0], low), min(usual[1], high)), (low, high))


def _gate_span(fmt: Format) -> Span:
    """Gates from where exp(-x) is 1 to where it overflows."""
    return Span((-6, 3), (max(-30, fmt.min_exponent), min(7, (fmt.max_exponent - 1) // 2)))


_Draw = Callable[[st.DrawFn, PrecisionContract, str, int], dict[str, Any]]

_OPERATIONS: dict[str, _Draw] = {
    "matmul": _matmul,
    "rms_norm": _norm,
    "layer_norm": _norm,
    "softmax": _logits,
    "logsumexp": _logits,
    "attention": _attention,
    "soft_cap": _soft_cap,
    "rope": _rope,
    "silu": _unary,
    "swiglu": _swiglu,
    "gelu": _unary,
}
