"""The hook points inside a spliced dictionary, under SAELens's names."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ...model.hooks.gradient_hook import watch_gradient
from ...model.hooks.registry import HookPoint, HookRegistry, call_hook, moved, same_bits
from ..dictionaries import DictionaryConfig

INPUT = "hook_sae_input"
ACTS_PRE = "hook_sae_acts_pre"
ACTS_POST = "hook_sae_acts_post"
RECONS = "hook_sae_recons"
ERROR = "hook_sae_error"
OUTPUT = "hook_sae_output"

_EDITABLE = (ACTS_POST, OUTPUT)
_NO_GRADIENT = (ACTS_PRE, ERROR)


def inner_names(cfg: DictionaryConfig) -> list[str]:
    """Returns the hook points inside a dictionary, in the order they fire.

    A gated SAE compares two products, so it has no one pre-activation.
    """
    ends = [INPUT, ACTS_PRE, ACTS_POST, RECONS, ERROR, OUTPUT]
    if cfg.architecture == "gated":
        ends.remove(ACTS_PRE)
    return [f"{cfg.hook_name_out}.{end}" for end in ends]


def inner_has_gradient(name: str) -> bool:
    """Returns whether gradients flow through it; others are computed beside the output's path."""
    return not name.endswith(_NO_GRADIENT)


class InnerHooks:
    """The values at one dictionary's inner hook points during one pass."""

    def __init__(self, registry: HookRegistry, at: str, outer: HookPoint) -> None:
        assert outer.batch is not None
        self.batch = outer.batch
        self._points = registry.points
        self._hooks = registry.now()
        self._at = at

    def wants(self, *ends: str) -> bool:
        """Returns whether a function stands at any of these, or asks for its gradient."""
        names = [f"{self._at}.{end}" for end in ends]
        return any(name in self._hooks.forward for name in names) or any(
            torch.is_grad_enabled() and name in self._hooks.backward for name in names
        )

    def show(
        self, end: str, rows: torch.Tensor, shape: Sequence[int] | None = None
    ) -> torch.Tensor:
        """Fires a hook point on ragged rows [T, n], shown as [B, P, *shape]; returns the rows.

        Raises ValueError where a function edits what goes nowhere.
        """
        if not self.wants(end):
            return rows
        name = f"{self._at}.{end}"
        shown = self.batch.pad(rows if shape is None else rows.reshape(-1, *shape))
        given = shown
        if fns := self._hooks.forward.get(name):
            point = self._points[name].within(self.batch)
            shown = shown.clone(memory_format=torch.contiguous_format)
            for fn in fns:
                shown = call_hook(fn, shown, point)
            if end not in _EDITABLE:
                if not same_bits(shown, given):
                    raise ValueError(f"{name} can be read, not edited; edit its {ACTS_POST}")
                shown = given
            shown = shown.clone() if moved(shown, given) else given
        if torch.is_grad_enabled() and (backward := self._hooks.backward.get(name)):
            point = self._points[name].within(self.batch)
            shown = watch_gradient(shown, backward, point)
        return rows if shown is given else self.batch.strip(shown).flatten(1)
