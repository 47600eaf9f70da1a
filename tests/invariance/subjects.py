"""What the invariance tests run and how they compare: small models, three views of each pass.

Tensor names: B batch, P padded positions.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

import pytest
import torch
from bitlens.audit.invariance.observation import cut, n_different, observe
from bitlens.model.cache.kv_cache import KVCache
from bitlens.model.ops.policy import NATIVE_POLICIES
from bitlens.model.runners.fused import FusedRunner
from bitlens.model.transformer import HookedTransformer
from support.random_models import CONFIGS, SCALED_ROPE, random_model

ARCHITECTURES = (*CONFIGS, *SCALED_ROPE)
SOURCES = ("hub", "memory")
"""Sources of weights; the models of ARCHITECTURES are made in memory of bitlens's own tensors."""

SUBJECTS = (*ARCHITECTURES, *SOURCES)
DTYPES = NATIVE_POLICIES
# Of real models, which take minutes.
REAL_MODEL_DTYPES = (
    "fp32",
    "bf16",
    *(pytest.param(dtype, marks=pytest.mark.nightly) for dtype in ("bf16_weights", "hf_bf16")),
)


def dtypes_of(subject: str) -> tuple[str, ...]:
    """The policies a model runs under: hf_bf16 refuses soft caps, Gemma 2's and others."""
    capped = "gemma2" in subject or "capped" in subject
    return tuple(dtype for dtype in DTYPES if not (capped and dtype == "hf_bf16"))


def with_dtypes(
    subjects: Iterable[str], *, as_pairs: bool = False, in_turn: bool = False
) -> list[Any]:
    """Parameters (subject, dtype) of a test, or pairs of them as one.

    bf16_weights runs the kernels of fp32 on weights of bf16, which are their own test: its table is
    nightly. So are all but one dtype of a subject with `in_turn`: then every subject and every
    dtype is there, but not every pair.
    """
    return [
        pytest.param(
            *([(subject, dtype)] if as_pairs else [subject, dtype]),
            id=f"{subject}-{dtype}",
            marks=[pytest.mark.nightly]
            if dtype == "bf16_weights" or (in_turn and dtype != _turn_of(i, subject))
            else [],
        )
        for i, subject in enumerate(subjects)
        for dtype in dtypes_of(subject)
    ]


def _turn_of(i: int, subject: str) -> str:
    dtypes = [dtype for dtype in dtypes_of(subject) if dtype != "bf16_weights"]
    return dtypes[i % len(dtypes)]


# Sums over d_model and d_mlp take several leaves, the last one short; contexts reach past several
# blocks of 256 keys.
WIDE = {"d_model": 264, "d_mlp": 520, "n_ctx": 1100}
Seen = Mapping[str, torch.Tensor]


@functools.cache
def small(subject: str, dtype: str) -> HookedTransformer:
    if subject in SOURCES:
        # Imported here: a process that answers for the others need not load transformers.
        from support.source_models import small_qwen2

        return small_qwen2(subject, n_ctx=WIDE["n_ctx"], dtype=dtype)
    return random_model(subject, changes=WIDE, dtype=dtype)


def fuses(model: HookedTransformer) -> bool:
    """Whether unwatched blocks run in one call: under hf_bf16 none does."""
    return bool(model.forward_pass.runner.taps)


