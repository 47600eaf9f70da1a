"""Where weights come from does not show: a directory, the hub, or a transformers model in memory.

The other tests here run on models from the hub and from memory, too (`subjects.SOURCES`).
"""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from bitlens.model.config_error import ConfigError
from bitlens.model.load import load
from invariance.subjects import (
    DTYPES,
    SUBJECTS,
    Views,
    assert_same,
    count_different,
    draw_tokens,
    dtypes_of,
    small,
    with_dtypes,
)
from support.huggingface_cases import random_weights
from support.huggingface_configs import ARCHITECTURES, FIXED_ROPE
from support.source_models import SOURCES, model_from

EVERY = {**ARCHITECTURES, **FIXED_ROPE}


@pytest.mark.parametrize(("name", "dtype"), with_dtypes(EVERY))
def test_bits_are_the_same_from_every_source(name: str, dtype: str) -> None:
    """Logits and every hook, of all three views."""
    first, *others = (model_from(source, EVERY[name], dtype) for source in SOURCES)
    tokens_P = draw_tokens(first, 30)
    expected = Views(first).alone(tokens_P)
    for other in others:
        assert other.config == first.config
        assert_same(Views(other).alone(tokens_P), expected)


def test_policies_left_out_are_refused() -> None:
    """No table here leaves out what would run."""
    left_out = {(s, d) for s in (*SUBJECTS, *EVERY) for d in DTYPES if d not in dtypes_of(s)}
    for subject, dtype in left_out:
        listed = subject in EVERY
        build = partial(model_from, "memory", EVERY[subject]) if listed else partial(small, subject)
        with pytest.raises(ConfigError, match=f'"{dtype}".*is not stated'):
            build(dtype)


@torch.no_grad()
def test_one_weight_shows() -> None:
    """Negative control."""
    peer = random_weights(copy.deepcopy(ARCHITECTURES["llama"]))
    first = load(peer)
    weight = peer.model.layers[0].mlp.up_proj.weight
    weight[0, 0] = torch.nextafter(weight[0, 0], torch.tensor(torch.inf))
    tokens_P = draw_tokens(first, 30)
    expected = Views(first).alone(tokens_P)
    assert count_different(Views(load(peer)).alone(tokens_P), expected) > 0
