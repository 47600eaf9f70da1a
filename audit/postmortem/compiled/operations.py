"""A block's operations as contracts judge them, from the values that a compiled program returned.

Each operation is held against its contract on the values that the program says it started from. An
operation that started from a value before its rounding lies outside, although every returned value
is rounded.

Tensor names: P positions, H heads, G key/value heads, h d_head, d residual.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from ....model.config import ModelConfig
from ....precision.contracts import HUGGINGFACE_LLAMA_BF16
from ....precision.oracle import Verdict, check

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Operation:
    """One operation of a block.

    Attributes:
        address: Within the block.
        op: The contract's.
        inputs: As the contract takes them.
        actual: The output.
    """

    address: str
    op: str
    inputs: dict[str, Any]
    actual: torch.Tensor

    def some_rows(self, n: int) -> Operation:
        """Returns it at n rows of its output, evenly apart; of attention at those of all heads."""
        across = _ROWS[self.op]
        dim = self.actual.ndim - 2
        size = self.actual.shape[dim]
        parts = min(n, size)
        chosen = torch.tensor([(i + 1) * size // parts - 1 for i in range(parts)])
        inputs = {
            name: value.index_select(value.ndim - 2 if value.ndim > 1 else 0, chosen)
            if name in across
            else value
            for name, value in self.inputs.items()
        }
        return replace(self, inputs=inputs, actual=self.actual.index_select(dim, chosen))

    def judge(self) -> Verdict:
        """Returns the verdict of transformers' eager contract in bf16."""
        return check(self.actual, self.inputs, HUGGINGFACE_LLAMA_BF16[self.op])


_ROWS = {
    "rms_norm": ("x",),
    "matmul": ("a",),
    "rope": ("x", "positions"),
    "softmax": ("x",),
    "silu": ("x",),
    "mul": ("a", "b"),
    "add": ("a", "b"),
}
"""By operation, the inputs that have a row for every row of the output."""


def operations(
    config: ModelConfig, weights: Tensors, x_Pd: torch.Tensor, found: Tensors
) -> Iterator[Operation]:
    """Yields a block's operations; everything in bf16.

    Args:
        weights: By names within the block.
        x_Pd: What the block started from.
        found: Values by address.
    """
    yield _norm(config, weights, "ln1", x_Pd, found)
    for name in ("attn.q", "attn.k", "attn.v"):
        yield _linear(weights, name, found["ln1"], found)
    yield from _rope(config, found)
    yield from _attention(config, found)
    yield _linear(weights, "attn.o", found["attn.attention"], found)
    added = {"a": x_Pd, "b": found["attn.o"]}
    yield Operation("resid_mid", "add", added, found["resid_mid"])
    yield _norm(config, weights, "ln2", found["resid_mid"], found)
    yield _linear(weights, "mlp.gate", found["ln2"], found)
    yield _linear(weights, "mlp.up", found["ln2"], found)
    silu = found["mlp.act.silu"]
    yield Operation("mlp.act.silu", "silu", {"x": found["mlp.gate"]}, silu)
    yield Operation("mlp.act", "mul", {"a": silu, "b": found["mlp.up"]}, found["mlp.act"])
    yield _linear(weights, "mlp.down", found["mlp.act"], found)
    added = {"a": found["resid_mid"], "b": found["mlp.down"]}
    yield Operation("resid_post", "add", added, found["resid_post"])


def _norm(
    config: ModelConfig, weights: Tensors, name: str, x_Pd: torch.Tensor, found: Tensors
) -> Operation:
    inputs = {"x": x_Pd, "weight": weights[f"{name}.weight"], "eps": config.eps}
    return Operation(name, "rms_norm", inputs, found[name])


def _linear(weights: Tensors, name: str, x: torch.Tensor, found: Tensors) -> Operation:
    inputs = {"a": x, "b": weights[f"{name}.weight"]}
    return Operation(name, "matmul", inputs, found[name])


def _rope(config: ModelConfig, found: Tensors) -> Iterator[Operation]:
    theta = config.layers[0].rope_theta
    for name, heads in (("q", config.n_heads), ("k", config.n_key_value_heads)):
        x_HPh = _heads(found[f"attn.{name}"].view(-1, heads, config.d_head))
        inputs = {"x": x_HPh, "positions": torch.arange(x_HPh.shape[1]), "theta": theta}
        address = f"attn.rope_{name}"
        yield Operation(address, "rope", inputs, found[address])


def _attention(config: ModelConfig, found: Tensors) -> Iterator[Operation]:
    groups = config.n_heads // config.n_key_value_heads
    q_HPh = found["attn.rope_q"]
    k_HPh = found["attn.rope_k"].repeat_interleave(groups, dim=0)
    v_PGh = found["attn.v"].view(-1, config.n_key_value_heads, config.d_head)
    v_HPh = _heads(v_PGh).repeat_interleave(groups, dim=0)
    at = "attn.attention"
    products_HPP, scores_HPP = found[f"{at}.products"], found[f"{at}.scores"]
    pattern_HPP = found[f"{at}.pattern"]
    inputs = {"a": q_HPh, "b": k_HPh.mT.contiguous()}
    yield Operation(f"{at}.products", "matmul", inputs, products_HPP)
    scale = torch.full_like(products_HPP, config.attn_scale)
    yield Operation(f"{at}.scores", "mul", {"a": products_HPP, "b": scale}, scores_HPP)
    hidden_PP = torch.ones(scores_HPP.shape[1:], dtype=torch.bool).triu(1)
    seen_HPP = scores_HPP.masked_fill(hidden_PP, torch.finfo(scores_HPP.dtype).min)
    yield Operation(f"{at}.pattern", "softmax", {"x": seen_HPP}, pattern_HPP)
    z_HPh = _heads(found[at].view(-1, config.n_heads, config.d_head))
    yield Operation(at, "matmul", {"a": pattern_HPP, "b": v_HPh}, z_HPh)


def _heads(x_PHh: torch.Tensor) -> torch.Tensor:
    return x_PHh.transpose(0, 1).contiguous()
