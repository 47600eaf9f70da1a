"""Hook points: what they are called, what is installed on them, and what counts as an edit."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Literal, Protocol

import torch

from ..batch import RaggedBatch
from ..config import ModelConfig
from .generation_step import GenerationStep, generation_step
from .here import here, put_here

NamesFilter = str | Sequence[str] | Callable[[str], bool] | None

BLOCK_NAMES = (
    "hook_resid_pre",
    "hook_attn_in",
    "hook_q_input",
    "hook_k_input",
    "hook_v_input",
    "ln1.hook_scale",
    "ln1.hook_normalized",
    "attn.hook_q",
    "attn.hook_k",
    "attn.hook_v",
    "attn.q_norm.hook_scale",
    "attn.q_norm.hook_normalized",
    "attn.k_norm.hook_scale",
    "attn.k_norm.hook_normalized",
    "attn.hook_rot_q",
    "attn.hook_rot_k",
    "attn.hook_attn_scores",
    "attn.hook_pattern",
    "attn.hook_z",
    "attn.hook_result",
    "ln1_post.hook_scale",
    "ln1_post.hook_normalized",
    "hook_attn_out",
    "hook_resid_mid",
    "hook_mlp_in",
    "ln2.hook_scale",
    "ln2.hook_normalized",
    "mlp.hook_in",
    "mlp.hook_pre",
    "mlp.hook_pre_linear",
    "mlp.hook_post",
    "mlp.hook_out",
    "ln2_post.hook_scale",
    "ln2_post.hook_normalized",
    "hook_mlp_out",
    "hook_resid_post",
)
FINAL_NAMES = (
    "ln_final.hook_scale",
    "ln_final.hook_normalized",
    "unembed.hook_in",
    "unembed.hook_out",
)
_ON_REQUEST = (
    "hook_tokens",
    "hook_attn_in",
    "hook_q_input",
    "hook_k_input",
    "hook_v_input",
    "attn.hook_result",
    "hook_mlp_in",
    "mlp.hook_in",
    "mlp.hook_out",
)
"""Names TransformerLens keeps behind a flag, or lacks; a cache of every default name omits them."""


def hook_names(config: ModelConfig) -> list[str]:
    """Every hook name of a model, in the order a forward pass reaches them."""
    absent: tuple[str, ...] = ()
    if not config.sandwich_norms:
        absent += ("ln1_post.", "ln2_post.")
    if not config.qk_norm:
        absent += ("attn.q_norm.", "attn.k_norm.")
    block = [name for name in BLOCK_NAMES if not name.startswith(absent)]
    inner = [f"blocks.{i}.{name}" for i in range(config.n_layers) for name in block]
    return ["hook_tokens", "hook_embed", *inner, *FINAL_NAMES]


def is_default(name: str) -> bool:
    """Whether `run_with_cache` without a filter keeps this name."""
    return not name.endswith(_ON_REQUEST)


def has_gradient(name: str) -> bool:
    """Whether the hook holds numbers that something can be differentiated by."""
    return name != "hook_tokens"


def has_key_axis(name: str) -> bool:
    """Whether the hook holds scores or a pattern, whose last axis is keys."""
    return name.endswith(("hook_attn_scores", "hook_pattern"))


def masked_value(name: str) -> float:
    """Returns what the hook holds where there is no value: -inf for scores, 0 for all others."""
    return -math.inf if name.endswith("hook_attn_scores") else 0.0


def layer_of(name: str) -> int | None:
    """The block a hook name or op address belongs to; None outside the blocks."""
    return int(name.split(".")[1]) if name.startswith("blocks.") else None


def depth(names: Iterable[str], n_layers: int) -> int:
    """Returns how many blocks a pass runs until it has reached all these hooks."""
    layers = {name: layer_of(name) for name in names}
    before = [
        0 if name in ("hook_tokens", "hook_embed") else n_layers
        for name, layer in layers.items()
        if layer is None
    ]
    inside = [layer + 1 for layer in layers.values() if layer is not None]
    return max([*before, *inside], default=0)


def unknown_name(kind: str, name: str, known: Iterable[str]) -> KeyError:
    """The error for a name nobody has, with the nearest ones."""
    near = difflib.get_close_matches(name, known, n=4, cutoff=0.5)
    hint = f"did you mean {', '.join(map(repr, near))}?" if near else "nothing comes near"
    return KeyError(f"no {kind} is called {name!r}: {hint}")


def select_names(names_filter: NamesFilter, names: Sequence[str]) -> list[str]:
    """The names a filter asks for, in the order of `names`; None asks for the default ones.

    Raises KeyError with near matches for a string that is no name.
    """
    if names_filter is None:
        return [name for name in names if is_default(name)]
    if callable(names_filter):
        return [name for name in names if names_filter(name)]
    wanted = {names_filter} if isinstance(names_filter, str) else set(names_filter)
    for name in sorted(wanted - set(names)):
        raise unknown_name("hook", name, names)
    return [name for name in names if name in wanted]


class HookPoint:
    """The place at which a hook function is called, as it sees it.

    Attributes:
        name: The full name, such as "blocks.3.attn.hook_pattern".
        ctx: A dictionary of the user's own, kept between calls until `reset_hooks`. The model's:
            calls in several threads share it; what belongs to one call goes into a closure.
        batch: The tokens of the pass that calls; None outside a pass.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.ctx: dict[object, object] = {}
        self.batch: RaggedBatch | None = None

    def within(self, batch: RaggedBatch) -> HookPoint:
        """Returns this point as the functions of one pass see it, which knows its tokens."""
        point = HookPoint(self.name)
        point.ctx = self.ctx
        point.batch = batch
        return point

    @property
    def positions(self) -> torch.Tensor:
        """The position of each token in its own sequence, int64 [B, P]; -1 on padding.

        What a KV cache holds counts, left padding does not. Raises ValueError outside a pass.
        """
        if self.batch is None:
            raise ValueError(f"{self.name}: no pass is calling this hook, so it has no positions")
        return self.batch.positions_BP

    @property
    def generation(self) -> GenerationStep | None:
        """The step of the generation that calls: its index, and each row's tokens so far.

        None outside of `generate`.
        """
        return generation_step()

    def layer(self) -> int:
        """The block's index. Raises ValueError outside the blocks."""
        layer = layer_of(self.name)
        if layer is None:
            raise ValueError(f"{self.name} belongs to no layer")
        return layer

    def __repr__(self) -> str:
        return f"HookPoint({self.name!r})"


