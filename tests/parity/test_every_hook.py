"""Every hook of every architecture and RoPE type against transformers, within a derived bound.

Both run in lockstep: transformers computes each value from ours at the hooks before it, so each
difference is the error of one step. A bound is twice transformers' own, which is the larger; where
it forms rotary angles in fp32 docs/accuracy.md says what that costs.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import bitlens
import pytest
import torch
import transformers
from bitlens.model.sources import open_checkpoint
from bitlens.model.weights.checkpoint import Checkpoint
from support.error_bounds import Rounding
from support.huggingface_cases import random_weights
from support.huggingface_configs import ARCHITECTURES, FIXED_ROPE, ROPE_OF_LENGTH
from support.huggingface_hooks import lockstep
from support.lockstep import EXACT, LocalBounds, used

Values = Mapping[str, torch.Tensor]

BACKENDS = ("native", "torch")
# Longer than every window; RoPE that follows the length: within its trained context, and beyond.
CASES = [
    *((name, backend, 12) for name in (*ARCHITECTURES, *FIXED_ROPE) for backend in BACKENDS),
    *((name, "torch", n) for name in ROPE_OF_LENGTH for n in (6, 16)),
]


@dataclass(frozen=True)
class Pair:
    """Our values at every hook, transformers' from them, and bounds on the differences."""

    ours: Values
    theirs: Values
    bounds: Values


def draw(config: transformers.PretrainedConfig, n: int) -> torch.Tensor:
    return torch.randint(config.vocab_size, (2, n), generator=torch.Generator().manual_seed(n))


def bounds_of(checkpoint: Checkpoint, ours: Values) -> dict[str, torch.Tensor]:
    local = LocalBounds(checkpoint, ours, Rounding(angles=True))
    blocks = [local.block(i) for i in range(checkpoint.config.n_layers)]
    parts = {name: x for part in (*blocks, local.outside_blocks()) for name, x in part.items()}
    return {name: 2 * bound for name, bound in parts.items() if not name.endswith(EXACT)}


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(map(str, case)))
def pair(request: pytest.FixtureRequest) -> Pair:
    name, backend, n = request.param
    config = copy.deepcopy({**ARCHITECTURES, **FIXED_ROPE, **ROPE_OF_LENGTH}[name])
    peer, tokens_BP = random_weights(config), draw(config, n)
    model = bitlens.load(peer, backend=backend)
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens_BP, model.hook_names)
    ours = {name: cache[name] for name in model.hook_names}
    return Pair(ours, lockstep(peer, tokens_BP, ours), bounds_of(open_checkpoint(peer), ours))


def test_every_hook_agrees(pair: Pair) -> None:
    assert set(pair.theirs) == set(pair.ours)
    exact = {name for name in pair.ours if name.endswith(EXACT)}
    assert set(pair.bounds) == set(pair.ours) - exact
    for name in exact:
        assert torch.equal(pair.theirs[name], pair.ours[name]), name
    for name, bound in pair.bounds.items():
        assert pair.theirs[name].shape == pair.ours[name].shape == bound.shape, name
        assert used(pair.ours[name], pair.theirs[name], bound) <= 1, name


def test_one_part_in_4096_leaves_every_bound(pair: Pair) -> None:
    for name, bound in pair.bounds.items():
        moved = pair.ours[name] * (1 + 2.0**-12)
        assert used(moved, pair.theirs[name], bound) > 1, name


def test_neighbouring_values_leave_the_bound(pair: Pair) -> None:
    """A tensor read at the wrong place of the block is seen."""
    b = "blocks.1"
    for one, other in (
        ("attn.hook_q", "attn.hook_rot_q"),
        ("mlp.hook_pre", "mlp.hook_pre_linear"),
        ("hook_resid_mid", "hook_resid_post"),
        ("ln1.hook_normalized", "ln2.hook_normalized"),
    ):
        bound = pair.bounds[f"{b}.{one}"]
        assert used(pair.ours[f"{b}.{other}"], pair.theirs[f"{b}.{one}"], bound) > 1, one


def test_values_follow_from_those_before() -> None:
    """Another value at a hook changes what comes after it on transformers' side, nothing else."""
    config = copy.deepcopy(ARCHITECTURES["gemma3, windows"])
    peer, tokens_BP = random_weights(config), draw(config, 12)
    model = bitlens.load(peer)
    _, cache = model.run_with_cache(tokens_BP, model.hook_names)
    ours = {name: cache[name] for name in model.hook_names}
    expected = lockstep(peer, tokens_BP, ours)
    order = list(ours)
    for name in bounds_of(open_checkpoint(peer), ours):
        if name.startswith("blocks.0.") or name.endswith(("hook_result", "unembed.hook_out")):
            continue  # the other block's are the same code; nothing follows from these two
        found = lockstep(peer, tokens_BP, ours | {name: ours[name] * 1.5})
        moved = {n for n in order if not torch.equal(found[n], expected[n])}
        assert moved, name
        assert min(map(order.index, moved)) > order.index(name), name
