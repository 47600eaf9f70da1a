"""Gemma 2 at every hook that transformers shows, soft caps included, to a derived bound; and
Gemma 3's cap of scores.

Truth is transformers in fp64; docs/accuracy.md derives the bounds. T tokens, K keys, H heads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import bitlens
import pytest
import torch
import transformers
from bitlens.benchmarks.hugging_face import InDouble
from bitlens.model.transformer import HookedTransformer
from support.error_bounds import LogitBounds, attention_pattern
from support.huggingface_cases import (
    NATIVE,
    SHAPE,
    TRANSFORMERS,
    heads,
    random_weights,
    rope,
    used,
)

CONFIG = transformers.Gemma2Config(
    **SHAPE | {"hidden_size": 42},
    **heads(3, 1, 10),
    query_pre_attn_scalar=12,
    sliding_window=4,
    rope_parameters=rope(1e4),
    attn_logit_softcapping=1.5,
    final_logit_softcapping=2.0,
)
TOKENS_T = torch.randint(48, (6,), generator=torch.Generator().manual_seed(4))
LAYERS = range(CONFIG.num_hidden_layers)
Seen = dict[str, torch.Tensor]


def _outputs(output: Any) -> Seen:
    """transformers' outputs by the names of the hooks that show the same."""
    *before, last = output.hidden_states
    seen = {f"blocks.{i}.hook_resid_pre": before[i][0] for i in LAYERS}
    seen |= {f"blocks.{i}.attn.hook_pattern": output.attentions[i][0] for i in LAYERS}
    return seen | {"unembed.hook_in": last[0], "logits": output.logits[0]}


def _inner(model: Any, run: Callable[[], Any]) -> Seen:
    """What the modules inside return, by the names of our hooks."""
    seen: Seen = {}

    def keep(name: str, shape: tuple[int, ...] = ()) -> Callable[..., None]:
        def hook(module: Any, args: Any, output: torch.Tensor) -> None:
            seen[name] = output[0].unflatten(-1, shape) if shape else output[0]

        return hook

    points: dict[str, tuple[Any, tuple[int, ...]]] = {"unembed.hook_out": (model.lm_head, ())}
    for i, layer in enumerate(model.model.layers):
        attn, mlp, b = layer.self_attn, layer.mlp, f"blocks.{i}"
        points |= {
            f"{b}.attn.hook_q": (attn.q_proj, (3, 10)),
            f"{b}.attn.hook_k": (attn.k_proj, (1, 10)),
            f"{b}.attn.hook_v": (attn.v_proj, (1, 10)),
            f"{b}.hook_attn_out": (layer.post_attention_layernorm, ()),
            f"{b}.mlp.hook_in": (layer.pre_feedforward_layernorm, ()),
            f"{b}.mlp.hook_pre": (mlp.gate_proj, ()),
            f"{b}.mlp.hook_pre_linear": (mlp.up_proj, ()),
            f"{b}.mlp.hook_out": (mlp.down_proj, ()),
            f"{b}.hook_mlp_out": (layer.post_feedforward_layernorm, ()),
        }
    handles = [m.register_forward_hook(keep(name, s)) for name, (m, s) in points.items()]
    output = run()
    for handle in handles:
        handle.remove()
    return seen | _outputs(output)


@dataclass(frozen=True)
class Peer:
    """Values of transformers in fp64 and fp32, and the bounds of our fp32 and of its own."""

    path: Any
    truth: Seen
    fp32: Seen
    bounds: Mapping[str, list[torch.Tensor]]


@torch.no_grad()
def _values(model: Any) -> Seen:
    tokens_BP = TOKENS_T[None]
    return _inner(
        model, lambda: model(tokens_BP, output_hidden_states=True, output_attentions=True)
    )


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Peer:
    torch.set_num_threads(1)  # the tensors are tiny: threads would only wait for each other
    path = tmp_path_factory.mktemp("gemma2")
    model = random_weights(CONFIG)
    model.save_pretrained(path)
    with InDouble():
        wide = transformers.AutoModelForCausalLM.from_config(CONFIG, attn_implementation="eager")
        wide.double().load_state_dict(model.state_dict())
        truth = _values(wide.eval())
    fp64 = bitlens.load(path, dtype="fp64", backend="torch")
    measure = LogitBounds(fp64, (NATIVE, TRANSFORMERS))
    bounds = {name: _bounds(measure, name) for name in truth}
    return Peer(path, truth, _values(model), bounds)


