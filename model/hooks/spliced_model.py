"""A model with hook points inside what is spliced into it.

Tensor names: B batch, P prompt columns, N new tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any, Self

import torch

from ..generation import GenerateOutput
from ..text.prompts import Prompt, Tokens
from ..transformer import HookedTransformer
from .activation_cache import ActivationCache
from .captured_gradients import CapturedGradients
from .captures import PosSlice, select_columns
from .here import here, put_here
from .registry import HookFunction, HookPoint, Hooks, NamesFilter, has_gradient, select_names

Named = list[tuple[str, HookFunction]]


class SplicedModel(ABC):
    """The methods of `HookedTransformer` that run it, over its hooks and the inner ones.

    Everything not defined here is the model's own.
    """

    def __init__(self, model: HookedTransformer) -> None:
        self.model = model

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "model":
            raise AttributeError(name)
        return getattr(self.model, name)

    @property
    @abstractmethod
    def inner_names(self) -> list[str]:
        """The hook points inside what is spliced in."""

    @abstractmethod
    def spliced(self, fwd_hooks: Hooks = (), bwd_hooks: Hooks = ()) -> AbstractContextManager[None]:
        """Splices in, with these functions at inner hook points, for the length of a block."""

    def inner_has_gradient(self, name: str) -> bool:
        """Returns whether gradients flow through an inner hook point."""
        return True

    @property
    def hook_names(self) -> list[str]:
        """The model's hooks, then the inner ones."""
        return self.model.hook_names + self.inner_names

    @contextmanager
    def hooks(self, fwd_hooks: Hooks = (), bwd_hooks: Hooks = ()) -> Iterator[Self]:
        """`HookedTransformer.hooks`, for runs of this object; inner hook points have names, too."""
        forward, inner_forward = self._divided("fwd", fwd_hooks)
        backward, inner_backward = self._divided("bwd", bwd_hooks)
        with self._stand(inner_forward, inner_backward), self.model.hooks(forward, backward):
            yield self

    @contextmanager
    def _stand(self, fwd_hooks: Hooks, bwd_hooks: Hooks) -> Iterator[None]:
        """Has every run that begins in a block install functions at inner hook points."""
        standing = fwd_hooks, bwd_hooks
        put_here(self, (*self._standing(), standing))
        try:
            yield
        finally:
            left = tuple(each for each in self._standing() if each is not standing)
            put_here(self, left or None)

    def _standing(self) -> tuple[tuple[Hooks, Hooks], ...]:
        return here(self, ())

    def _run(self, fwd_hooks: Hooks = (), bwd_hooks: Hooks = ()) -> AbstractContextManager[None]:
        """`spliced`, with what stands at inner hook points already."""
        forward = [each for fwd, _ in self._standing() for each in fwd]
        backward = [each for _, bwd in self._standing() for each in bwd]
        return self.spliced([*forward, *fwd_hooks], [*backward, *bwd_hooks])

    # Running

    def __call__(self, tokens: Tokens, *args: Any, **options: Any) -> Any:
        """`HookedTransformer.forward`, spliced."""
        with self._run():
            return self.model(tokens, *args, **options)

    def forward(self, tokens: Tokens, *args: Any, **options: Any) -> Any:
        """`HookedTransformer.forward`, spliced."""
        return self(tokens, *args, **options)

    def forward_last(self, *args: Any, **options: Any) -> torch.Tensor:
        """`HookedTransformer.forward_last`, spliced."""
        with self._run():
            return self.model.forward_last(*args, **options)

    def forward_last_slice(self, *args: Any, **options: Any) -> torch.Tensor:
        """`HookedTransformer.forward_last_slice`, spliced."""
        with self._run():
            return self.model.forward_last_slice(*args, **options)

    def forward_captures(self, *args: Any, **options: Any) -> None:
        """`HookedTransformer.forward_captures`, spliced."""
        with self._run():
            self.model.forward_captures(*args, **options)

    def run_with_hooks(
        self, tokens: Tokens, fwd_hooks: Hooks = (), bwd_hooks: Hooks = (), **options: Any
    ) -> Any:
        """`HookedTransformer.run_with_hooks`, spliced; functions may stand at inner hook points.

        Raises:
            KeyError: a name that is no hook, with near matches.
            ValueError: a filter that matches nothing, or functions that would stay
                (`reset_hooks_end=False`) at inner hook points.
        """
        if bwd_hooks and not torch.is_grad_enabled():
            raise ValueError("bwd_hooks: gradients are switched off here (torch.no_grad)")
        forward, inner_forward = self._divided("fwd", fwd_hooks)
        backward, inner_backward = self._divided("bwd", bwd_hooks)
        if not options.get("reset_hooks_end", True) and (inner_forward or inner_backward):
            raise ValueError("reset_hooks_end=False: functions at inner hook points cannot stay")
        with self._run(inner_forward, inner_backward):
            return self.model.run_with_hooks(tokens, forward, backward, **options)

    def run_with_cache(
        self,
        tokens: Tokens,
        names_filter: NamesFilter = None,
        pos_slice: PosSlice = None,
        stop_at_layer: int | None = None,
        return_type: Any = "logits",
        *,
        loss_per_token: bool = False,
        remove_batch_dim: bool = False,
        device: torch.device | str | None = None,
        incl_bwd: bool = False,
        **options: Any,
    ) -> tuple[Any, ActivationCache]:
        """`HookedTransformer.run_with_cache`, spliced, with what is at inner hook points.

        Raises KeyError and ValueError as that does; ValueError, too, for an inner hook point that
        is asked for by name and does not fire.
        """
        wanted = select_names(names_filter, self.hook_names)
        outer, inner = self._parts(wanted)
        by_name = names_filter is not None and not callable(names_filter)
        kept = CapturedGradients(self._with_gradient(wanted) if incl_bwd else (), pos_slice)
        if incl_bwd:
            kept.check_loss(return_type, loss_per_token, stop_at_layer)
        backward, inner_backward = self._divided("bwd", kept.hooks)
        found: dict[str, torch.Tensor] = {}
        keepers = [(name, _keeper(name, found, pos_slice)) for name in inner]
        with self._run(keepers, inner_backward), self.model.hooks(bwd_hooks=backward):
            result, cache = self.model.run_with_cache(
                tokens,
                outer if by_name else set(outer).__contains__,
                pos_slice,
                stop_at_layer,
                return_type,
                loss_per_token=loss_per_token,
                **options,
            )
        if incl_bwd:
            kept.backward(result)
        if by_name and (silent := [name for name in inner if name not in found]):
            raise ValueError(f"names_filter: {silent[0]} did not fire in this pass")
        cache = ActivationCache({**cache, **found, **kept.take()}, self.model)
        if remove_batch_dim:
            cache.remove_batch_dim()
        return result, cache if device is None else cache.to(device)

    def generate(
        self, prompt: Prompt, *, capture: Sequence[str] | str = (), **options: Any
    ) -> GenerateOutput:
        """`HookedTransformer.generate`, spliced; `capture` may name inner hook points.

        Raises KeyError and ValueError as that does; ValueError, too, for an inner hook point that
        does not fire.
        """
        outer, inner = self._parts(select_names(capture, self.hook_names) if capture else [])
        steps: dict[str, list[torch.Tensor]] = {name: [] for name in inner}
        collectors = [(name, _collector(steps[name])) for name in inner]
        with self._run(collectors):
            output = self.model.generate(prompt, capture=outer, **options)
        if silent := [name for name in inner if not steps[name]]:
            raise ValueError(f"capture: {silent[0]} did not fire in these passes")
        found = {name: _blanked(torch.cat(xs, dim=1), output) for name, xs in steps.items()}
        return replace(output, captured={**output.captured, **found})

    def _parts(self, names: Iterable[str]) -> tuple[list[str], list[str]]:
        """Names of the model's hooks, and inner ones."""
        model_names = set(self.model.hook_names)
        names = list(names)
        inner = [name for name in names if name not in model_names]
        return [name for name in names if name in model_names], inner

    def _divided(self, dir: str, hooks: Hooks) -> tuple[Named, Named]:
        """Functions on the model's hooks, and at inner ones, one by one."""
        outer: Named = []
        inner: Named = []
        for name, fn in hooks:
            names = select_names(name, self.hook_names)
            if dir == "bwd" and callable(name):
                names = self._with_gradient(names)
            if not names:
                raise ValueError(f"{dir}_hooks: a name filter matches no hook")
            of_model, inside = self._parts(names)
            for each in inside if dir == "bwd" else ():
                if not self.inner_has_gradient(each):
                    raise ValueError(f"bwd_hooks: no gradient flows through {each}")
            outer += [(each, fn) for each in of_model]
            inner += [(each, fn) for each in inside]
        return outer, inner

    def _with_gradient(self, names: Iterable[str]) -> list[str]:
        outer, inner = self._parts(names)
        outer = [name for name in outer if has_gradient(name)]
        return outer + [name for name in inner if self.inner_has_gradient(name)]


def _keeper(name: str, found: dict[str, torch.Tensor], pos_slice: PosSlice) -> HookFunction:
    def fn(tensor: torch.Tensor, *, hook: HookPoint) -> None:
        columns = select_columns(pos_slice, tensor.shape[1])
        x = tensor.detach()
        found[name] = x.clone() if columns is None else x[:, columns]

    return fn


def _collector(xs: list[torch.Tensor]) -> HookFunction:
    def fn(tensor: torch.Tensor, *, hook: HookPoint) -> None:
        xs.append(tensor.detach().clone())

    return fn


def _blanked(x: torch.Tensor, output: GenerateOutput) -> torch.Tensor:
    """x [B, P + N - 1, ...] with zeros on padding and after each sequence's end."""
    n_run = x.shape[1]
    last_B = (
        output.tokens.shape[1] - max(output.n_new) + torch.tensor(output.n_new, device="cpu") - 1
    )
    run_BP = (output.attention_mask[:, :n_run] == 1) & (
        torch.arange(n_run, device="cpu") < last_B[:, None]
    )
    return x.masked_fill(~run_BP.view(*run_BP.shape, *[1] * (x.ndim - 2)), 0.0)
