"""Gemma 3 270m, out of K-quants, against transformers on the same dequantised weights.

In fp32 every native operation in lockstep, within a bound, and tokens; in fp64 the whole model.
Tensor names: T rows, H heads, G key/value heads, K keys, h d_head.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import bitlens
import pytest
import torch
import transformers
from bitlens.benchmarks.hugging_face import InDouble
from bitlens.model.ops.packed import PackedWeight
from bitlens.model.transformer import HookedTransformer
from bitlens.model.weights.checkpoint import Checkpoint
from support.error_bounds import LogitBounds, Rounding, operation_bound
from support.gemma3_peer import gemma3, huggingface_weights
from transformers.models.gemma3 import modeling_gemma3

Tensor = torch.Tensor
FP32 = Rounding(angles=True)
N_TOKENS = 530
"""More than the window, 512."""

TOLERANCE = 1e-10
"""Relative to the norm: 4 decimal digits below what fp32 resolves."""

PROMPTS = {
    "The capital of France is": " the capital of the country of France. It is the largest city",
    "def fibonacci(n):\n    ": "if n == 0:\n        return 0\n    elif n ==",
}


@pytest.fixture(scope="module")
def native(gemma3_checkpoint: Checkpoint) -> HookedTransformer:
    return bitlens.load(gemma3_checkpoint)


@pytest.fixture(scope="module")
def peer(gemma3_checkpoint: Checkpoint) -> transformers.Gemma3ForCausalLM:
    return gemma3(gemma3_checkpoint.config, huggingface_weights(gemma3_checkpoint, torch.float32))


def draw_tokens(n: int) -> Tensor:
    return torch.randint(6, 262_144, (n,), generator=torch.Generator().manual_seed(0))


def test_the_model_is_the_one_on_the_card(
    gemma3_checkpoint: Checkpoint, native: HookedTransformer
) -> None:
    config = gemma3_checkpoint.config
    assert gemma3_checkpoint.n_parameters() == 268_098_176
    assert (config.n_layers, config.d_model, config.d_vocab) == (18, 640, 262_144)
    assert [i for i, layer in enumerate(config.layers) if layer.window is None] == [5, 11, 17]
    assert {layer.window for layer in config.layers} == {512, None}
    kinds = {
        gemma3_checkpoint.matrix(f"blocks.0.{m}.weight").format.name for m in ("attn.q", "attn.o")
    }
    assert kinds | {gemma3_checkpoint.matrix("blocks.0.mlp.down.weight").format.name} == {
        "Q5_0",
        "Q4_K",
        "Q6_K",
    }
    assert native.storage() == {"Q8_0": 179_824_640, "F32": 395_182_080}


@pytest.mark.parametrize("prompt", PROMPTS)
@torch.no_grad()
def test_tokens_are_transformers_own(
    native: HookedTransformer, peer: transformers.Gemma3ForCausalLM, prompt: str
) -> None:
    tokens = native.to_tokens(prompt)
    assert int(tokens[0, 0]) == 2  # <bos>
    found = native.generate(tokens, max_new_tokens=16)
    assert found.text[0].startswith(PROMPTS[prompt])
    expected = peer.generate(tokens, do_sample=False, max_new_tokens=16, pad_token_id=0)
    assert torch.equal(found.tokens, expected)


@dataclass
class Written:
    """The keys and values of one layer [K, G, h], in place of the cache's pages."""

    written: tuple[Tensor, Tensor]

    def double(self) -> Written:
        k, v = self.written
        return Written((k.double(), v.double()))