class HookFunction(Protocol):
    """Reads a hook's tensor, edits it in place, or returns another of its shape and dtype."""

    def __call__(self, tensor: torch.Tensor, *, hook: HookPoint) -> torch.Tensor | None: ...


Hooks = Sequence[tuple[str | Callable[[str], bool], HookFunction]]
"""Functions by name, or by a predicate on names."""

Direction = Literal["fwd", "bwd"]


@dataclass(frozen=True, eq=False)
class InstalledHooks:
    """Hook functions by name, in the order they are called. Installing more makes another one.

    Attributes:
        forward: Functions of activations.
        backward: Functions of gradients.
    """

    forward: Mapping[str, tuple[HookFunction, ...]]
    backward: Mapping[str, tuple[HookFunction, ...]]

    def __bool__(self) -> bool:
        return bool(self.forward or self.backward)

    def then(self, later: InstalledHooks) -> InstalledHooks:
        """Returns these, followed by later ones."""
        return InstalledHooks(
            _joined(self.forward, later.forward), _joined(self.backward, later.backward)
        )


NO_HOOKS = InstalledHooks({}, {})


class HookRegistry:
    """A model's hook points, and the functions installed on them.

    Those of the model are there for every pass, in any thread; those of a `with` block for the
    passes that its code begins; those of a call for that call.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.points = {name: HookPoint(name) for name in names}
        self._of_model = NO_HOOKS

    def resolve(self, fwd_hooks: Hooks = (), bwd_hooks: Hooks = ()) -> InstalledHooks:
        """Returns functions by the names that their filters accept; installs none.

        Raises KeyError for a name, and ValueError for a filter, that matches nothing, and
        ValueError for the gradient of what has none.
        """
        forward = self._by_name("fwd", fwd_hooks)
        return InstalledHooks(forward, self._by_name("bwd", bwd_hooks))

    def add(
        self, name: str | Callable[[str], bool], fn: HookFunction, dir: Direction = "fwd"
    ) -> None:
        """Installs fn on the model, on one name or on all that a filter accepts.

        Raises as `resolve`.
        """
        hooks = [(name, fn)]
        forward = _checked(dir) == "fwd"
        self.install(self.resolve(hooks) if forward else self.resolve(bwd_hooks=hooks))

    def install(self, hooks: InstalledHooks) -> None:
        """Installs functions on the model; passes under way do not see them."""
        with _CHANGE:
            self._of_model = self._of_model.then(hooks)

    def clear(self, direction: Direction | Literal["both"] = "both") -> None:
        """Removes the model's functions of a direction; with both, every context, too."""
        dirs = ("fwd", "bwd") if direction == "both" else (_checked(direction),)
        with _CHANGE:
            before = self._of_model
            self._of_model = InstalledHooks(
                {} if "fwd" in dirs else before.forward, {} if "bwd" in dirs else before.backward
            )
        for point in self.points.values() if direction == "both" else ():
            point.ctx.clear()

    @contextmanager
    def added(self, fwd_hooks: Hooks, bwd_hooks: Hooks = ()) -> Iterator[None]:
        """Installs hooks for the passes that begin inside a `with` block."""
        hooks = self.resolve(fwd_hooks, bwd_hooks)
        put_here(self, (*self._of_blocks(), hooks))
        try:
            yield
        finally:
            left = tuple(each for each in self._of_blocks() if each is not hooks)
            put_here(self, left or None)

    def now(self, of_call: InstalledHooks = NO_HOOKS) -> InstalledHooks:
        """Returns what a pass that begins now runs: the model's, the blocks' from the outermost
        on, the call's own."""
        found = self._of_model
        for hooks in (*self._of_blocks(), of_call):
            if hooks:
                found = found.then(hooks)
        return found

    def _of_blocks(self) -> tuple[InstalledHooks, ...]:
        return here(self, ())

    def _by_name(self, dir: Direction, hooks: Hooks) -> dict[str, tuple[HookFunction, ...]]:
        found: dict[str, tuple[HookFunction, ...]] = {}
        for name, fn in hooks:
            for each in self._names(dir, name):
                found[each] = (*found.get(each, ()), fn)
        return found

    def _names(self, dir: Direction, name: str | Callable[[str], bool]) -> list[str]:
        names = select_names(name, list(self.points))
        if dir == "bwd":
            if isinstance(name, str) and not has_gradient(name):
                raise ValueError(f"bwd_hooks: {name} holds integers, which have no gradient")
            names = [each for each in names if has_gradient(each)]
        if not names:
            raise ValueError(
                f"{dir}_hooks: a name filter matches no hook, so its function never runs"
            )
        return names


