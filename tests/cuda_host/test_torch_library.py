"""torch.ops.bitlens on a GPU: the same checked operators, with kernels there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bitlens.model.ops import torch_library
from bitlens.model.ops.operator import OPERATORS
from support.cuda_host import assert_same_bits, host_kernels, host_library
from support.operator_samples import samples

OPS = torch.ops.bitlens
ON_GPU = (
    *("linear", "embedding", "rms_norm", "add_rms_norm", "rope", "kv_write", "attention"),
    *("gated_act", "softmax", "log_softmax", "logsumexp", "cross_entropy", "soft_cap"),
)


def test_which_operators_have_kernels_there() -> None:
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    assert {name for name in OPERATORS if has(f"bitlens::{name}", "CUDA")} == set(ON_GPU)


@pytest.mark.parametrize("name", ON_GPU)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bits(monkeypatch: pytest.MonkeyPatch, name: str, dtype: torch.dtype) -> None:
    ours, theirs = (tensors_of(samples(dtype)[name]) for _ in range(2))
    wanted = flat(getattr(OPS, name)(*theirs))
    monkeypatch.setattr(torch_library, "kernels_on", lambda x: host_kernels())
    before = sum(host_library().launches().values())
    found = flat(getattr(OPS, name)(*ours))
    assert sum(host_library().launches().values()) > before
    for x, y in zip([*found, *ours], [*wanted, *theirs], strict=True):
        if isinstance(y, torch.Tensor) and y.is_floating_point():
            assert_same_bits(x, y)


def tensors_of(sample: tuple[Any, ...]) -> list[Any]:
    return [x.clone() if isinstance(x, torch.Tensor) else x for x in sample]


def flat(found: Any) -> list[Any]:
    return list(found) if isinstance(found, tuple) else [found]
