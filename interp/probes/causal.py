"""Whether a probe's direction does what it detects: ablation and steering, with intervals.

A direction that reads off refusal need not be what makes a model refuse. Ablating it from the
residual stream, and adding it, show whether what the model says follows; random directions of the
same size are the control (Arditi et al., 2024, arXiv 2406.11717).

Shapes: B prompts, S positions, D width of the residual stream.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...model.hooks.registry import HookFunction, HookPoint, Hooks, layer_of
from ...model.transformer import HookedTransformer
from ...precision.statistics import clustered_mean
from .figures import Array
from .probe import Probe

N_RANDOM = 3
"""Random directions of the control."""

Edit = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Effect:
    """The mean change of the log-odds over prompts, with a 95% interval.

    Attributes:
        control: The same of each random direction.
    """

    mean: float
    low: float
    high: float
    control: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as JSON holds them."""
        return {"mean": self.mean, "low": self.low, "high": self.high,
                "control": list(self.control)}  # fmt: skip


def causal_check(
    model: HookedTransformer,
    probe: Probe,
    prompts: Sequence[Sequence[int]],
    says: Sequence[int],
    rather: Sequence[int],
    *,
    strength: float = 1.0,
    seed: int = 0,
) -> dict[str, Any]:
    """Returns how far ablating and adding a probe's direction moves what the model says.

    Measured is the log-odds of answering `says` rather than `rather`, both teacher-forced.
    "ablated": the direction is projected out of the residual stream after every block. "steered":
    it is added after the probe's block, at every position, `strength` times as long as the spread
    of the prompts' rows along it.

    Args:
        probe: A linear one of one hook "blocks.L.hook_resid_post".
        prompts: Token ids that end where the answer begins; one cluster each.
        says, rather: Token ids of two answers, such as a refusal and a compliance.

    Raises ValueError for another probe, fewer than two prompts, and empty answers.
    """
    layer = layer_of(probe.hook_name)
    probe.check_fitted()
    if len(probe.coef_) != 1 or not probe.hook_name.endswith("hook_resid_post") or layer is None:
        raise ValueError(
            "causal_check: expected one direction in the residual stream after a block"
        )
    if len(prompts) < 2 or not says or not rather:
        raise ValueError("causal_check: expected two prompts at least, and answers with tokens")
    unit = torch.nn.functional.normalize(probe.coef_[0].double(), dim=0).float()
    size = strength * _spread(model, probe.hook_name, unit, prompts)
    generator = torch.Generator().manual_seed(seed)
    others = torch.randn(
        N_RANDOM, len(unit), generator=generator, dtype=torch.float32, device="cpu"
    )
    directions = [unit, *torch.nn.functional.normalize(others, dim=1)]

    def odds(edits: dict[str, Edit]) -> Array:
        return np.array([_log_odds(model, p, says, rather, edits) for p in prompts])

    plain = odds({})
    after = [f"blocks.{i}.hook_resid_post" for i in range(model.config.n_layers)]
    moved = {
        "ablated": [odds(dict.fromkeys(after, _ablated(u))) - plain for u in directions],
        "steered": [odds({probe.hook_name: _added(size * u)}) - plain for u in directions],
    }
    return {
        "hook_name": probe.hook_name,
        "n_prompts": len(prompts),
        "log_odds": float(plain.mean()),
        "strength": strength,
        **{name: _effect(changes).to_dict() for name, changes in moved.items()},
    }


def _ablated(unit: torch.Tensor) -> Edit:
    return lambda x: x - (x.float() @ unit)[..., None].to(x.dtype) * unit.to(x.dtype)


def _added(step: torch.Tensor) -> Edit:
    return lambda x: x + step.to(x.dtype)


def _spread(
    model: HookedTransformer, hook_name: str, unit: torch.Tensor, prompts: Sequence[Sequence[int]]
) -> float:
    """The standard deviation of the prompts' last rows along a direction."""
    at = []
    for prompt in prompts:
        _, cache = model.run_with_cache(_tokens(prompt), names_filter=[hook_name], return_type=None)
        at.append(float(cache[hook_name][0, -1].float() @ unit))
    return float(np.std(at, ddof=1))


def _log_odds(
    model: HookedTransformer,
    prompt: Sequence[int],
    says: Sequence[int],
    rather: Sequence[int],
    edits: dict[str, Edit],
) -> float:
    hooks: Hooks = [(name, _hook(edit)) for name, edit in edits.items()]
    found = []
    for answer in (says, rather):
        with torch.no_grad():
            logits = model.run_with_hooks(_tokens([*prompt, *answer]), fwd_hooks=hooks)[0]
        log_p = torch.log_softmax(logits[len(prompt) - 1 : -1].double(), -1)
        picked = log_p.gather(1, torch.tensor(answer, dtype=torch.int64, device="cpu")[:, None])
        found.append(math.fsum(picked[:, 0].tolist()))
    return found[0] - found[1]


def _hook(edit: Edit) -> HookFunction:
    def edited(tensor: torch.Tensor, *, hook: HookPoint) -> torch.Tensor:
        return edit(tensor)

    return edited


def _effect(changes: Sequence[Array]) -> Effect:
    own = clustered_mean(changes[0].tolist(), list(range(len(changes[0]))))
    controls = tuple(float(c.mean()) for c in changes[1:])
    return Effect(own.mean, own.interval.low, own.interval.high, controls)


def _tokens(ids: Sequence[int]) -> torch.Tensor:
    return torch.tensor([list(ids)], dtype=torch.int64, device="cpu")
