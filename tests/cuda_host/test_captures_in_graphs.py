"""Captures stay inside the graphs: the CPU's bits and shapes, without Python."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from bitlens.model.block import Block
from bitlens.model.load import load
from bitlens.model.ops.cuda.kernels import CudaKernels
from bitlens.model.runners.cuda import TAPS, CudaRunner
from bitlens.model.transformer import HookedTransformer
from bitlens.model.weights.checkpoint import Checkpoint
from support.cuda_host import assert_same_bits, host_model
from support.random_models import CONFIGS, random_checkpoint

Step = dict[str, torch.Tensor]
CHECKPOINT = random_checkpoint("qwen3", n_layers=2, layers=CONFIGS["qwen3"].layers[:2], n_ctx=512)


@dataclass
class Counts:
    """Counts of graphs that were captured and replayed, and of blocks that Python called."""

    captured: int = 0
    replayed: int = 0
    blocks: list[int] = field(default_factory=list)
    """After each pass."""


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counts:
    seen = Counts()
    kind = type(host_model(CHECKPOINT, "fp32").ops.kernels)
    captured = kind.captured

    def counted(self: CudaKernels, body: Callable[[], Any]) -> Any:
        seen.captured += 1
        replay, left = captured(self, body)

        def replayed() -> None:
            seen.replayed += 1
            replay()

        return replayed, left

    def counting(fn: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any) -> Any:
            seen.blocks[-1] += 1
            return fn(*arguments)

        return called

    monkeypatch.setattr(kind, "captured", counted)
    monkeypatch.setattr(Block, "forward", counting(Block.forward))
    monkeypatch.setattr(CudaRunner, "_block", counting(CudaRunner._block))
    return seen


def decoded(
    model: HookedTransformer,
    names: Any,
    counts: Counts,
    *,
    batch: int = 2,
    prompt: int = 3,
    steps: int = 4,
    **options: Any,
) -> list[Step]:
    """Returns what `steps` passes of one given token a sequence capture, and their logits."""
    cache, found = model.new_cache(batch), []
    counts.blocks.append(0)
    model(torch.arange(batch * prompt).view(batch, prompt) % 241, kv_cache=cache)
    for step in range(steps):
        tokens = (torch.arange(batch)[:, None] * 31 + step * 7) % 251
        counts.blocks.append(0)
        logits, captured = model.run_with_cache(tokens, names, kv_cache=cache, **options)
        found.append({"logits": logits, **captured})
    return found


def assert_same_steps(found: list[Step], wanted: list[Step]) -> None:
    for ours, theirs in zip(found, wanted, strict=True):
        assert list(ours) == list(theirs)
        for name, x in theirs.items():
            if x.is_floating_point():
                assert_same_bits(ours[name], x.cpu())
            else:
                assert torch.equal(ours[name].cpu(), x.cpu())


def both(
    checkpoint: Checkpoint, dtype: str, names: Any, counts: Counts, **options: Any
) -> list[Step]:
    """The steps on the executor, which are the CPU's; `counts` are of the former."""
    wanted = decoded(load(checkpoint, dtype=dtype), names, Counts(blocks=counts.blocks), **options)
    counts.blocks.clear()
    found = decoded(host_model(checkpoint, dtype), names, counts, **options)
    assert_same_steps(found, wanted)
    return found


def every(name: str) -> bool:
    return not name.startswith("blocks.") or name.split(".", 2)[2] in TAPS


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_every_name_within_one_graph(counts: Counts, dtype: str, batch: int) -> None:
    """A plain pass, one to capture, then replays, in which no block is called."""
    found = both(CHECKPOINT, dtype, every, counts, batch=batch)
    assert len(found[0]) > 2 * 20
    assert (counts.captured, counts.replayed) == (1, 3)
    assert counts.blocks == [2, 2, 2, 0, 0]  # prompt, plain, captured, replayed twice


@pytest.mark.parametrize("architecture", ["gemma2", "gemma3", "llama"])
def test_windows_caps_and_norms_behind(counts: Counts, architecture: str) -> None:
    layers = CONFIGS[architecture].layers[-2:]
    both(random_checkpoint(architecture, n_layers=2, layers=layers), "fp32", every, counts)
    assert (counts.captured, counts.replayed) == (1, 3)


def test_scores_and_patterns_as_keys_grow(counts: Counts) -> None:
    """A graph has keys up to a multiple of 256; what is kept has as many as there are."""
    checkpoint = random_checkpoint(
        "llama", n_layers=1, layers=CONFIGS["llama"].layers[:1], n_ctx=512
    )
    names = ["blocks.0.attn.hook_attn_scores", "blocks.0.attn.hook_pattern"]
    found = both(checkpoint, "fp32", names, counts, batch=1, prompt=252, steps=8)
    assert [step[names[1]].shape[-1] for step in found] == list(range(253, 261))
    assert counts.captured == 2