def draw_tokens(model: HookedTransformer, *shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(model.config.d_vocab, shape, generator=generator)


class Views:
    """A batch of sequences run three ways, which must agree: every hook read (blocks unfused), the
    residual streams read (each block fused), nothing read (all blocks in one fused call).
    """

    def __init__(self, model: HookedTransformer, names: Sequence[str] | None = None) -> None:
        self.model = model
        residuals = [name for name in model.hook_names if name.endswith("hook_resid_post")]
        self.names = (model.hook_names if names is None else names, residuals, [])
        self.caches: Sequence[KVCache | None] = (None, None, None)

    def keep_cache(self, batch_size: int) -> None:
        """From here on, calls continue the same sequences."""
        self.caches = [new_cache(self.model, batch_size) for _ in self.names]

    def __call__(
        self, tokens_BP: torch.Tensor, mask_BP: torch.Tensor | None = None
    ) -> list[dict[str, torch.Tensor]]:
        """Each row's hook values and logits; those of the fused views under prefixed names."""
        rows: list[dict[str, torch.Tensor]] = [{} for _ in tokens_BP]
        views = zip(("", "blocks fused: ", "all fused: "), self.names, self.caches, strict=True)
        for prefix, names, cache in views:
            for row, seen in zip(
                rows, observe(self.model, tokens_BP, names, mask_BP, cache), strict=True
            ):
                row.update({prefix + name: x for name, x in seen.items()})
        return rows

    def alone(self, tokens_P: torch.Tensor) -> dict[str, torch.Tensor]:
        """The reference: one sequence in one call. Checks that the three views agree."""
        (seen,) = self(tokens_P[None])
        assert torch.isfinite(seen["logits"]).all()
        assert len(seen["logits"].unique()) > 1
        fused = {name: x for name, x in seen.items() if ": " in name}
        by_name = {name.split(": ")[1]: x for name, x in fused.items()} | seen
        assert_same(seen, {name: by_name[name.split(": ")[1]] for name in fused})
        return seen


def new_cache(model: HookedTransformer, batch_size: int = 1) -> KVCache:
    return KVCache(model.config, batch_size, model.ops.policy.activation, model.ops.device)


def assert_same(found: Seen, expected: Seen) -> None:
    """Fails unless every value of `expected` is in `found`, bit for bit."""
    assert expected
    missing = expected.keys() - found.keys()
    assert not missing, f"never seen: {sorted(missing)[:5]}"
    moved = {
        name: f"{n} of {want.numel()}"
        for name, want in expected.items()
        if (n := n_different(found[name], want))
    }
    assert not moved, f"bits moved: {moved}"


def count_different(found: Seen, expected: Seen) -> int:
    return sum(n_different(found[name], want) for name, want in expected.items())


def padded(rows: Sequence[torch.Tensor], side: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and mask [B, P]; padding holds token 1, which no row may feel."""
    width = max(map(len, rows))
    tokens_BP = torch.ones(len(rows), width, dtype=torch.int64)
    mask_BP = torch.zeros_like(tokens_BP)
    for b, row in enumerate(rows):
        columns = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        tokens_BP[b, columns], mask_BP[b, columns] = row, 1
    return tokens_BP, mask_BP


def check_cut(views: Views, tokens_P: torch.Tensor, expected: Seen, cuts: Sequence[int]) -> int:
    """Feeds one sequence piece by piece; every piece must be that part of `expected`."""
    bounds = [0, *cuts, len(tokens_P)]
    views.keep_cache(1)
    for start, stop in itertools.pairwise(bounds):
        (seen,) = views(tokens_P[None, start:stop])
        assert_same(seen, cut(expected, start, stop))
    assert [cache.lengths for cache in views.caches if cache] == [[len(tokens_P)]] * 3
    return len(bounds) - 1


@contextlib.contextmanager
def fused_calls() -> Iterator[list[tuple[int, int]]]:
    """Counts the ranges of blocks that run fused."""
    calls: list[tuple[int, int]] = []
    run_fused = FusedRunner.run

    def counting(self, start, stop, resid_Td, run):  # type: ignore[no-untyped-def]
        calls.append((start, stop))
        return run_fused(self, start, stop, resid_Td, run)

    with mock.patch.object(FusedRunner, "run", counting):
        yield calls


def random_cuts(n_tokens: int, n_cuts: int, seed: int) -> list[int]:
    """At most n_cuts places in a prompt, ascending."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, n_tokens, (n_cuts,), generator=generator).unique().tolist()
