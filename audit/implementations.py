"""Single operations computed anew from a contract's inputs, as the audited implementations do.

What a reproducer runs: `native` is bitlens' compiled kernels, `eager` the torch calls that
transformers' Llama makes. Inputs are named as in `bitlens.precision.operations`.

Tensor names: m rows, n outputs, k inputs of a linear, T queries, K keys, H heads, G key/value
heads, h d_head.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F

from ..model.batch import RaggedBatch
from ..model.cache.kv_cache import LayerCache
from ..model.cache.page_pool import PAGE
from ..model.ops import kernels
from ..model.ops.native import NativeOps
from ..model.ops.native_huggingface import NativeHuggingFaceOps
from ..model.ops.packed import pack
from ..model.ops.policy import get_policy
from ..model.rope.scaling import Frequencies, rotary_frequencies
from ..model.rope.tables import frequency_table
from ..model.weights.checkpoint import Format, StoredMatrix
from ..policies import STEPWISE
from ..precision.contract import PrecisionContract

Inputs = Mapping[str, Any]
Implementation = Callable[[Inputs, PrecisionContract], torch.Tensor]


def native(inputs: Inputs, contract: PrecisionContract) -> torch.Tensor:
    """By bitlens' kernels. Raises ValueError for an operation or a form they lack."""
    return _run(_NATIVE, "native kernels", inputs, contract)


def eager(inputs: Inputs, contract: PrecisionContract) -> torch.Tensor:
    """The operation of transformers' eager Llama. Raises ValueError where it has none."""
    return _run(_EAGER, "eager Llama", inputs, contract)


def _run(
    table: Mapping[str, Implementation], name: str, inputs: Inputs, contract: PrecisionContract
) -> torch.Tensor:
    if contract.op not in table:
        raise ValueError(f"{contract.op}: the {name} have {', '.join(table)}")
    with torch.no_grad():
        try:
            return table[contract.op](inputs, contract)
        except KeyError as missing:
            raise ValueError(
                f"{contract.op}: the {name} need {missing}, which is not given"
            ) from None


def _output_dtype(contract: PrecisionContract) -> torch.dtype:
    dtype = contract.output_format.dtype
    if dtype is None:
        raise ValueError(f"torch has no dtype for {contract.output_format.name}")
    return dtype


def _native_matmul(inputs: Inputs, contract: PrecisionContract) -> torch.Tensor:
    a_mk, b_kn = inputs["a"], inputs["b"]
    w_nk = b_kn.T.float().contiguous()
    packed = pack(StoredMatrix(Format.F32, w_nk.shape[0], w_nk.shape[1], w_nk))
    bias = inputs.get("bias")
    bias = None if bias is None else bias.float()
    dtype = _output_dtype(contract)
    return kernels.linear(a_mk, packed.data, packed.format, packed.n, bias, dtype)


def _native_norm(inputs: Inputs, contract: PrecisionContract) -> torch.Tensor:
    weight = inputs["weight"].float().contiguous()
    stepwise = "normalized" in contract.casts
    dtype = _output_dtype(contract)
    return kernels.rms_norm(inputs["x"], weight, inputs["eps"], dtype, stepwise=stepwise)


