"""A Hugging Face model in bf16 and ours under hf_bf16, operation by operation on equal inputs.

Both sides round at the same points; what is left is the order of fp32 sums, which may put a value
on the other side of a rounding. A bound is twice that of the fp32 arithmetic, and for each rounding
to bf16 on the way 2 u16 of what is rounded. Tensor names: T rows, H heads, G key/value heads,
K keys, h d_head.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bitlens
import torch
import transformers
from bitlens.model.interop.transformers_addresses import TransformersAddresses
from bitlens.model.ops.packed import PackedWeight
from bitlens.model.rope.scaling import rotary_frequencies
from support.error_bounds import Rounding, operation_bound

U16 = 2.0**-8
FP32 = Rounding()
N_TOKENS = 24

Tensor = torch.Tensor
Values = dict[str, Tensor]


@dataclass
class Lockstep:
    """Our values, transformers' on our inputs, and the bound on their difference.

    Attributes:
        hooks: Ours, of every hook.
    """

    ours: Values = field(default_factory=dict)
    theirs: Values = field(default_factory=dict)
    bounds: Values = field(default_factory=dict)
    hooks: Values = field(default_factory=dict)


def peer_of(path: Path) -> transformers.PreTrainedModel:
    factory: Any = transformers.AutoModelForCausalLM
    model = factory.from_pretrained(path, attn_implementation="eager", dtype=torch.bfloat16)
    return model.eval()


@functools.lru_cache(maxsize=4)
def lockstep(path: Path, backend: str) -> Lockstep:
    """Values by address of an operation or, inside of one and for heads' results, by hook."""
    found = Lockstep()
    model = bitlens.load(path, dtype="hf_bf16", backend=backend)  # type: ignore[arg-type]
    raw: Any = peer_of(path)
    peer = TransformersAddresses(raw)
    rotated: dict[str, tuple[Tensor, Tensor]] = {}
    is_gemma = model.config.norm_offset != 0
    tokens_P = torch.randint(48, (N_TOKENS,), generator=torch.Generator().manual_seed(2))

    def keep(address: str) -> Callable[..., Tensor]:
        def fn(operation: Any, *args: Any, **kwargs: Any) -> Tensor:
            y: Tensor = operation(*args, **kwargs)
            found.ours[address] = y
            if address.endswith(".attention"):
                found.bounds |= _attention_bounds(address, y, *args, **kwargs)
            else:
                found.bounds[address] = _bound(address, y, args, kwargs, is_gemma)
            return y

        return fn

    def swap(address: str) -> Callable[..., Any]:
        heads_first = ".rope_" in address or (is_gemma and address.endswith("_norm"))

        def fn(operation: Any, *args: Any, **kwargs: Any) -> Any:
            y = operation(*args, **kwargs)
            shown = y.transpose(1, 2) if heads_first else y
            found.theirs[address] = shown.reshape(found.ours[address].shape)
            if address.endswith(".attention"):
                rotated[address.removesuffix(".attention")] = args[:2]
            elif "ln" in address or address.endswith("_norm"):
                x = args[0].transpose(1, 2) if heads_first else args[0]
                _look_inside_norm(found, address, x, raw.config.rms_norm_eps, is_gemma)
            mine = found.ours[address].view(shown.shape).to(y.dtype)
            return mine.transpose(1, 2) if heads_first else mine

        return fn

    with ExitStack() as stack, torch.no_grad():
        assert set(model.op_addresses) == set(peer.op_addresses)
        for address in model.op_addresses:
            stack.enter_context(model.override(address, keep(address)))
        _, cache = model.run_with_cache(tokens_P, names_filter=list(model.hook_names))
        found.hooks = {name: x[0] for name, x in cache.items()}
        for address in peer.op_addresses:
            stack.enter_context(peer.override(address, swap(address)))
        for i, layer in enumerate(raw.model.layers):
            look = functools.partial(
                _look_inside_attention, found.theirs, f"blocks.{i}.attn", rotated
            )
            layer.self_attn.register_forward_hook(look, with_kwargs=True)
        peer(tokens_P)
        for i, layer in enumerate(raw.model.layers):
            _results_of_heads(found, f"blocks.{i}.attn", layer.self_attn.o_proj.weight)
    return found


def _bound(address: str, y: Tensor, args: tuple[Any, ...], kwargs: Any, is_gemma: bool) -> Tensor:
    """How far two implementations with these rounding points may be apart, given equal inputs."""
    name = address.rpartition(".")[2]
    wide = tuple(_widened(x) for x in args)
    arithmetic = 2 * operation_bound(FP32, name, wide, kwargs)
    if name.startswith("rope"):
        x, _, theta, *scaling = wide
        half = x.shape[-1] // 2
        pair = x[..., :half].abs() + x[..., half:].abs()
        # cos and sin, both products, the sum; the peer forms its angles in fp32.
        loose = 2 * operation_bound(Rounding(angles=True), name, wide, kwargs)
        found = rotary_frequencies(theta, x.shape[-1], *(scaling or [None]), N_TOKENS)
        return loose + 6.1 * U16 * found.attention_factor * torch.cat([pair, pair], -1)
    is_norm = name.startswith("ln") or name.endswith("_norm")
    roundings = 0 if name == "embed" else 2 if name == "act" or (is_norm and not is_gemma) else 1
    return arithmetic + 2.05 * roundings * U16 * (y.double().abs() + arithmetic)


