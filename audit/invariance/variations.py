"""The ways of running a model that must not move a bit, and two that must.

Each function takes the subject and a tally, runs the varied computation, compares it with the
subject's references, and returns the evidence that the varied path was taken.
Shapes: B batch, P padded positions.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ...model.load import load
from ...model.transformer import HookedTransformer
from .observation import Observation, Tally, cut, observe

BATCH_SIZES = (1, 2, 3, 8, 17)
OTHER_LEAF = 16


@dataclass(frozen=True)
class Scope:
    """The extent of a verification. The defaults cover what the project promises."""

    n_tokens: int = 10
    chunk_lengths: Sequence[int] = range(1, 65)
    n_long: int = 1024
    n_random_cuts: int = 4
    generic_tokens: int = 16
    every_layer: bool = True


class Subject:
    """A model under test, and its references: rows run alone, with every hook read.

    What is compared with them is run three times, reading nothing (one fused call), the residual
    streams (fused block by block) and every hook (unfused): different code, one answer.
    """

    def __init__(
        self,
        model: HookedTransformer,
        source: str,
        dtype: str,
        scope: Scope,
        device: str = "cpu",
    ) -> None:
        self.model, self.source, self.dtype, self.scope = model, source, dtype, scope
        self.device = device
        config = model.config
        n_chunked = max(scope.chunk_lengths) + 1
        self.n_long = min(scope.n_long, config.n_ctx)
        generator = torch.Generator().manual_seed(0)
        draw = functools.partial(torch.randint, config.d_vocab, generator=generator)
        self.rows_BP = draw((max(BATCH_SIZES), scope.n_tokens))
        self.chunked_BP = draw((1, min(n_chunked, config.n_ctx)))
        self.long_BP = draw((1, self.n_long))
        self.names = self._names()
        self.residuals = [n for n in self.names if n.endswith("hook_resid_post")]
        middle = f"blocks.{config.n_layers // 2}."
        self.middle_names = [n for n in self.model.hook_names if n.startswith(middle)]
        self.readings: tuple[Sequence[str], ...] = ((), self.residuals, self.names)
        # Taken before anything is overridden or switched: the reference of every row in rows_BP.
        self.alone = [observe(self.model, row[None], self.names)[0] for row in self.rows_BP]

    def _names(self) -> list[str]:
        last = self.model.config.n_layers - 1
        layers = range(last + 1) if self.scope.every_layer else {0, last // 2, last}
        prefixes = tuple(f"blocks.{i}." for i in layers)
        return [
            name
            for name in self.model.hook_names
            if not name.startswith("blocks.") or name.startswith(prefixes)
        ]

    @functools.cached_property
    def prefill(self) -> dict[str, torch.Tensor]:
        """The reference of chunked_BP: one prefill."""
        return observe(self.model, self.chunked_BP, self.names)[0]

    def first(self, tally: Tally, model: HookedTransformer | None = None) -> None:
        """Runs the first rows as a batch (by `model`, if given) and compares them."""
        for names in self.readings:
            seen = observe(model or self.model, self.rows_BP[:3], names, tally=tally)
            for found, expected in zip(seen, self.alone, strict=False):
                tally.compare(found, expected)


def batch_size(subject: Subject, tally: Tally) -> str:
    for n in BATCH_SIZES:
        for shift, names in itertools.product({0, n // 2}, subject.readings):
            order = [(i + shift) % n for i in range(n)]
            seen = observe(subject.model, subject.rows_BP[order], names, tally=tally)
            for found, row in zip(seen, order, strict=True):
                tally.compare(found, subject.alone[row])
    return f"{tally.firings} hook firings, every row at several positions"


def other_lengths(subject: Subject, tally: Tally) -> str:
    lengths = _lengths(subject)
    _compare_padded(subject, tally, lengths, "left")
    return f"lengths {', '.join(map(str, lengths))} in one batch"


def padding_side(subject: Subject, tally: Tally) -> str:
    lengths = _lengths(subject)
    masks = [_compare_padded(subject, tally, lengths, side) for side in ("left", "right")]
    if torch.equal(*masks):
        raise RuntimeError("left and right padding gave the same mask")
    return f"{int((masks[0] == 0).sum())} padding positions on either side"


def chunks(subject: Subject, tally: Tally) -> str:
    calls = 0
    for length in subject.scope.chunk_lengths:
        cuts = range(length, subject.chunked_BP.shape[1], length)
        calls += _compare_cut(subject, tally, subject.chunked_BP, subject.prefill, cuts)
    return f"{calls} calls on a growing cache"


def decode(subject: Subject, tally: Tally) -> str:
    cuts = range(1, subject.chunked_BP.shape[1])
    calls = _compare_cut(subject, tally, subject.chunked_BP, subject.prefill, cuts)
    _decode_batch(subject, tally)
    return f"{calls} single-token calls, and a batch of three lengths"


def random_cuts(subject: Subject, tally: Tally) -> str:
    reference = observe(subject.model, subject.long_BP, subject.residuals)[0]
    generator = torch.Generator().manual_seed(1)
    pieces = []
    for _ in range(subject.scope.n_random_cuts):
        n_cuts = int(torch.randint(2, 12, (1,), generator=generator))
        drawn = torch.randint(1, subject.n_long, (n_cuts,), generator=generator).tolist()
        pieces.append(_compare_cut(subject, tally, subject.long_BP, reference, sorted(set(drawn))))
    return f"{subject.n_long} tokens in {', '.join(map(str, pieces))} calls"


def identity_hooks(subject: Subject, tally: Tally) -> str:
    fired: set[str] = set()

    def returned(tensor: torch.Tensor, hook: Any) -> torch.Tensor:
        fired.add(hook.name)
        return tensor

    def cloned(tensor: torch.Tensor, hook: Any) -> torch.Tensor:
        fired.add(hook.name)
        return tensor.clone()

    names = list(subject.model.hook_names)
    for identity in (returned, cloned):
        with subject.model.hooks(fwd_hooks=[(name, identity) for name in names]):
            subject.first(tally)
    tokens_BP, expected = subject.rows_BP[:1], {"logits": subject.alone[0]["logits"]}
    singly = subject.names if subject.scope.every_layer else subject.middle_names
    for name in singly:
        with subject.model.hooks(fwd_hooks=[(name, cloned)]):
            tally.compare(observe(subject.model, tokens_BP, [])[0], expected)
    if missing := set(names) - fired:
        raise RuntimeError(f"{len(missing)} hooks never fired, such as {min(missing)}")
    return f"all {len(names)} names fired, {len(singly)} also alone"


def reading_hooks(subject: Subject, tally: Tally) -> str:
    tokens_BP, expected = subject.rows_BP[:1], subject.alone[0]
    kept = 0
    for names in ([], subject.residuals[:1], subject.names):
        tally.compare(observe(subject.model, tokens_BP, names, tally=tally)[0], expected)
        with torch.no_grad():
            logits, cache = subject.model.run_with_cache(tokens_BP, names_filter=names)
        kept_here = {name: x[0].cpu() for name, x in (*cache.items(), ("logits", logits))}
        tally.compare(kept_here, expected)
        kept += len(cache)
    return f"{tally.firings} hook firings, {kept} activations cached"


def weight_storage(subject: Subject, tally: Tally) -> str:
    other = load(subject.source, dtype=subject.dtype, storage="fp32", device=subject.device)
    subject.first(tally, other)
    packed, panels = subject.model.weight_bytes(), other.weight_bytes()
    return f"{packed / 2**20:.0f} MiB against {panels / 2**20:.0f} MiB"


def other_leaf(subject: Subject, tally: Tally) -> str:
    """Control: the logits' linear, fp32 unless every step is rounded, with a leaf of 16, not 256.

    Zeroing x outside a leaf leaves that leaf's chain as it is, so a sum of such calls is the
    canonical order with another leaf length.
    """

    def shorter_leaves(original: Any, x: torch.Tensor, w: Any, *_: Any, **__: Any) -> Any:
        total = torch.zeros(())
        for start in range(0, x.shape[-1], OTHER_LEAF):
            leaf = torch.zeros_like(x)
            leaf[..., start : start + OTHER_LEAF] = x[..., start : start + OTHER_LEAF]
            total = total + original(leaf, w, out_dtype=torch.float32)
        return total

    address = "unembed"
    with subject.model.override(address, shorter_leaves):
        subject.first(tally)
    return f"{address} recomputed, {tally.different:,} values moved"


def one_chain(subject: Subject, tally: Tally) -> str:
    """Control: the norms' sums of squares, whose root is fp32 always, as one ascending chain."""

    def rms_scale(x: torch.Tensor, eps: float) -> torch.Tensor:
        squares = x.float().square().unbind(-1)
        total = functools.reduce(torch.add, squares)
        return (total / len(squares) + eps).sqrt()[..., None]

    ops: Any = subject.model.ops
    ops.rms_scale = rms_scale
    try:
        subject.first(tally)
    finally:
        del ops.rms_scale
    return f"norm scales recomputed, {tally.different:,} values moved"