class Lockstep:
    """What transformers computes from the arguments of each native operation."""

    def __init__(self, peer: transformers.Gemma3ForCausalLM, n_tokens: int) -> None:
        self.peer = peer
        positions = torch.arange(n_tokens)[None]
        self.tables = {
            kind: peer.model.rotary_emb(torch.zeros(1), positions, kind)
            for kind in ("sliding_attention", "full_attention")
        }

    def __call__(self, address: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        block, _, name = address.rpartition(".")
        if address == "embed":
            return self.peer.model.embed_tokens(args[0])
        if address == "ln_final":
            return self.peer.model.norm(args[0])
        if address == "unembed":
            return self.peer.lm_head(args[0])
        layer = self.peer.model.layers[int(address.split(".")[1])]
        attn, mlp = layer.self_attn, layer.mlp
        if name.startswith("resid"):
            return args[0] + args[1]
        if name.startswith("rope"):
            x_THh = args[0]
            cos, sin = self.tables[attn.layer_type]
            rotated = modeling_gemma3.apply_rotary_pos_emb(x_THh[None], x_THh[None], cos, sin, 2)
            return rotated[0][0]
        if name == "attention":
            return self._attend(attn, *args, **kwargs)
        if name == "act":
            return mlp.act_fn(args[1]) * args[2]
        modules = {
            "ln1": layer.input_layernorm,
            "ln1_post": layer.post_attention_layernorm,
            "ln2": layer.pre_feedforward_layernorm,
            "ln2_post": layer.post_feedforward_layernorm,
            "q_norm": attn.q_norm,
            "k_norm": attn.k_norm,
        }
        if name in modules:
            return modules[name](args[0])
        return getattr(mlp if block.endswith("mlp") else attn, f"{name}_proj")(args[0])

    def _attend(
        self,
        attn: Any,
        q_THh: Tensor,
        cache: Any,
        batch: Any,
        *,
        scale: float,
        cap: float | None,
        window: int | None,
    ) -> Tensor:
        assert cap is None
        assert attn.sliding_window == window
        assert attn.scaling == scale
        k_GKh, v_GKh = (x_KGh.transpose(0, 1) for x_KGh in cache.written)
        hidden = ~batch.visible_THK(window).transpose(0, 1)[None, :1]
        mask = torch.zeros(hidden.shape).masked_fill(hidden, torch.finfo(torch.float32).min)
        z_BTHh, _ = modeling_gemma3.eager_attention_forward(
            attn, q_THh.transpose(0, 1)[None], k_GKh[None], v_GKh[None], mask, scaling=attn.scaling
        )
        return z_BTHh[0]


def in_double(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Operands in fp64, packed weights unpacked."""

    def widen(x: Any) -> Any:
        if isinstance(x, PackedWeight):
            return x.rows().double()
        if isinstance(x, Tensor) and not x.is_floating_point():
            return x
        return x.double() if isinstance(x, Tensor | Written) else x

    return tuple(map(widen, args))


def shares(
    native: HookedTransformer,
    peer: transformers.Gemma3ForCausalLM,
    addresses: Sequence[str],
) -> dict[str, float]:
    """Of each address, the largest share of the bound that a difference takes up."""
    theirs, tokens_T = Lockstep(peer, N_TOKENS), draw_tokens(N_TOKENS)
    used: dict[str, float] = {}
    values: dict[str, Tensor] = {}

    def watch(address: str) -> Callable[..., Tensor]:
        block, _, name = address.rpartition(".")

        def fn(operation: Any, *args: Any, **kwargs: Any) -> Tensor:
            y: Tensor = operation(*args, **kwargs)
            values[address] = found = y
            if name == "attention":
                k_TGh, v_Tm = (values[f"{block}.{part}"] for part in ("rope_k", "v"))
                args = (args[0], Written((k_TGh, v_Tm.view_as(k_TGh))), *args[2:])
            if address in ("embed", "unembed"):  # a few rows of a matrix this large
                args, found = (args[0][-3:], *args[1:]), y[-3:]
            expected = theirs(address, args, kwargs).double()
            bound = 2 * operation_bound(FP32, name, in_double(args), kwargs)
            difference = (found.double() - expected.view(found.shape)).abs()
            assert bool((difference[bound == 0] == 0).all()), address
            used[address] = float((difference / bound.clamp(min=1e-300)).max())
            return y

        return fn

    with ExitStack() as stack, torch.no_grad():
        for address in addresses:
            stack.enter_context(native.override(address, watch(address)))
        native(tokens_T)
    assert list(used) == list(addresses)
    return used


def test_operations_of_both_kinds_of_layers_agree_in_lockstep(
    native: HookedTransformer, peer: transformers.Gemma3ForCausalLM
) -> None:
    """Block 4 slides a window, block 5 does not."""
    some = ("blocks.4.", "blocks.5.", "embed", "ln_final", "unembed")
    addresses = [address for address in native.op_addresses if address.startswith(some)]
    assert len(addresses) == 2 * 19 + 3
    for address, share in shares(native, peer, addresses).items():
        assert share <= 1, address


@pytest.mark.nightly
def test_every_operation_agrees_in_lockstep(
    native: HookedTransformer, peer: transformers.Gemma3ForCausalLM
) -> None:
    for address, share in shares(native, peer, native.op_addresses).items():
        assert share <= 1, address


@pytest.fixture(scope="module")
def wide(gemma3_checkpoint: Checkpoint) -> HookedTransformer:
    return bitlens.load(gemma3_checkpoint, dtype="fp64", backend="torch")


@pytest.mark.nightly
@torch.no_grad()
def test_fp64_is_transformers_in_fp64(
    gemma3_checkpoint: Checkpoint, wide: HookedTransformer
) -> None:
    """Every residual stream and the logits, past the window."""
    tokens_BP = draw_tokens(N_TOKENS)[None]
    own = dict(wide.named_parameters())
    weights = huggingface_weights(gemma3_checkpoint, torch.float64, own)
    with InDouble():
        peer = gemma3(gemma3_checkpoint.config, weights)
        truth = peer(tokens_BP, output_hidden_states=True, logits_to_keep=1)
    assert truth.logits.dtype == torch.float64
    names = [f"blocks.{i}.hook_resid_pre" for i in range(18)]
    found: dict[str, Tensor] = {}

    def keep(x: Tensor, hook: Any) -> None:
        found[hook.name] = x.clone()

    with wide.hooks([(name, keep) for name in names]):
        wide(tokens_BP, return_type=None)
    for name, expected in zip(names, truth.hidden_states, strict=False):
        assert distance(found[name], expected) < TOLERANCE, name
    assert distance(wide.forward_last(tokens_BP), truth.logits[:, 0]) < TOLERANCE


def distance(found: Tensor, truth: Tensor) -> float:
    return float((found - truth).norm() / truth.norm())


@pytest.mark.nightly
def test_fp32_logits_are_within_the_bound(
    gemma3_checkpoint: Checkpoint,
    native: HookedTransformer,
    peer: transformers.Gemma3ForCausalLM,
    wide: HookedTransformer,
) -> None:
    """Of the last position, the best and some others, with the bound of the whole model.

    That is a worst case over all operations, so far from what happens that it would not see small
    faults: the distance to the truth has to be transformers' own, besides.
    """
    tokens_P = native.to_tokens("The capital of France is")[0]
    with torch.no_grad():
        ours, theirs = native(tokens_P)[0, -1], peer(tokens_P[None]).logits[0, -1]
        exact = wide.forward_last(tokens_P[None])[0]
    picked = torch.cat([ours.topk(6).indices, torch.arange(0, 262_144, 50_000)])
    measure = LogitBounds(wide, (Rounding(), FP32))
    truth, (own, other) = measure.of(lambda model: model(tokens_P)[0, -1, picked])
    assert float(((ours[picked] - truth).abs() / own).max()) <= 1
    assert float(((theirs[picked] - truth).abs() / other).max()) <= 1
    assert distance(ours, exact) < 2 * distance(theirs, exact) < 1e-5
    config = gemma3_checkpoint.config
    faulty = dataclasses.replace(config, attn_scale=1.001 * config.attn_scale)
    found = bitlens.load(dataclasses.replace(gemma3_checkpoint, config=faulty))(tokens_P)[0, -1]
    assert distance(found, exact) > 2 * distance(theirs, exact)