def test_a_capture_is_its_own_after_the_next_replay(counts: Counts) -> None:
    model = host_model(CHECKPOINT, "fp32")
    names = ["blocks.0.hook_resid_post", "blocks.1.attn.hook_z", "blocks.1.hook_mlp_out"]
    steps = decoded(model, names, counts, steps=5)
    assert counts.captured == 1
    places = {x.untyped_storage().data_ptr() for step in steps for x in step.values()}
    assert len(places) == sum(map(len, steps))
    for name in names:
        assert not torch.equal(steps[3][name], steps[4][name])
    again = decoded(model, names, counts, steps=5)
    assert_same_steps(again, steps)


def test_between_fused_blocks(counts: Counts) -> None:
    names = [f"blocks.{i}.hook_resid_{end}" for i in range(2) for end in ("pre", "post")]
    both(CHECKPOINT, "fp32", names, counts)
    assert (counts.captured, counts.replayed, counts.blocks[-1]) == (1, 3, 0)


def stepped(model: HookedTransformer, turns: list[list[str]]) -> list[Step]:
    """Passes over one cache, each of which captures other names."""
    cache, found = model.new_cache(1), []
    model(torch.tensor([[3, 1, 4]]), kv_cache=cache)
    for turn, names in enumerate(turns):
        logits, captured = model.run_with_cache(torch.tensor([[turn]]), names, kv_cache=cache)
        found.append({"logits": logits, **captured})
    return found


def test_other_names_are_another_graph(counts: Counts) -> None:
    first, second = ["blocks.0.hook_mlp_out"], ["blocks.1.mlp.hook_post", "blocks.0.hook_mlp_out"]
    turns = [first, first, first, second, second, first, second]
    counts.blocks.append(0)
    found = stepped(host_model(CHECKPOINT, "fp32"), turns)
    assert_same_steps(found, stepped(load(CHECKPOINT), turns))
    assert (counts.captured, counts.replayed) == (2, 5)


def test_names_outside_the_blocks_make_no_graph(counts: Counts) -> None:
    turns = [["hook_embed"], ["unembed.hook_out"], ["hook_tokens", "ln_final.hook_scale"], []]
    counts.blocks.append(0)
    found = stepped(host_model(CHECKPOINT, "fp32"), turns)
    assert_same_steps(found, stepped(load(CHECKPOINT), turns))
    assert (counts.captured, counts.replayed) == (1, 3)


def test_a_hook_runs_between_graphs_that_capture(counts: Counts) -> None:
    checkpoint = random_checkpoint("qwen3")
    assert checkpoint.config.n_layers == 3

    def edit(x: torch.Tensor, hook: Any) -> torch.Tensor:
        return x * 0.5

    found = []
    for model in (load(checkpoint), host_model(checkpoint, "fp32")):
        counts.blocks.clear()
        with model.hooks([("blocks.1.attn.hook_z", edit)]):
            found.append(decoded(model, every, counts))
    assert_same_steps(found[1], found[0])
    assert (counts.captured, counts.replayed) == (2, 6)
    assert counts.blocks[-1] == 1  # the hooked one


def test_chosen_positions(counts: Counts) -> None:
    """Rows are chosen behind the replay. Scores of chosen rows alone open their block."""
    names = ["blocks.0.attn.hook_q", "blocks.1.hook_mlp_out"]
    both(CHECKPOINT, "fp32", names, counts, pos_slice=-1)
    assert (counts.captured, counts.blocks[-1]) == (1, 0)
    both(CHECKPOINT, "fp32", ["blocks.1.attn.hook_pattern"], counts, pos_slice=-1)
    assert counts.blocks[-1] == 1


def test_one_new_token_beside_padding(counts: Counts) -> None:
    mask = torch.tensor([[0, 1], [1, 0]])
    tokens, found = torch.tensor([[0, 9], [8, 0]]), []
    for model in (load(CHECKPOINT), host_model(CHECKPOINT, "fp32")):
        steps = []
        for _ in range(3):
            counts.blocks.append(0)
            logits, captured = model.run_with_cache(tokens, every, attention_mask=mask)
            steps.append({"logits": logits, **captured})
        found.append(steps)
    assert_same_steps(found[1], found[0])


def test_results_of_heads_open_their_block(counts: Counts) -> None:
    both(CHECKPOINT, "fp32", ["blocks.1.attn.hook_result", "blocks.0.hook_mlp_out"], counts)
    assert (counts.captured, counts.blocks[-1]) == (1, 1)


def test_captures_of_a_pass_that_is_recorded(counts: Counts) -> None:
    """Nothing is fused, between blocks and inside."""
    names, found = ["blocks.0.hook_resid_post", "blocks.1.mlp.hook_pre"], []
    for model in (load(CHECKPOINT), host_model(CHECKPOINT, "fp32")):
        counts.blocks.append(0)
        with model.hooks([("hook_embed", lambda x, hook: x.requires_grad_())]):
            logits, captured = model.run_with_cache(torch.tensor([[3], [7]]), names)
        assert logits.requires_grad
        found.append([{"logits": logits.detach(), **captured}])
    assert_same_steps(found[1], found[0])
    assert (counts.captured, counts.blocks) == (0, [2, 2])
