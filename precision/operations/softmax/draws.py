"""Draws logits and targets."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from ...strategies.drawing import (
    ROWS,
    Drawing,
    Formats,
    inner_length,
    many_terms,
)
from ...strategies.fills import Listed
from ...strategies.operands import KINDS, LOGITS, Span
from ...strategies.recipe import Recipe
from ...strategies.sums import near_zero_logsumexp, stagnating_exponentials, vanishing_probabilities
from ...strategies.tensors import far_from_zero


def logits(draw: st.DrawFn, formats: Formats, kind: str, max_size: int) -> dict[str, Any]:
    """Rows of the kinds that a softmax is hard on."""
    fmt = formats.storage
    if kind == "stagnating_sums":
        many = many_terms(draw, max_size)
        return {"x": stagnating_exponentials((1, many), fmt, formats.accumulate)}
    if kind == "vanishing_probabilities":
        return {"x": vanishing_probabilities((1, draw(st.integers(2, 12))), fmt)}
    if kind == "near_zero_logsumexp":
        return {"x": draw(near_zero_logsumexp(fmt))}
    n = inner_length(draw, kind, max_size)
    shape = (draw(ROWS), max(3, n) if kind in LOGITS else n)
    if kind == "far_from_zero":
        return {"x": draw(far_from_zero(shape, fmt, exponents=(4, min(13, fmt.max_exponent - 1))))}
    return {"x": draw(KINDS[kind](shape, fmt, Span((-4, 4), (max(-20, fmt.min_exponent), 6))))}


def _log_softmax(draw: st.DrawFn, formats: Formats, kind: str, max_size: int) -> dict[str, Any]:
    if kind == "vanishing_probabilities":  # beside one, whose logarithm is about as small
        return {"x": vanishing_probabilities((1, 2), formats.storage)}
    return logits(draw, formats, kind, max_size)


def _cross_entropy(draw: st.DrawFn, formats: Formats, kind: str, max_size: int) -> dict[str, Any]:
    x = _log_softmax(draw, formats, kind, min(max_size, 257))["x"]
    rows, classes = x.shape
    ignored = draw(st.sampled_from([None, None, 0, -1]))
    none = -100 if ignored is None else ignored
    ends = st.just(0) | st.just(classes - 1) | st.just(none)
    targets = draw(st.lists(ends | st.integers(0, classes - 1), min_size=rows, max_size=rows))
    each = draw(st.booleans())
    options: dict[str, Any] = {} if ignored is None else {"ignored": ignored}
    if draw(st.booleans()):
        options["smoothing"] = draw(st.sampled_from([0.1, 0.0, 1.0, 0.01]))
    if each or all(t == none for t in targets):
        options["reduction"] = "none"
    options["targets"] = Recipe((rows,), "int64", Listed(tuple(map(float, targets))))
    return {"x": x, **options}


DRAWINGS = {
    "softmax": Drawing(logits, ("stagnating_sums", "vanishing_probabilities")),
    "cross_entropy": Drawing(_cross_entropy, ("stagnating_sums", "vanishing_probabilities")),
    "log_softmax": Drawing(_log_softmax, ("stagnating_sums", "vanishing_probabilities")),
    "logsumexp": Drawing(logits, ("stagnating_sums", "near_zero_logsumexp")),
}
