"""transformers' value at every hook of bitlens, computed from bitlens's values at the hooks before.

The numbers are transformers' own (5.23, eager): modules are watched, and inside norms, rotation
and attention the torch functions that they call. Every value seen is kept, then overwritten in
place by ours. Tensor names: B batch, P positions, H heads, h d_head, d d_model.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any
from unittest import mock

import torch
import transformers
from torch import nn
from torch.overrides import TorchFunctionMode

Tensor = torch.Tensor

HIDDEN = -1e30
"""transformers masks by adding the most negative number of the dtype."""

_NORMS = {
    False: {"input_layernorm": "ln1", "post_attention_layernorm": "ln2"},
    True: {
        "input_layernorm": "ln1",
        "post_attention_layernorm": "ln1_post",
        "pre_feedforward_layernorm": "ln2",
        "post_feedforward_layernorm": "ln2_post",
    },
}
"""transformers' names of a block's norms, without and with sandwich norms."""


@torch.no_grad()
def lockstep(
    model: transformers.PreTrainedModel, tokens_BP: Tensor, ours: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """By hook name, in our shapes."""
    watch = _Watch(ours)
    with ExitStack() as stack:
        _watch_model(model, _Seams(watch, stack))
        model(tokens_BP, use_cache=False)
    return watch.found


class _Watch:
    """What has been seen."""

    def __init__(self, ours: Mapping[str, Tensor]) -> None:
        self.ours = ours
        self.found: dict[str, Tensor] = {}

    def keep(self, name: str, x: Tensor) -> None:
        """A value from which nothing follows."""
        assert name not in self.found, f"{name} was seen twice"
        self.found[name] = x.clone().reshape(self.ours[name].shape)

    def swap(self, name: str, x: Tensor, heads_first: bool = False) -> None:
        """A value that goes on as ours; `heads_first` where transformers has [B, H, P, ...]."""
        shown = x.transpose(1, 2) if heads_first else x
        self.keep(name, shown)
        shown.copy_(self.ours[name].reshape(shown.shape))


class _Seams:
    """Watched modules, until the stack closes."""

    def __init__(self, watch: _Watch, stack: ExitStack) -> None:
        self.watch, self.stack = watch, stack

    def after(self, module: nn.Module, *names: str) -> None:
        """The output goes by all of these names."""

        def fn(module: nn.Module, args: Any, output: Any) -> None:
            self._see(output[0] if isinstance(output, tuple) else output, names)

        self.stack.callback(module.register_forward_hook(fn).remove)

    def before(self, module: nn.Module, *names: str) -> None:
        """The input does."""

        def fn(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            self._see(args[0], names)

        self.stack.callback(module.register_forward_pre_hook(fn).remove)

    def call_before(self, module: nn.Module, fn: Callable[[nn.Module, Any], None]) -> None:
        self.stack.callback(module.register_forward_pre_hook(fn).remove)

    def inside(self, module: nn.Module, mode: TorchFunctionMode) -> None:
        """The module's forward runs under a mode."""
        forward = module.forward

        def fn(*args: Any, **kwargs: Any) -> Any:
            with mode:
                return forward(*args, **kwargs)

        self.stack.enter_context(mock.patch.object(module, "forward", fn))

    def _see(self, x: Tensor, names: tuple[str, ...]) -> None:
        for name in names[1:]:
            self.watch.keep(name, x)
        self.watch.swap(names[0], x)


def _watch_model(model: Any, seams: _Seams) -> None:
    inner = model.model
    seams.before(inner.embed_tokens, "hook_tokens")
    seams.after(inner.embed_tokens, "hook_embed")
    for i, layer in enumerate(inner.layers):
        _watch_block(layer, f"blocks.{i}", seams)
    seams.inside(inner.norm, _InsideNorm(seams.watch, "ln_final"))
    seams.after(inner.norm, "unembed.hook_in")
    seams.after(model.lm_head, "unembed.hook_out")


