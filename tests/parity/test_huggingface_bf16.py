"""The policies hf_bf16 and bf16_weights against Hugging Face: every hook in lockstep.

tests/support/huggingface_bf16_lockstep.py derives the bounds.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import bitlens
import pytest
import torch
import transformers
from bitlens.model.config_error import ConfigError
from bitlens.model.interop.transformers_addresses import TransformersAddresses
from bitlens.model.ops.policy import NATIVE_POLICIES
from bitlens.precision.divergence import first_divergence
from support.huggingface_bf16_lockstep import N_TOKENS, Lockstep, lockstep, peer_of
from support.huggingface_cases import random_weights
from support.huggingface_configs import ARCHITECTURES, FIXED_ROPE
from support.lockstep import used
from support.random_models import MemoryReader, random_checkpoint, random_model

# Soft caps are refused.
CONFIGS: Mapping[str, transformers.PretrainedConfig] = {
    name: config
    for name, config in {**ARCHITECTURES, **FIXED_ROPE}.items()
    if getattr(config, "final_logit_softcapping", None) is None
}

Tensor = torch.Tensor
BACKENDS = ("native", "torch")


@pytest.fixture(scope="module", params=CONFIGS)
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of bf16 weights."""
    directory: Path = tmp_path_factory.mktemp("model")
    random_weights(copy.deepcopy(CONFIGS[request.param])).bfloat16().save_pretrained(directory)
    return directory


def compared(found: Lockstep) -> dict[str, Tensor]:
    """Our value at every address and hook that has a bound."""
    return found.ours | {name: found.hooks[name] for name in found.theirs.keys() - found.ours}


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_operation_and_its_inside_agree_in_lockstep(path: Path, backend: str) -> None:
    found = lockstep(path, backend)
    ours = compared(found)
    assert ours.keys() == found.theirs.keys() == found.bounds.keys()
    for address, y in ours.items():
        assert used(y, found.theirs[address], found.bounds[address]) <= 1, address
        if y.dtype == torch.bfloat16 or address == "unembed":
            assert torch.equal(y, y.bfloat16().to(y.dtype)), address
    equal = [torch.equal(y.double(), found.theirs[address].double()) for address, y in ours.items()]
    assert sum(equal) > len(equal) / 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_part_in_16_leaves_every_bound(path: Path, backend: str) -> None:
    found = lockstep(path, backend)
    for address, y in compared(found).items():
        moved = y.double() * (1 + 2.0**-4)
        assert used(moved, found.theirs[address], found.bounds[address]) > 1, address


_OUTPUT_OF = {
    "embed": "hook_embed",
    "attn.q": "attn.hook_q",
    "attn.k": "attn.hook_k",
    "attn.v": "attn.hook_v",
    "attn.rope_q": "attn.hook_rot_q",
    "attn.rope_k": "attn.hook_rot_k",
    "attn.attention": "attn.hook_z",
    "resid_mid": "hook_resid_mid",
    "ln2": "mlp.hook_in",
    "mlp.gate": "mlp.hook_pre",
    "mlp.up": "mlp.hook_pre_linear",
    "mlp.act": "mlp.hook_post",
    "mlp.down": "mlp.hook_out",
    "resid_post": "hook_resid_post",
    "ln_final": "unembed.hook_in",
    "unembed": "unembed.hook_out",
}


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_hook_was_left_out(path: Path, backend: str) -> None:
    """Each is an operation's output, inside of one, or an exact copy of such."""
    found = lockstep(path, backend)
    outputs = dict(_OUTPUT_OF)
    sandwich = "blocks.0.ln1_post" in found.ours
    outputs["ln1_post" if sandwich else "attn.o"] = "hook_attn_out"
    if sandwich:
        outputs["ln2_post"] = "hook_mlp_out"
    seen = found.theirs.keys() - found.ours
    for address, y in found.ours.items():
        block = address[: address.find(".", 7) + 1] if address.startswith("blocks.") else ""
        name = outputs.get(address.removeprefix(block))
        if name is not None:
            assert torch.equal(found.hooks[block + name].view(y.shape), y), address
            seen.add(block + name)
    copies = _copies(found.hooks, sandwich)
    for name, origin in copies.items():
        assert torch.equal(found.hooks[name], origin.expand_as(found.hooks[name])), name
    assert not seen & copies.keys()
    assert found.hooks.keys() - seen - copies.keys() == {"hook_tokens"}


def _copies(hooks: Mapping[str, Tensor], sandwich: bool) -> dict[str, Tensor]:
    """What each hook that shows the residual stream, or the MLP's output, again must equal."""
    copies, resid = {}, hooks["hook_embed"]
    for b in (name.removesuffix("hook_resid_post") for name in hooks if "resid_post" in name):
        copies[f"{b}hook_resid_pre"] = resid
        for name in ("attn_in", "q_input", "k_input", "v_input"):
            copies[f"{b}hook_{name}"] = resid[:, None]
        copies[f"{b}hook_mlp_in"] = hooks[f"{b}hook_resid_mid"]
        if not sandwich:
            copies[f"{b}hook_mlp_out"] = hooks[f"{b}mlp.hook_out"]
        resid = hooks[f"{b}hook_resid_post"]
    return copies


def test_both_keep_the_contracts_they_declare(path: Path) -> None:
    """These name the same casts, so neither side creates a difference beyond them.

    Judged by proof: how many sums near a tie round apart is up to this CPU's peer.
    """
    ours, peer = bitlens.load(path, dtype="hf_bf16"), TransformersAddresses(peer_of(path))
    for a, b in ((ours, peer), (peer, ours)):
        with torch.no_grad():
            found = first_divergence(a, b, torch.arange(N_TOKENS), "lockstep", judge="contract")
        assert len(found.table) == len(ours.op_addresses)
        assert found.created == ()


