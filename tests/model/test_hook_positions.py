"""What a hook function knows of its pass: where each token stands."""

from __future__ import annotations

import pytest
import torch
from bitlens.model.hooks.registry import HookPoint
from support.random_models import random_model


def test_positions() -> None:
    model = random_model("llama")
    found: list[list[list[int]]] = []

    def keep(tensor: torch.Tensor, hook: HookPoint) -> None:
        found.append(hook.positions.tolist())

    hooks = [("blocks.1.attn.hook_z", keep)]
    tokens = torch.tensor([[1, 2, 3], [4, 5, 6]])
    cache = model.new_cache(2)
    left, right = torch.tensor([[0, 0, 1], [1, 1, 1]]), torch.tensor([[1, 1, 1], [1, 0, 0]])
    for mask in (left, right, None):
        model.run_with_hooks(tokens, hooks, attention_mask=mask, kv_cache=cache)
    assert found[0] == [[-1, -1, 0], [0, 1, 2]]
    assert found[1] == [[1, 2, 3], [3, -1, -1]]
    assert found[2] == [[4, 5, 6], [4, 5, 6]]
    loss = model.run_with_hooks(tokens, bwd_hooks=hooks, attention_mask=left, return_type="loss")
    loss.backward()
    assert found[3] == found[0]
    with pytest.raises(ValueError, match="no pass is calling"):
        _ = model.hook_dict["blocks.1.attn.hook_z"].positions
