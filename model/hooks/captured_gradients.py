"""The gradients that `run_with_cache(incl_bwd=True)` keeps."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from ..autocast import without_autocast
from .captures import PosSlice, select_columns
from .registry import HookPoint, Hooks, has_gradient, has_key_axis


class CapturedGradients:
    """Gradients of hooks, at the positions that are kept of their activations.

    Attributes:
        hooks: Backward hooks that keep them.
        found: By name + "_grad", in the order backward() reaches them.
    """

    def __init__(self, names: Iterable[str], pos_slice: PosSlice) -> None:
        self.hooks: Hooks = [(name, self._keep) for name in names if has_gradient(name)]
        self.found: dict[str, torch.Tensor] = {}
        self._pos_slice = pos_slice

    def check_loss(
        self, return_type: str | None, loss_per_token: bool, stop_at_layer: int | None
    ) -> None:
        """Raises ValueError unless the pass returns what backward() starts from."""
        if not torch.is_grad_enabled():
            raise ValueError("incl_bwd: gradients are switched off here (torch.no_grad)")
        if stop_at_layer is not None:
            raise ValueError("incl_bwd: a pass that ends at stop_at_layer has no loss")
        if return_type != "loss" or loss_per_token:
            raise ValueError(
                'incl_bwd: backward() starts from one number: return_type="loss" and no '
                "loss_per_token; for a number of your own, give bwd_hooks to run_with_hooks"
            )
        if not self.hooks:
            raise ValueError("incl_bwd: none of the names kept has a gradient")

    def backward(self, loss: torch.Tensor) -> None:
        """Fills `found` by a backward pass."""
        with without_autocast(loss.device):
            loss.backward()  # type: ignore[no-untyped-call]

    def take(self) -> dict[str, torch.Tensor]:
        """Returns the gradients. The hooks, which live as long as the graph, keep none of them."""
        found, self.found = self.found, {}
        return found

    def _keep(self, tensor: torch.Tensor, *, hook: HookPoint) -> None:
        axis = 2 if has_key_axis(hook.name) else 1
        columns = select_columns(self._pos_slice, tensor.shape[axis])
        if columns is not None:
            columns_C = torch.tensor(columns, dtype=torch.int64, device=tensor.device)
            tensor = tensor.index_select(axis, columns_C)
        self.found[f"{hook.name}_grad"] = tensor.clone()
