"""Adversarial logits, parameters and ways to cut a vocabulary, for the sampler's tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from bitlens.model.sampling import SampleOutput, SamplingParams
from hypothesis import strategies as st
from support.sampling_oracle import Expected

LOWEST = float(np.finfo(np.float32).min)
SPECIAL = (
    -float("inf"), 0.0, -0.0, 1.0, float(np.nextafter(np.float32(1), np.float32(2))), 1e-45, -1e-45,
    1e-38, -1e12, LOWEST, 30.0, -30.0, 3e38,
)  # fmt: skip


@st.composite
def logits(draw: st.DrawFn, max_vocab: int = 40) -> torch.Tensor:
    """A row [V]: ties, near ties, -inf, one finite, all equal, +-0, subnormals, huge ranges."""
    n = draw(st.one_of(st.integers(1, 3), st.integers(1, max_vocab)))
    finite = st.floats(-40, 40, width=32)
    kind = draw(st.sampled_from(("mixed", "finite", "equal", "one", "ulps")))
    if kind == "equal":
        return torch.full((n,), draw(finite))
    if kind == "one":
        row = torch.full((n,), -torch.inf)
        row[draw(st.integers(0, n - 1))] = draw(finite)
        return row
    if kind == "ulps":
        start = np.float32(draw(st.floats(0.5, 20, width=32))).view(np.uint32)
        steps = draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))
        return torch.from_numpy((start + np.array(steps, dtype=np.uint32)).view(np.float32))
    values = finite if kind == "finite" else st.one_of(finite, st.sampled_from(SPECIAL))
    return torch.tensor(draw(st.lists(values, min_size=n, max_size=n)), dtype=torch.float32)


def params() -> st.SearchStrategy[SamplingParams]:
    """Filters, temperatures and seeds in any mixture; log-probabilities on."""
    options = {
        "temperature": st.sampled_from((0.0, 1e-6, 0.3, 1.0, 1.7)),
        "top_k": st.sampled_from((None, 0, -1, 1, 2, 5, 2000)),
        "top_p": st.one_of(st.none(), st.sampled_from((1.0, 0.5, 1e-30)), st.floats(0.01, 1)),
        "typical_p": st.one_of(st.none(), st.sampled_from((1.0, 0.2, 1e-30)), st.floats(0.01, 1)),
        "min_p": st.one_of(st.none(), st.sampled_from((0.0, 1.0)), st.floats(0, 1)),
        "seed": st.one_of(st.sampled_from((0, 2**64 - 1)), st.integers(0, 2**64 - 1)),
        "filter_apply_order": st.sampled_from(("top_k_first", "joint")),
        "logprobs": st.just(0),
    }
    return st.fixed_dictionaries(options).map(lambda d: SamplingParams(**d))


def cut(logits_BV: torch.Tensor, sizes: list[int]) -> list[torch.Tensor]:
    """Slices of these widths; the last takes what is left."""
    widths, left = [], logits_BV.shape[1]
    for size in sizes[:-1]:
        widths.append(min(size, left))
        left -= widths[-1]
    return list(logits_BV.split([*widths, left], dim=1))


def row(output: SampleOutput, b: int) -> Expected:
    """What row b was given, as the oracle says it."""
    assert output.certificate is not None
    assert output.logprobs is not None
    certificate = output.certificate[b]
    if certificate is None:
        return Expected(int(output.tokens[b]))
    return Expected(int(output.tokens[b]), float(output.logprobs[b]), **vars(certificate))


def bits(output: SampleOutput) -> tuple[Any, ...]:
    """Everything in an output, comparable bit by bit."""
    tensors = (output.logprobs, output.top_logprobs)
    words = [None if t is None else t.view(torch.int32).tolist() for t in tensors]
    ids = None if output.top_ids is None else output.top_ids.tolist()
    return (output.tokens.tolist(), output.valid.tolist(), ids, *words, output.certificate)