def _widened(x: Any) -> Any:
    if isinstance(x, PackedWeight):
        return x.rows().double()
    return x.double() if isinstance(x, Tensor) and x.is_floating_point() else x


def _attention_bounds(
    address: str,
    z_THh: Tensor,
    q_THh: Tensor,
    cache: Any,
    batch: Any,
    *,
    scale: float,
    cap: None,
    window: int | None,
) -> Values:
    """Of z and of what is inside: scores and pattern [T, H, K]."""
    k_GKh, v_GKh = (x.double().transpose(0, 1) for x in cache.gather(0, batch.totals[0]))
    q = q_THh.double().transpose(0, 1)
    k, v = (x.repeat_interleave(q.shape[0] // x.shape[0], 0) for x in (k_GKh, v_GKh))
    hidden = ~batch.visible_THK(window).transpose(0, 1)
    scores = (q @ k.mT * scale).masked_fill(hidden, -torch.inf)
    sizes = scores.abs().masked_fill(hidden, 0.0)
    # Each side is within u16, twice, of the exact score: before and after scaling.
    scores_off = 2 * FP32.scores(q, k, scale) + 4.1 * U16 * sizes
    pattern = scores.softmax(-1)
    # First order, times 1.2 for the rest; then the pattern's own rounding.
    off = 1.2 * FP32.softmax(scores, scores_off + 2.1 * U16 * sizes) + 2.1 * U16 * pattern
    z_off = FP32.values(pattern, v, off.masked_fill(hidden, 0.0)).transpose(0, 1)
    attn = address.removesuffix(".attention")
    return {
        address: 2 * z_off + 2.05 * U16 * z_THh.double().abs(),
        f"{attn}.hook_attn_scores": scores_off,
        f"{attn}.hook_pattern": 2 * off,
    }


def _look_inside_attention(
    theirs: Values,
    attn: str,
    rotated: dict[str, tuple[Tensor, Tensor]],
    module: Any,
    _: Any,
    kwargs: dict[str, Any],
    output: tuple[Tensor, Tensor],
) -> None:
    """The pattern that transformers returns, and its scores by its own expression."""
    q_BHTh, k_BGKh = rotated[attn]
    mask, pattern_BHTK = kwargs["attention_mask"], output[1]
    k_BHKh = k_BGKh.repeat_interleave(q_BHTh.shape[1] // k_BGKh.shape[1], 1)
    scores = torch.matmul(q_BHTh, k_BHKh.transpose(2, 3)) * module.scaling
    theirs[f"{attn}.hook_attn_scores"] = scores.masked_fill(mask < 0, -torch.inf)[0]
    theirs[f"{attn}.hook_pattern"] = pattern_BHTK[0]


def _results_of_heads(found: Lockstep, attn: str, o_dn: Tensor) -> None:
    """transformers' product of one head alone, which it never forms; the others are zeros."""
    z_THh, name = found.hooks[f"{attn}.hook_z"], f"{attn}.hook_result"
    one_head = torch.eye(z_THh.shape[1], dtype=z_THh.dtype)
    alone_THn = (z_THh[:, None] * one_head[:, :, None]).flatten(2)
    theirs = torch.nn.functional.linear(alone_THn, o_dn)
    arithmetic = 2 * FP32.linear(alone_THn.double(), o_dn.double())
    found.theirs[name] = theirs
    found.bounds[name] = arithmetic + 2.05 * U16 * (theirs.double().abs() + arithmetic)


def _look_inside_norm(found: Lockstep, address: str, x: Tensor, eps: float, is_gemma: bool) -> None:
    """Scale and normalized by the expressions of `LlamaRMSNorm` and `Gemma3RMSNorm`."""
    names = (f"{address}.hook_scale", f"{address}.hook_normalized")
    inverse = torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + eps)
    normalized = x.float() * inverse
    shapes = [found.hooks[name].shape for name in names]
    if not is_gemma:
        normalized = normalized.bfloat16()
    found.theirs[names[0]] = (1 / inverse.double()).view(shapes[0])
    found.theirs[names[1]] = normalized.view(shapes[1])
    wide = x.double().view(shapes[1])
    ones = torch.ones(wide.shape[-1], dtype=torch.float64)
    found.bounds[names[0]] = 2 * FP32.rms_scale(wide, eps)
    arithmetic = 2 * FP32.rms_norm(wide, ones, eps)
    rounding = 0.0 if is_gemma else 2.05 * U16
    found.bounds[names[1]] = arithmetic + rounding * (normalized.double().view(shapes[1]).abs())