_CHANGE = Lock()
"""Held while a model's hooks are replaced by others."""


def _joined(
    first: Mapping[str, tuple[HookFunction, ...]], then: Mapping[str, tuple[HookFunction, ...]]
) -> Mapping[str, tuple[HookFunction, ...]]:
    return {**first, **{name: (*first.get(name, ()), *fns) for name, fns in then.items()}}


def _checked(dir: Direction) -> Direction:
    if dir not in ("fwd", "bwd"):
        raise ValueError(f"hooks of direction {dir!r}: expected 'fwd' or 'bwd'")
    return dir


def in_order(fns: Sequence[HookFunction]) -> list[HookFunction]:
    """Functions as they are called: those with a true `runs_last` see what the others leave."""
    return sorted(fns, key=lambda fn: bool(getattr(fn, "runs_last", False)))


def call_hook(fn: HookFunction, tensor: torch.Tensor, point: HookPoint) -> torch.Tensor:
    """Calls one hook function; what it leaves in place counts when it returns None.

    Raises TypeError or ValueError if it returns anything but a tensor of the same shape, dtype and
    device.
    """
    result = fn(tensor, hook=point)
    if result is None:
        return tensor
    if not isinstance(result, torch.Tensor):
        raise TypeError(
            f"the hook on {point.name} returned {type(result).__name__}, not a tensor or None"
        )
    found = (list(result.shape), result.dtype, result.device)
    expected = (list(tensor.shape), tensor.dtype, tensor.device)
    if found != expected:
        raise ValueError(
            f"the hook on {point.name} returned {_describe(found)}, expected {_describe(expected)}"
        )
    return result


def _describe(kind: tuple[list[int], torch.dtype, torch.device]) -> str:
    shape, dtype, device = kind
    return f"{str(dtype).removeprefix('torch.')} {shape} on {device}"


_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def bits(x: torch.Tensor) -> torch.Tensor:
    """The bit patterns of x as integers, which tell -0 from 0 and NaN from NaN."""
    x = x.detach()
    return x if not x.is_floating_point() else x.view(_BITS[x.element_size()])


def same_bits(x: torch.Tensor, y: torch.Tensor) -> bool:
    """Whether two tensors of one shape and dtype hold the same bits."""
    return torch.equal(bits(x), bits(y))


def in_graph(*tensors: torch.Tensor) -> bool:
    """Whether an operation on these is recorded for backward()."""
    return torch.is_grad_enabled() and any(x.requires_grad for x in tensors)


def moved(result: torch.Tensor, shown: torch.Tensor) -> bool:
    """Whether to go on from a hook's result: its bits differ, or one of them is in a graph.

    In a graph equal bits may be a detached copy, which stops gradients.
    """
    return in_graph(result, shown) or not same_bits(result, shown)
