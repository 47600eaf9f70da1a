"""Probes with random weights, and their scores of whole texts."""

from __future__ import annotations

import math

import torch
from bitlens.interp.probes import AttentionProbe, MeanDifferenceProbe, Probe
from bitlens.model import HookedTransformer
from bitlens.model.hooks.widths import hook_width


def random_probe(
    model: HookedTransformer, hook: str, aggregate: str = "mean", seed: int = 0
) -> Probe:
    """A probe whose threshold nothing reaches."""
    generator = torch.Generator().manual_seed(seed)
    probe = MeanDifferenceProbe(hook, aggregate=aggregate)
    probe.coef_ = torch.randn(1, hook_width(model.config, hook), generator=generator)
    probe.intercept_ = torch.randn(1, generator=generator)
    probe.threshold_ = math.inf
    return probe


def random_attention(model: HookedTransformer, hook: str, seed: int = 0) -> Probe:
    """A probe that attends to tokens, with two heads."""
    generator = torch.Generator().manual_seed(seed)
    width = hook_width(model.config, hook)
    probe = AttentionProbe(hook, n_heads=2)
    sizes = {"coef": (2, width), "intercept": (1,), "query": (2, width)}
    probe.set_tensors({k: torch.randn(*n, generator=generator) for k, n in sizes.items()})
    probe.threshold_ = math.inf
    return probe


def whole_scores(model: HookedTransformer, probe: Probe, tokens: list[int]) -> torch.Tensor:
    """The scores of a whole text from one pass, fp32 [S]."""
    x = model.run_with_cache(torch.tensor([tokens]), probe.hook_name)[1][probe.hook_name]
    return probe.running_scores(x.flatten(2))[0]