def _watch_block(layer: Any, b: str, seams: _Seams) -> None:
    attn, mlp, watch = layer.self_attn, layer.mlp, seams.watch
    sandwich = hasattr(layer, "pre_feedforward_layernorm")
    norms = {ours: getattr(layer, theirs) for theirs, ours in _NORMS[sandwich].items()}
    seams.call_before(layer, _block_inputs(b, watch))
    for name, norm in norms.items():
        seams.inside(norm, _InsideNorm(watch, f"{b}.{name}"))
    _watch_attention(attn, f"{b}.attn", seams)
    seams.after(norms["ln1_post"] if sandwich else attn.o_proj, f"{b}.hook_attn_out")
    seams.before(norms["ln2"], f"{b}.hook_resid_mid", f"{b}.hook_mlp_in")
    seams.after(norms["ln2"], f"{b}.mlp.hook_in")
    seams.after(mlp.gate_proj, f"{b}.mlp.hook_pre")
    seams.after(mlp.up_proj, f"{b}.mlp.hook_pre_linear")
    seams.before(mlp.down_proj, f"{b}.mlp.hook_post")
    if sandwich:
        seams.after(mlp, f"{b}.mlp.hook_out")
        seams.after(norms["ln2_post"], f"{b}.hook_mlp_out")
    else:
        seams.after(mlp, f"{b}.mlp.hook_out", f"{b}.hook_mlp_out")
    seams.after(layer, f"{b}.hook_resid_post")


def _watch_attention(attn: Any, address: str, seams: _Seams) -> None:
    watch = seams.watch
    for name in "qkv":
        seams.after(getattr(attn, f"{name}_proj"), f"{address}.hook_{name}")
        norm = getattr(attn, f"{name}_norm", None)
        if norm is not None:
            gemma = "gemma" in type(attn).__module__  # its heads come before positions here
            seams.inside(norm, _InsideNorm(watch, f"{address}.{name}_norm", heads_first=gemma))
    module = sys.modules[type(attn).__module__]
    seams.inside(attn, _InsideAttention(watch, address, module.apply_rotary_pos_emb))
    seams.before(attn.o_proj, f"{address}.hook_z")
    seams.call_before(attn.o_proj, _result_of_heads(address, watch))


def _block_inputs(b: str, watch: _Watch) -> Callable[..., None]:
    """The residual stream, and its copies: transformers makes none for a head."""

    def fn(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        watch.keep(f"{b}.hook_resid_pre", args[0])
        for name in ("attn_in", "q_input", "k_input", "v_input"):
            shape = watch.ours[f"{b}.hook_{name}"].shape
            watch.keep(f"{b}.hook_{name}", args[0].unsqueeze(2).expand(shape))

    return fn


def _result_of_heads(address: str, watch: _Watch) -> Callable[..., None]:
    """Each head's share of what o_proj is about to add up, by its own weight."""

    def fn(module: Any, args: tuple[Tensor, ...]) -> None:
        z_BPHh = args[0].view(watch.ours[f"{address}.hook_z"].shape)
        o_dHh = module.weight.unflatten(1, z_BPHh.shape[2:])
        watch.keep(f"{address}.hook_result", torch.einsum("bphi,dhi->bphd", z_BPHh, o_dHh))

    return fn


class _InsideNorm(TorchFunctionMode):
    """Sees rsqrt(mean + eps), whose inverse is our scale, and the product with it."""

    def __init__(self, watch: _Watch, address: str, heads_first: bool = False) -> None:
        super().__init__()
        self.watch, self.address, self.heads_first = watch, address, heads_first
        self.inverse: Tensor | None = None

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.rsqrt:
            # In fp64, so that inverting it adds no rounding to what is compared.
            scale = 1 / result.double()
            self.watch.swap(f"{self.address}.hook_scale", scale, self.heads_first)
            self.inverse = result.copy_(1 / scale)
        elif self.inverse is not None and any(x is self.inverse for x in args):
            self.inverse = None
            self.watch.swap(f"{self.address}.hook_normalized", result, self.heads_first)
        return result


class _InsideAttention(TorchFunctionMode):
    """Sees rotated queries and keys, and what softmax is given and gives, [B, H, P, K]."""

    def __init__(self, watch: _Watch, address: str, rotate: Any) -> None:
        super().__init__()
        self.watch, self.address = watch, address
        self.module, self.rotate = sys.modules[rotate.__module__], rotate
        self.patch: Any = None

    def __enter__(self) -> Any:
        self.patch = mock.patch.object(self.module, self.rotate.__name__, self._rotated)
        self.patch.start()
        return super().__enter__()

    def __exit__(self, *problem: Any) -> None:
        super().__exit__(*problem)
        self.patch.stop()

    def _rotated(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        q, k = self.rotate(*args, **kwargs)
        self.watch.swap(f"{self.address}.hook_rot_q", q, heads_first=True)
        self.watch.swap(f"{self.address}.hook_rot_k", k, heads_first=True)
        return q, k

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is not nn.functional.softmax:
            return func(*args, **(kwargs or {}))
        scores = args[0]
        scores.masked_fill_(scores < HIDDEN, -torch.inf)
        self.watch.swap(f"{self.address}.hook_attn_scores", scores)
        pattern = func(*args, **(kwargs or {}))
        self.watch.swap(f"{self.address}.hook_pattern", pattern)
        return pattern