def torch_backend(subject: Subject, tally: Tally) -> str:
    other = load(subject.source, dtype=subject.dtype, backend="torch")
    subject.first(tally, other)
    return f"torch's own matrix products, {tally.different:,} values moved"


def _lengths(subject: Subject) -> list[int]:
    full = subject.scope.n_tokens
    return [full, 1, full // 2, full - 1, 2]


def _compare_padded(
    subject: Subject, tally: Tally, lengths: Sequence[int], side: str
) -> torch.Tensor:
    """Runs prefixes of the rows in one padded batch, compares them, returns the mask used."""
    width = max(lengths)
    tokens_BP = torch.zeros(len(lengths), width, dtype=torch.int64)
    mask_BP = torch.zeros_like(tokens_BP)
    for row, n in enumerate(lengths):
        columns = slice(width - n, width) if side == "left" else slice(0, n)
        tokens_BP[row, columns] = subject.rows_BP[row, :n]
        mask_BP[row, columns] = 1
    for names in subject.readings:
        seen = observe(subject.model, tokens_BP, names, mask_BP, tally=tally)
        for found, n, expected in zip(seen, lengths, subject.alone, strict=False):
            tally.compare(found, cut(expected, 0, n))
    return mask_BP


def _compare_cut(
    subject: Subject,
    tally: Tally,
    tokens_BP: torch.Tensor,
    expected: Observation,
    cuts: Sequence[int],
) -> int:
    """Feeds the prompt piece by piece through a cache, compares each; returns the calls."""
    bounds = [0, *cuts, tokens_BP.shape[1]]
    calls = 0
    for names in ((), [name for name in expected if name != "logits"]):
        cache = subject.model.new_cache(1)
        for start, stop in itertools.pairwise(bounds):
            piece_BP = tokens_BP[:, start:stop]
            seen = observe(subject.model, piece_BP, names, kv_cache=cache, tally=tally)[0]
            tally.compare(seen, cut(expected, start, stop))
            calls += 1
    return calls


def _decode_batch(subject: Subject, tally: Tally) -> None:
    """A left-padded batch of prompts of several lengths, continued token by token."""
    lengths, total = (3, 1, 2), subject.scope.n_tokens
    width = max(lengths)
    mask_BP = torch.tensor([[0] * (width - n) + [1] * n for n in lengths])
    tokens_BP = torch.zeros_like(mask_BP)
    for row, n in enumerate(lengths):
        tokens_BP[row, width - n :] = subject.rows_BP[row, :n]
    cache = subject.model.new_cache(len(lengths))
    observe(subject.model, tokens_BP, (), mask_BP, kv_cache=cache)
    for step in range(total - width):
        positions = [n + step for n in lengths]
        next_BP = torch.stack([subject.rows_BP[row, p : p + 1] for row, p in enumerate(positions)])
        seen = observe(subject.model, next_BP, subject.names, kv_cache=cache, tally=tally)
        for found, p, expected in zip(seen, positions, subject.alone, strict=False):
            tally.compare(found, cut(expected, p, p + 1))
