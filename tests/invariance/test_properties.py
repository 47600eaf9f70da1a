"""Random batches, cuts, paddings, threads and instruction sets: every row as if alone."""

from __future__ import annotations

from dataclasses import dataclass

import bitlens
import torch
from bitlens.audit.invariance.observation import cut
from hypothesis import event, given
from hypothesis import strategies as st
from invariance.subjects import (
    ARCHITECTURES,
    Views,
    assert_same,
    draw_tokens,
    dtypes_of,
    padded,
    small,
)


@dataclass(frozen=True)
class Setting:
    """How a call is made: none of it may show."""

    threads: int
    isa: str
    side: str
    flush: bool
    hooked: bool

    def use(self) -> None:
        bitlens.set_num_threads(self.threads)
        bitlens._core.set_isa(self.isa)
        torch.set_flush_denormal(self.flush)
        assert (bitlens.get_num_threads(), bitlens.isa()) == (self.threads, self.isa)


settings = st.builds(
    Setting,
    threads=st.sampled_from([1, 2, 4]),
    isa=st.sampled_from([isa for isa in bitlens._core.available_isas() if isa != "generic"]),
    side=st.sampled_from(["left", "right"]),
    flush=st.booleans(),
    hooked=st.booleans(),
)
lengths = st.one_of(st.integers(1, 12), st.integers(50, 80), st.sampled_from([255, 256, 257]))


@given(
    subject=st.sampled_from([(a, dtype) for a in ARCHITECTURES for dtype in dtypes_of(a)]),
    prompts=st.lists(lengths, min_size=1, max_size=5),
    rounds=st.lists(st.tuples(settings, st.integers(0, 2**32)), min_size=1, max_size=4),
)
def test_a_row_is_as_if_alone(
    subject: tuple[str, str], prompts: list[int], rounds: list[tuple[Setting, int]]
) -> None:
    """A batch is fed in rounds, each cut at other places and made in another setting."""
    model = small(*subject)
    rows = [draw_tokens(model, n, seed=i) for i, n in enumerate(prompts)]
    Setting(1, bitlens._core.available_isas()[-1], "left", False, True).use()
    alone = [Views(model).alone(row) for row in rows]
    hooked, fused = Views(model), Views(model, names=[])
    past = [0] * len(rows)
    hooked.keep_cache(len(rows))
    fused.keep_cache(len(rows))
    for i, (setting, seed) in enumerate(rounds):
        setting.use()
        ends = next_ends(past, prompts, seed, last=i == len(rounds) - 1)
        if ends is None:
            break
        event(f"{len(rows)} rows, cache {'used' if any(past) else 'empty'}")
        pieces = [row[a:b] for row, a, b in zip(rows, past, ends, strict=True)]
        tokens_BP, mask_BP = padded(pieces, setting.side)
        # Both caches move on, so that the next round may look with hooks or without.
        views = (hooked, fused) if setting.hooked else (fused, hooked)
        for seen in (view(tokens_BP, mask_BP) for view in views):
            for b, found in enumerate(seen):
                expected = cut(alone[b], past[b], ends[b])
                assert_same(found, {name: x for name, x in expected.items() if name in found})
                assert "all fused: logits" in found
        past = ends
    torch.set_flush_denormal(False)


def next_ends(past: list[int], totals: list[int], seed: int, *, last: bool) -> list[int] | None:
    """Where each row's next piece ends; None where a row has no token left for one."""
    if any(done == total for done, total in zip(past, totals, strict=True)):
        return None
    if last:
        return totals
    generator = torch.Generator().manual_seed(seed)
    return [
        done + 1 + int(torch.randint(total - done, (1,), generator=generator))
        for done, total in zip(past, totals, strict=True)
    ]
