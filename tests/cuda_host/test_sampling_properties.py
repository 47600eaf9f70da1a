"""Any row under any filters: the sampler's kernel chooses and reports what the CPU does."""

from __future__ import annotations

import math
from typing import Any

import torch
from bitlens.model.ops.cuda.kernels import CudaKernels
from bitlens.model.ops.cuda.sampler import CudaSampler
from bitlens.model.sampling import SamplingParams, sample
from hypothesis import given
from hypothesis import strategies as st
from support.cuda_host import host_library

SPECIAL = [0.0, -0.0, 3.0, -80.0, -math.inf, math.nan]
SHARES = st.floats(0, 1, width=32, exclude_min=True)


@given(
    x=st.lists(
        st.sampled_from([0.0, -0.0, 3.0, -80.0, -math.inf, math.nan])
        | st.floats(-50, 50, width=32),
        min_size=1,
        max_size=300,
    ),
    options=st.fixed_dictionaries(
        {"temperature": st.sampled_from([0.0, 1e-3, 0.7, 1.0, 30.0]), "seed": st.integers(0, 9)},
        optional={
            "top_k": st.integers(1, 400),
            "top_p": SHARES,
            "min_p": SHARES,
            "typical_p": SHARES,
            "filter_apply_order": st.sampled_from(["joint", "top_k_first"]),
            "logprobs": st.integers(0, 20),
        },
    ),
)
def test_any_row_is_sampled_as_on_the_cpu(x: list[float], options: dict[str, Any]) -> None:
    gpu = CudaKernels(host_library())
    row, given_params = torch.tensor([x], dtype=torch.float32), SamplingParams(**options)
    arguments = {"positions": [3], "draws": [1], "prompt_ids": None, "output_ids": None}
    found = CudaSampler(gpu)(row.to(gpu.device), given_params, **arguments)
    wanted = sample(row, given_params, **arguments)
    assert found.tokens.tolist() == wanted.tokens.tolist()
    for name in ("logprobs", "top_ids", "top_logprobs"):
        ours, theirs = getattr(found, name), getattr(wanted, name)
        assert (ours is None) == (theirs is None)
        assert ours is None or ours.numpy().tobytes() == theirs.numpy().tobytes(), name
