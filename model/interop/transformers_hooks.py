"""Hooks on a transformers model's modules that show a pass where each operation ends.

Results are taken as all hooks that are there already leave them, and what a module is given before
any of them sees it. Tensor names: B batch, P positions, H heads, h d_head, n H h.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch.utils.hooks import RemovableHandle

from ..config import ModelConfig
from .transformers_pass import AttentionCall, ObservedPass
from .transformers_structure import norms
from .transformers_units import Unit

CurrentPass = Callable[[], ObservedPass | None]
"""The pass that this thread runs; hooks do nothing for passes that nobody observes."""


@contextmanager
def watched(
    model: Any, inner: Any, config: ModelConfig, units: Mapping[str, Unit], current: CurrentPass
) -> Iterator[None]:
    """Puts the hooks on for the length of a `with` block.

    `model` is called, and holds the model of the family, `inner`; of `units` only the whole is
    seen, at their addresses.
    """
    hooks = _Hooks(config, units, current)
    try:
        hooks.after("embed", inner.model.embed_tokens, ("tokens",))
        resid = "embed"
        for i, layer in enumerate(inner.model.layers):
            hooks.block(f"blocks.{i}", layer, resid)
            hooks.mlp(f"blocks.{i}", layer.mlp)
            resid = f"blocks.{i}.resid_post"
        hooks.after("ln_final", inner.model.norm, (resid,))
        hooks.logits(model)
        yield
    finally:
        hooks.remove()


class _Hooks:
    def __init__(
        self, config: ModelConfig, units: Mapping[str, Unit], current: CurrentPass
    ) -> None:
        self._config, self._units, self._current = config, units, current
        self._handles: list[RemovableHandle] = []

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()

    def after(self, address: str, module: Any, operands: tuple[str, ...]) -> None:
        """The operation's result is what the module returns."""

        def hook(_: Any, __: Any, output: Any) -> Any:
            run = self._current()
            if run is None:
                return None
            result = output[0] if isinstance(output, tuple) else output
            new = run.fire(address, result, *map(run.value, operands))
            if new is result:
                return None
            return (new, *output[1:]) if isinstance(output, tuple) else new

        self._handles.append(module.register_forward_hook(hook))

    def before(self, address: str, module: Any, operands: Callable[[ObservedPass], Any]) -> None:
        """The operation's result is what the module is given, and nothing else uses it."""

        def hook(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            run = self._current()
            if run is None:
                return None
            given, put = _first(args, kwargs)
            new = run.fire(address, given, *operands(run))
            return None if new is given else put(new)

        self._pre(module, hook)

    def block(self, b: str, layer: Any, resid: str) -> None:
        """Everything in one block; `resid` is what the residual stream holds before it."""
        norm = norms(layer)
        attn_out, mlp_out = f"{b}.attn.o", f"{b}.mlp.down"
        self.after(f"{b}.ln1", norm["ln1"], (resid,))
        if attn_out in self._units:
            self.after(attn_out, layer.self_attn, (f"{b}.ln1",))
        else:
            self.attention(f"{b}.attn", layer.self_attn, f"{b}.ln1")
            self.after(attn_out, layer.self_attn.o_proj, (f"{b}.attn.attention",))
        if "ln1_post" in norm:
            self.after(f"{b}.ln1_post", norm["ln1_post"], (attn_out,))
            self.after(f"{b}.ln2_post", norm["ln2_post"], (mlp_out,))
            attn_out, mlp_out = f"{b}.ln1_post", f"{b}.ln2_post"
        self._residual(f"{b}.resid_mid", norm["ln2"], (resid, attn_out))
        self.after(f"{b}.ln2", norm["ln2"], (f"{b}.resid_mid",))
        self.after(f"{b}.resid_post", layer, (f"{b}.resid_mid", mlp_out))
        self._handles.append(layer.register_forward_hook(partial(self._end, b)))

    def mlp(self, b: str, mlp: Any) -> None:
        """Its operations, or the whole under the last one's address."""
        gate, up, act, down = (f"{b}.mlp.{name}" for name in ("gate", "up", "act", "down"))
        if down in self._units:
            self.after(down, mlp, (f"{b}.ln2",))
            return
        self.after(gate, mlp.gate_proj, (f"{b}.ln2",))
        self.after(up, mlp.up_proj, (f"{b}.ln2",))
        self.before(act, mlp.down_proj, lambda run: (run.value(gate), run.value(up)))
        self.after(down, mlp.down_proj, (act,))

    def _end(self, b: str, *_: Any) -> None:
        run = self._current()
        if run is not None:
            run.forget(b, but=f"{b}.resid_post")

    def _residual(self, address: str, norm: Any, operands: tuple[str, str]) -> None:
        """The block's first sum: what the second norm is given, and the second sum takes up again.

        What is put in its place is written into the tensor that both of them have.
        """

        def hook(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            run = self._current()
            if run is None:
                return
            given, _ = _first(args, kwargs)
            new = run.fire(address, given, *map(run.value, operands))
            if new is not given:
                given.copy_(new)

        self._pre(norm, hook)

    def attention(self, a: str, attn: Any, x: str) -> None:
        """Up to what the last linear is given."""
        for name in ("q", "k", "v"):
            self.after(f"{a}.{name}", getattr(attn, f"{name}_proj"), (x,))
        for name in ("q", "k") if self._config.qk_norm else ():
            self._head_norm(a, name, getattr(attn, f"{name}_norm"))
        unit = self._units.get(f"{a}.attention")
        is_turned = unit is None or f"{a}.rope_q" not in unit.inside
        if is_turned:
            self._pre(attn, partial(self._enter, a))
            self._handles.append(attn.register_forward_hook(self._leave))

        def operands(run: ObservedPass) -> tuple[torch.Tensor, ...]:
            names = ("rope_q", "rope_k")
            turned = (
                run.value(f"{a}.{name}") if is_turned else self._unturned(run, a, name)
                for name in names
            )
            return (*turned, self._heads(run.value(f"{a}.v")))

        self.before(f"{a}.attention", attn.o_proj, operands)

    def _enter(self, a: str, *_: Any) -> None:
        run = self._current()
        if run is not None:
            heads = (self._config.n_heads, self._config.n_key_value_heads)
            values = partial(run.seen, f"{a}.v")
            run.attention = AttentionCall(a, heads, values, partial(self._rotated, run, a))

    def _leave(self, *_: Any) -> None:
        run = self._current()
        if run is not None:
            run.attention = None

    def _rotated(self, run: ObservedPass, a: str, name: str, rotated: torch.Tensor) -> Any:
        return run.fire(f"{a}.{name}", rotated, self._unturned(run, a, name))

    def _unturned(self, run: ObservedPass, a: str, name: str) -> torch.Tensor:
        """Returns the tensor that "rope_q" or "rope_k" starts from: [B, H, P, h]."""
        source = name.removeprefix("rope_")
        if not self._config.qk_norm:
            return self._heads(run.value(f"{a}.{source}"))
        x: torch.Tensor = run.value(f"{a}.{source}_norm")
        return x if self._config.sandwich_norms else x.transpose(1, 2)

    def _head_norm(self, a: str, name: str, norm: Any) -> None:
        """Gemma 3 makes heads the second axis before it, Qwen 3 after it."""

        def hook(_: Any, __: Any, output: torch.Tensor) -> Any:
            run = self._current()
            if run is None:
                return None
            x_BHPh = self._heads(run.value(f"{a}.{name}"))
            x = x_BHPh if self._config.sandwich_norms else x_BHPh.transpose(1, 2)
            new = run.fire(f"{a}.{name}_norm", output, x)
            return None if new is output else new

        self._handles.append(norm.register_forward_hook(hook))

    def _heads(self, x_BPn: torch.Tensor) -> torch.Tensor:
        x_BPHh = x_BPn.view(*x_BPn.shape[:2], -1, self._config.d_head)
        return x_BPHh.transpose(1, 2)

    def logits(self, model: Any) -> None:
        """What the model returns, whatever follows the unembedding."""

        def hook(_: Any, __: Any, output: Any) -> Any:
            run = self._current()
            if run is None:
                return None
            new = run.fire("unembed", output.logits, run.value("ln_final"))
            if new is not output.logits:
                output["logits"] = new
            return output

        self._handles.append(model.register_forward_hook(hook))

    def _pre(self, module: Any, hook: Callable[..., Any]) -> None:
        handle = module.register_forward_pre_hook(hook, prepend=True, with_kwargs=True)
        self._handles.append(handle)


def _first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Callable[[Any], Any]]:
    """A module's first argument, and how to put another one in its place."""
    if args:
        return args[0], lambda new: ((new, *args[1:]), kwargs)
    name = next(iter(kwargs))
    return kwargs[name], lambda new: (args, kwargs | {name: new})
