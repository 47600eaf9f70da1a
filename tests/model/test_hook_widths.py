"""The widths of hooks, against what a pass shows."""

from __future__ import annotations

import pytest
import torch
from bitlens.model.hooks.registry import has_gradient, has_key_axis
from bitlens.model.hooks.widths import hook_width
from support.random_models import CONFIGS, random_model


@pytest.mark.parametrize("architecture", CONFIGS)
def test_widths_are_those_of_a_pass(architecture: str) -> None:
    model = random_model(architecture)
    names = [n for n in model.hook_names if has_gradient(n) and not has_key_axis(n)]
    _, cache = model.run_with_cache(torch.tensor([[1, 2]]), names)
    for name in names:
        assert hook_width(model.config, name) == cache[name].flatten(2).shape[2], name


@pytest.mark.parametrize("name", ["hook_tokens", "blocks.0.attn.hook_pattern"])
def test_hooks_without_a_width(name: str) -> None:
    with pytest.raises(ValueError, match="no row of a fixed width"):
        hook_width(CONFIGS["llama"], name)