def _native_rope(inputs: Inputs, contract: PrecisionContract) -> torch.Tensor:
    x_THh, stepwise = inputs["x"].transpose(0, 1), "products" in contract.casts
    if inputs.get("cos") is not None:
        cos_Th, sin_Th = (inputs[name].float().contiguous() for name in ("cos", "sin"))
        if cos_Th.shape != sin_Th.shape or cos_Th.shape != (len(x_THh), x_THh.shape[-1] // 2):
            raise ValueError("rope: native kernels take cos and sin of a row for each position")
        positions_T = torch.arange(len(x_THh))
    else:
        positions_T = inputs["positions"]
        table = frequency_table(_frequencies(inputs), int(positions_T.max()) + 1)
        cos_Th, sin_Th = table.cos, table.sin
    return kernels.rope(x_THh, positions_T, cos_Th, sin_Th, stepwise=stepwise).transpose(0, 1)


def _frequencies(inputs: Inputs) -> Frequencies:
    if inputs.get("inv_freq") is not None:
        return Frequencies(tuple(inputs["inv_freq"]), inputs.get("attention_factor", 1.0))
    return rotary_frequencies(inputs["theta"], inputs["x"].shape[-1], None)


def _native_attention(inputs: Inputs, contract: PrecisionContract) -> torch.Tensor:
    q_HTh, k_GKh, v_GKh = inputs["q"], inputs["k"], inputs["v"]
    kv_heads, n_keys, d_head = k_GKh.shape
    n_queries, n_pages = q_HTh.shape[1], -(-n_keys // PAGE)
    if inputs.get("past", 0) + n_queries != n_keys or not inputs.get("causal", False):
        raise ValueError("attention: native kernels are causal, queries are the last positions")
    k_pages = q_HTh.new_zeros(n_pages, kv_heads, d_head, PAGE)
    v_pages = q_HTh.new_zeros(n_pages, kv_heads, PAGE, d_head)
    table = torch.arange(n_pages, dtype=torch.int32)[None]
    keys, values = k_GKh.transpose(0, 1), v_GKh.transpose(0, 1)
    whole, none = torch.tensor([0, n_keys]), torch.tensor([0])
    kernels.kv_write(keys, values, k_pages, v_pages, table, whole, none)
    stepwise = "scores" in contract.casts
    ops = NativeHuggingFaceOps(get_policy(STEPWISE)) if stepwise else NativeOps(get_policy("fp32"))
    z_THh = ops.attention(
        q_HTh.transpose(0, 1),
        LayerCache(k_pages, v_pages, table),
        RaggedBatch(n_queries, [n_queries], [n_keys - n_queries], [0], [0], q_HTh.device),
        scale=inputs["scale"],
        cap=inputs.get("cap"),
        window=inputs.get("window"),
    )
    return z_THh.transpose(0, 1)


def _native_gated(inputs: Inputs, contract: PrecisionContract) -> torch.Tensor:
    kind, stepwise = inputs.get("activation", "silu"), "activated" in contract.casts
    return kernels.gated_act(kind, inputs["gate"], inputs["up"], stepwise=stepwise)


def _native_soft_cap(inputs: Inputs, contract: PrecisionContract) -> torch.Tensor:
    return kernels.soft_cap(inputs["x"], inputs["cap"])


_NATIVE: Mapping[str, Implementation] = {
    "matmul": _native_matmul,
    "rms_norm": _native_norm,
    "rope": _native_rope,
    "attention": _native_attention,
    "soft_cap": _native_soft_cap,
    "swiglu": _native_gated,
}


def _eager_matmul(inputs: Inputs, contract: PrecisionContract) -> torch.Tensor:
    return F.linear(inputs["a"], inputs["b"].T.contiguous(), inputs.get("bias"))


def _eager_norm(inputs: Inputs, contract: PrecisionContract) -> torch.Tensor:
    x = inputs["x"].float()
    normalized = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + inputs["eps"])
    y: torch.Tensor = inputs["weight"] * normalized.to(inputs["x"].dtype)
    return y


def _eager_rope(inputs: Inputs, contract: PrecisionContract) -> torch.Tensor:
    x_HTh = inputs["x"]
    cos, sin = _eager_tables(inputs)
    cos, sin = torch.cat([cos, cos], -1), torch.cat([sin, sin], -1)
    first, second = x_HTh.chunk(2, dim=-1)
    y_HTh: torch.Tensor = x_HTh * cos + torch.cat([-second, first], -1) * sin
    return y_HTh


def _eager_tables(inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
    """In fp32, then in the model's dtype."""
    if inputs.get("cos") is not None:
        return inputs["cos"], inputs["sin"]
    x, given = inputs["x"], inputs.get("inv_freq")
    index = torch.arange(0, x.shape[-1], 2, dtype=torch.float32) / x.shape[-1]
    inv_freq = (
        1.0 / inputs["theta"] ** index
        if given is None
        else torch.tensor(given, dtype=torch.float32)
    )
    angle_Th = inputs["positions"][:, None].float() * inv_freq
    factor = inputs.get("attention_factor", 1.0)
    cos, sin = ((f(angle_Th) * factor).to(x.dtype) for f in (torch.cos, torch.sin))
    return cos, sin


def _eager_attention(inputs: Inputs, contract: PrecisionContract) -> torch.Tensor:
    q, k, v = inputs["q"], inputs["k"], inputs["v"]
    for name in ("window", "cap"):
        if inputs.get(name) is not None:
            raise ValueError(f"attention: no {name} here")
    group = q.shape[0] // k.shape[0]
    k, v = k.repeat_interleave(group, 0), v.repeat_interleave(group, 0)
    scores = q @ k.transpose(1, 2) * inputs["scale"]
    position = torch.arange(q.shape[1])[:, None] + inputs.get("past", 0)
    hidden = torch.arange(k.shape[1]) > position
    masked = scores + torch.zeros_like(scores[0]).masked_fill(hidden, torch.finfo(q.dtype).min)
    z_HTh: torch.Tensor = F.softmax(masked, dim=-1, dtype=torch.float32).to(q.dtype) @ v
    return z_HTh


def _eager_fused_attention(inputs: Inputs, contract: PrecisionContract) -> torch.Tensor:
    q, k, v = (inputs[name][None] for name in "qkv")
    for name in ("window", "cap"):
        if inputs.get(name) is not None:
            raise ValueError(f"fused_attention: no {name} here")
    position = torch.arange(q.shape[2])[:, None] + inputs.get("past", 0)
    mask = torch.arange(k.shape[2]) <= position
    group = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(group, 1) for x in (k, v))
    z_HTh: torch.Tensor = F.scaled_dot_product_attention(q, k, v, mask, scale=inputs["scale"])[0]
    return z_HTh


def _eager_gated(inputs: Inputs, contract: PrecisionContract) -> torch.Tensor:
    post: torch.Tensor = F.silu(inputs["gate"]) * inputs["up"]
    return post


_EAGER: Mapping[str, Implementation] = {
    "matmul": _eager_matmul,
    "rms_norm": _eager_norm,
    "rope": _eager_rope,
    "attention": _eager_attention,
    "fused_attention": _eager_fused_attention,
    "swiglu": _eager_gated,
}
