"""TransformerLens under bitlens's addresses: what its hook points can do, and what they cannot."""

from __future__ import annotations

from typing import Any

import bitlens
import pytest
import torch
from bitlens.model.interop.transformer_lens_addresses import TransformerLensAddresses
from bitlens.model.interop.transformers_addresses import TransformersAddresses
from bitlens.model.interop.transformers_llama import transformers_llama
from bitlens.precision.divergence import first_divergence
from bitlens.precision.inject import inject_fault
from support.random_models import random_checkpoint
from support.transformer_lens_peer import transformer_lens_llama

TOKENS = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6, 5, 3])
CHECKPOINT = random_checkpoint("llama")


@pytest.fixture
def lens() -> TransformerLensAddresses:
    return TransformerLensAddresses(transformer_lens_llama(CHECKPOINT))


@pytest.mark.parametrize("mode", ["free", "lockstep"])
def test_fp32_models_agree_at_every_address_it_has(
    lens: TransformerLensAddresses, mode: Any
) -> None:
    ours = bitlens.load(CHECKPOINT)
    peer = TransformersAddresses(transformers_llama(CHECKPOINT, torch.float32))
    for a, b in ((ours, lens), (lens, ours), (peer, lens)):
        found = first_divergence(a, b, TOKENS, mode)
        assert [row.address for row in found.table] == lens.op_addresses
        assert {row.judge for row in found.table} == {"relative"}
        assert found.first is None
        missing = found.only_a or found.only_b
        assert {address.rpartition(".")[2] for address in missing} == {"ln1", "ln2"}


@pytest.mark.parametrize("threads", [1, 3])
def test_a_watched_pass_has_its_callers_threads(
    lens: TransformerLensAddresses, threads: int
) -> None:
    ours = bitlens.load(CHECKPOINT)
    torch.set_num_threads(threads)
    assert first_divergence(ours, lens, TOKENS).first is None
    assert first_divergence(ours, lens, TOKENS, "lockstep").first is None


def test_a_watched_pass_has_its_callers_autocast(lens: TransformerLensAddresses) -> None:
    ours = bitlens.load(CHECKPOINT)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert first_divergence(ours, lens, TOKENS).first is not None
        assert "unembed" in first_divergence(ours, lens, TOKENS, "lockstep").created


def test_watching_leaves_it_as_it_was(lens: TransformerLensAddresses) -> None:
    before = lens(TOKENS)
    with lens.override("blocks.1.attn.o", lambda original: original() + 1):
        assert not torch.equal(lens(TOKENS), before)
        with lens.override("blocks.1.attn.o", lambda original: original() - 1):
            torch.testing.assert_close(lens(TOKENS), before)
    assert torch.equal(lens(TOKENS), before)
    assert not lens.model.hook_dict["blocks.1.hook_attn_out"]._forward_hooks


@pytest.mark.parametrize(
    "at", ["embed", "blocks.0.attn.v", "blocks.1.attn.attention", "blocks.2.mlp.act", "unembed"]
)
def test_a_changed_result_is_named_and_exchanged(lens: TransformerLensAddresses, at: str) -> None:
    ours = bitlens.load(CHECKPOINT)

    def changed(original: Any) -> torch.Tensor:
        y: torch.Tensor = original()
        return y.flip(-1)

    with lens.override(at, changed):
        assert first_divergence(ours, lens, TOKENS).first == at
        assert first_divergence(ours, lens, TOKENS, "lockstep").created == (at,)
        swap = first_divergence(ours, lens, TOKENS, "swap", addresses=[at])
        assert swap.token_a == swap.token_b or swap.restores == (at,)


def test_what_a_hook_point_cannot_do_raises(lens: TransformerLensAddresses) -> None:
    ours = bitlens.load(CHECKPOINT)
    with (
        inject_fault(lens, "flush_to_zero", at="unembed"),
        pytest.raises(NotImplementedError, match="what unembed returned, not what it was given"),
    ):
        lens(TOKENS)
    with pytest.raises(NotImplementedError, match="no contract can be judged"):
        first_divergence(ours, lens, TOKENS, judge="contract")
    with (
        lens.override("blocks.0.mlp.up", lambda original: original()[..., :1]),
        pytest.raises(ValueError, match=r"override of blocks\.0\.mlp\.up"),
    ):
        lens(TOKENS)
    with pytest.raises(KeyError, match="no operation is called"):
        lens.site("blocks.0.ln1")


def test_models_of_another_kind_are_refused(lens: TransformerLensAddresses) -> None:
    lens.model.cfg.normalization_type = "RMSPre"
    with pytest.raises(ValueError, match="no_processing"):
        TransformerLensAddresses(lens.model)