def test_another_rounding_is_noticed(path: Path) -> None:
    """The policy bf16 keeps scores, patterns, act(gate) and residual adds in fp32."""
    expected = lockstep(path, "native")
    moved = _moved_under_bf16(path, expected)
    is_gemma = "blocks.0.ln1_post" in expected.ours
    assert {"act", "attention", "rope_q", "unembed", "resid_mid", "resid_post"} <= moved
    assert ("ln1" in moved) == (not is_gemma)  # Gemma's norms round once on both sides
    assert ("embed" in moved) == is_gemma  # elsewhere, rows of bf16 weights


def _moved_under_bf16(path: Path, expected: Lockstep) -> set[str]:
    """Operations that have other values under the policy bf16, given equal inputs."""
    ours, found = expected.ours, {}
    tokens_P = torch.randint(48, (N_TOKENS,), generator=torch.Generator().manual_seed(2))
    model = bitlens.load(path, dtype="bf16")

    def swap(address: str) -> Callable[..., Tensor]:
        def fn(operation: Any, *args: Any, **kwargs: Any) -> Tensor:
            found[address] = operation(*args, **kwargs)
            return ours[address].to(found[address].dtype)

        return fn

    with ExitStack() as stack:
        for address in model.op_addresses:
            stack.enter_context(model.override(address, swap(address)))
        model(tokens_P)
    return {
        address.rpartition(".")[2]
        for address, y in found.items()
        if not torch.equal(y.float(), ours[address].float())
    }


@pytest.mark.parametrize("backend", BACKENDS)
def test_logits_are_bf16_numbers_and_near_the_peers(path: Path, backend: Any) -> None:
    model, peer = bitlens.load(path, dtype="hf_bf16", backend=backend), peer_of(path)
    tokens_BP = torch.randint(48, (2, N_TOKENS), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        ours, theirs = model(tokens_BP), peer(tokens_BP).logits
    assert torch.equal(ours, ours.bfloat16().float())
    spread = float(theirs.float().std())
    assert float((ours - theirs.float()).abs().max()) < 0.1 * spread
    assert float((ours.argmax(-1) == theirs.argmax(-1)).float().mean()) > 0.9


@pytest.mark.parametrize("backend", BACKENDS)
def test_unknown_rounding_points_are_refused(backend: str) -> None:
    """Norms around each sublayer that multiply by w: no model that was read has them."""
    with pytest.raises(
        ConfigError, match=r"rounds in gemma2 with soft caps is not stated.*dtype=\"bf16\""
    ):
        random_model("gemma2", dtype="hf_bf16", backend=backend)
    with pytest.raises(ConfigError, match=r"rounds in gemma3 is not stated.*dtype=\"bf16\""):
        random_model("gemma3", changes={"norm_offset": 0.0}, dtype="hf_bf16", backend=backend)


def test_attention_in_parts_has_the_bits_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores of a long prompt are made a few rows at a time."""
    model, tokens_BP = random_model("mistral", dtype="hf_bf16"), torch.arange(60).view(2, 30)
    whole = model(tokens_BP)
    monkeypatch.setattr("bitlens.model.ops.native_huggingface._SCORES", 6 * 30 * 7)
    assert torch.equal(model(tokens_BP), whole)


def test_gguf_and_hugging_face_norms_of_gemma_are_one() -> None:
    """A file that holds 1 + w gives the bits of one that holds w, which is what is rounded."""
    checkpoint = random_checkpoint("gemma3")
    tensors = checkpoint.reader.tensors  # type: ignore[attr-defined]
    rounded = {name: x.bfloat16().float() for name, x in tensors.items()}
    folded = {name: 1 + x if x.ndim == 1 else x for name, x in rounded.items()}
    offsets = {"norm_offset": 0.0, "folded_norm_offset": 1.0}
    config = dataclasses.replace(checkpoint.config, **offsets)
    plain = dataclasses.replace(checkpoint, reader=MemoryReader(rounded))
    other = dataclasses.replace(checkpoint, config=config, reader=MemoryReader(folded))
    for dtype in NATIVE_POLICIES:
        logits = [bitlens.load(source, dtype=dtype)(torch.arange(9)) for source in (plain, other)]
        assert torch.equal(*logits), dtype


def test_bf16_weights_is_fp32_on_rounded_weights(path: Path) -> None:
    """Weights that are bf16 already stay as they are: the bits of fp32. Others are rounded once."""
    tokens_P = torch.arange(N_TOKENS)
    for backend in ("native", "torch"):
        rounded = bitlens.load(path, dtype="bf16_weights", backend=backend)
        assert rounded.storage().keys() <= {"BF16", "bfloat16"}
        want = bitlens.load(path, backend=backend)(tokens_P)
        assert rounded(tokens_P).dtype == torch.float32
        assert torch.equal(rounded(tokens_P), want)


def test_bf16_weights_rounds_every_weight_once() -> None:
    checkpoint, tokens_P = random_checkpoint("qwen2"), torch.arange(9)
    tensors = checkpoint.reader.tensors  # type: ignore[attr-defined]
    rounded = {name: x.bfloat16().float() for name, x in tensors.items()}
    again = dataclasses.replace(checkpoint, reader=MemoryReader(rounded))
    model = bitlens.load(checkpoint, dtype="bf16_weights")
    assert torch.equal(model(tokens_P), bitlens.load(again)(tokens_P))
    assert not torch.equal(model(tokens_P), bitlens.load(checkpoint)(tokens_P))
