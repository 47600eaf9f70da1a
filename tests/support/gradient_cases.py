"""Gradients at hooks, and what they are gradients of. Tensor names: B batch, P padded positions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from bitlens.model.hooks.registry import has_gradient
from bitlens.model.transformer import HookedTransformer

PER_HEAD = ("hook_attn_in", "hook_q_input", "hook_k_input", "hook_v_input")
"""Hooks whose gradient goes head by head through a norm of its own."""


def gradient_names(model: HookedTransformer) -> list[str]:
    """Every hook with a gradient whose presence moves no bit of the others'."""
    names = model.hook_names
    return [name for name in names if has_gradient(name) and not name.endswith(PER_HEAD)]


def metric(logits: torch.Tensor) -> torch.Tensor:
    """A number whose derivative by a token's logits is the same in every batch."""
    generator = torch.Generator().manual_seed(5)
    weight_V = torch.randn(logits.shape[-1], generator=generator)
    return (logits * weight_V.to(logits.device)).sum()


def gradients(
    model: HookedTransformer,
    tokens_BP: torch.Tensor,
    names: Sequence[str],
    mask_BP: torch.Tensor | None = None,
    **options: Any,
) -> dict[str, torch.Tensor]:
    """Of `metric` at these hooks, as backward hooks see them."""
    found: dict[str, torch.Tensor] = {}

    def keep(tensor: torch.Tensor, hook: Any) -> None:
        found[hook.name] = tensor.detach().clone()

    hooks = [(name, keep) for name in names]
    logits = model.run_with_hooks(tokens_BP, bwd_hooks=hooks, attention_mask=mask_BP, **options)
    metric(logits).backward()
    assert len(found) == len(names), f"never fired: {sorted(set(names) - found.keys())[:5]}"
    return found