def _at(model: HookedTransformer, *names: str) -> list[torch.Tensor]:
    """Hooks of one pass, in the graph of its operations; "logits" is what it returns."""
    seen = {}

    def keep(tensor: torch.Tensor, *, hook: Any) -> None:
        seen[hook.name] = tensor[0]

    with model.hooks([(name, keep) for name in names if name != "logits"]):
        seen["logits"] = model(TOKENS_T)[0]
    return [seen[name] for name in names]


def _bounds(measure: LogitBounds, name: str) -> list[torch.Tensor]:
    """Of one hook under each rounding. A pattern has no address of its own: what q and k are off,
    and what its own arithmetic adds."""
    if not name.endswith("hook_pattern"):
        return measure.of(lambda model: _at(model, name)[0])[1]
    layer, n = int(name.split(".")[1]), len(TOKENS_T)
    distance = torch.arange(n)[:, None] - torch.arange(n)
    hidden = (distance < 0) | (distance >= (measure.model.config.layers[layer].window or n))
    added: list[torch.Tensor] = []

    def pattern(model: HookedTransformer) -> torch.Tensor:
        names = (name.replace("pattern", f"rot_{x}") for x in "qk")
        q, k = (x.transpose(0, 1) for x in _at(model, *names))
        options = (hidden, model.config.attn_scale, model.config.attn_logit_softcap)
        with torch.no_grad():
            added.extend(attention_pattern(r, q, k, *options)[1] for r in measure.roundings)
        return attention_pattern(NATIVE, q, k, *options)[0]

    return [x + y for x, y in zip(measure.of(pattern)[1], added, strict=True)]


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_every_hook_is_within_the_bound_of_the_truth(peer: Peer, backend: str) -> None:
    model = bitlens.load(peer.path, backend=backend)
    shares = {}
    for name, truth in peer.truth.items():
        found = _at(model, name)[0].detach()
        ours, theirs = peer.bounds[name]
        floor = torch.finfo(torch.float64).tiny  # masked: exactly equal
        shares[name] = max(
            used(found, truth, ours + floor), used(found, peer.fp32[name], ours + theirs + floor)
        )
    assert max(shares.values()) <= 1, shares
    assert len(shares) == 2 + 1 + len(LAYERS) * 11


def test_the_bounds_are_small_and_see_a_cap_that_is_off(peer: Peer) -> None:
    model = bitlens.load(peer.path)
    for name in ("logits", "blocks.1.attn.hook_pattern"):
        assert float(peer.bounds[name][0].max()) < 1e-3 * float(peer.truth[name].abs().max())
    (raw,) = _at(model, "unembed.hook_out")
    assert used(raw, peer.truth["logits"], peer.bounds["logits"][0]) > 1
    off = model.ops.soft_cap(raw, 2.0 * (1 + 1e-4))
    assert used(off, peer.truth["logits"], peer.bounds["logits"][0]) > 1


def test_gemma3s_scores_are_capped_where_its_config_asks(tmp_path: Any) -> None:
    """transformers 5.23 reads the field and passes it to nobody; told to, it caps as we do."""
    shape = SHAPE | heads(2, 1, 20) | {"query_pre_attn_scalar": 12, "num_hidden_layers": 1}
    config = transformers.Gemma3TextConfig(**shape, attn_logit_softcapping=1.5)
    peer = random_weights(config)
    peer.save_pretrained(tmp_path)
    with torch.no_grad():
        left_out, capped = (
            peer(TOKENS_T[None], **options).logits[0] for options in ({}, {"softcap": 1.5})
        )
    fp64 = bitlens.load(tmp_path, dtype="fp64", backend="torch")
    _, (ours, theirs) = LogitBounds(fp64, (NATIVE, TRANSFORMERS))(TOKENS_T)
    (logits,) = _at(bitlens.load(tmp_path), "logits")
    assert used(logits, capped, ours + theirs) <= 1
    assert used(logits, left_out, ours + theirs) > 1
