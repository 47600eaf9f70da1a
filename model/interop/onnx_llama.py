"""A checkpoint's Llama as an ONNX graph of plain operations, for one length, in fp32.

Value names are those of bitlens' addresses where there is one. Tensor names: P positions, d
residual, H heads, D head, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..weights.checkpoint import Checkpoint
from .plain_llama import dense, require_plain, rotation

MOST_BYTES = (1 << 31) - (1 << 20)
"""The longest message that protobuf takes."""


def require_onnx() -> Any:
    """Returns onnx. Raises RuntimeError naming the extra where it is not installed."""
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise RuntimeError("this needs ONNX: pip install 'bitlens[platforms]'") from error
    return onnx


def onnx_llama(checkpoint: Checkpoint, n: int) -> bytes:
    """Returns a model from `tokens` int64 [n] to `logits` fp32 [n, V], serialised.

    Raises ValueError for an architecture that is no plain Llama and for weights beyond 2 GiB,
    RuntimeError without onnx.
    """
    onnx = require_onnx()
    require_plain(checkpoint)
    graph = _Graph(onnx)
    _llama(graph, checkpoint, n)
    size = sum(array.nbytes for array in graph.constants.values())
    if size > MOST_BYTES:
        raise ValueError(f"{checkpoint.name}: {size:,} bytes of weights, ONNX holds {MOST_BYTES:,}")
    return graph.serialised(n, checkpoint.config.d_vocab)


class _Graph:
    """Nodes and constants as they are added, each node named by its output."""

    def __init__(self, onnx: Any) -> None:
        self._onnx = onnx
        self._nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {}

    def constant(self, name: str, value: np.ndarray) -> str:
        self.constants.setdefault(name, value)
        return name

    def add(self, op: str, name: str, *inputs: str, **attributes: Any) -> str:
        self._nodes.append(
            self._onnx.helper.make_node(op, list(inputs), [name], name, **attributes)
        )
        return name

    def reshape(self, name: str, x: str, shape: Sequence[int]) -> str:
        key = "shape_" + "_".join(map(str, shape))
        return self.add("Reshape", name, x, self.constant(key, np.asarray(shape, np.int64)))

    def serialised(self, n: int, d_vocab: int) -> bytes:
        helper, types = self._onnx.helper, self._onnx.TensorProto
        stored = [
            self._onnx.numpy_helper.from_array(np.ascontiguousarray(value), name)
            for name, value in self.constants.items()
        ]
        tokens = helper.make_tensor_value_info("tokens", types.INT64, [n])
        logits = helper.make_tensor_value_info("logits", types.FLOAT, [n, d_vocab])
        graph = helper.make_graph(self._nodes, "llama", [tokens], [logits], stored)
        opset = [helper.make_opsetid("", 17)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=8)
        data: bytes = model.SerializeToString()
        return data


def _llama(graph: _Graph, checkpoint: Checkpoint, n: int) -> None:
    config = checkpoint.config
    for name in checkpoint.names():
        graph.constant(name, dense(checkpoint, name))
    for name, table in zip(("cos", "sin"), rotation(config, n), strict=True):
        graph.constant(name, table[None])
    hidden = np.triu(np.full((n, n), np.finfo(np.float32).min, np.float32), 1)
    graph.constant("mask", hidden[None])
    graph.constant("eps", np.asarray(config.eps, np.float32))
    graph.constant("scale", np.asarray(config.attn_scale, np.float32))
    x = graph.add("Gather", "embed", "embed.weight", "tokens", axis=0)
    for i in range(config.n_layers):
        block = f"blocks.{i}."
        h = _norm(graph, block + "ln1", x)
        x = graph.add("Add", block + "resid_mid", x, _attention(graph, checkpoint, block, h, n))
        h = _norm(graph, block + "ln2", x)
        gate = _linear(graph, checkpoint, block + "mlp.gate", h)
        gate = graph.add("Mul", block + "silu", gate, graph.add("Sigmoid", block + "gate.s", gate))
        up = _linear(graph, checkpoint, block + "mlp.up", h)
        product = graph.add("Mul", block + "mlp.act", gate, up)
        out = _linear(graph, checkpoint, block + "mlp.down", product)
        x = graph.add("Add", block + "resid_post", x, out)
    x = _norm(graph, "ln_final", x)
    if config.tie_embeddings:
        graph.constant("unembed.weight", np.ascontiguousarray(graph.constants["embed.weight"].T))
    graph.add("MatMul", "logits", x, "unembed.weight")


def _norm(graph: _Graph, name: str, x: str) -> str:
    square = graph.add("Mul", name + ".square", x, x)
    mean = graph.add("ReduceMean", name + ".mean", square, axes=[-1], keepdims=1)
    root = graph.add("Sqrt", name + ".root", graph.add("Add", name + ".sum", mean, "eps"))
    return graph.add("Mul", name, graph.add("Div", name + ".n", x, root), name + ".weight")


def _linear(graph: _Graph, checkpoint: Checkpoint, name: str, x: str) -> str:
    biased = f"{name}.bias" in checkpoint
    y = graph.add("MatMul", name + ".product" if biased else name, x, f"{name}.weight")
    return graph.add("Add", name, y, f"{name}.bias") if biased else y


def _attention(graph: _Graph, checkpoint: Checkpoint, block: str, h: str, n: int) -> str:
    config, name = checkpoint.config, block + "attn."
    heads, groups, head = config.n_heads, config.n_key_value_heads, config.d_head
    q = _heads(graph, name + "q", _linear(graph, checkpoint, name + "q", h), n, heads, head)
    k = _heads(graph, name + "k", _linear(graph, checkpoint, name + "k", h), n, groups, head)
    v = _heads(graph, name + "v", _linear(graph, checkpoint, name + "v", h), n, groups, head)
    q, k = _rotated(graph, q, head), _rotated(graph, k, head)
    k, v = (_repeated(graph, each, n, heads, groups, head) for each in (k, v))
    turned = graph.add("Transpose", name + "kT", k, perm=[0, 2, 1])
    scores = graph.add("Mul", name + "s", graph.add("MatMul", name + "qk", q, turned), "scale")
    masked = graph.add("Add", name + "scores", scores, "mask")
    pattern = graph.add("Softmax", name + "pattern", masked, axis=-1)
    z = graph.add("MatMul", name + "z", pattern, v)
    z = graph.add("Transpose", name + "zT", z, perm=[1, 0, 2])
    return _linear(graph, checkpoint, name + "o", graph.reshape(name + "zf", z, [n, heads * head]))


def _heads(graph: _Graph, name: str, x: str, n: int, heads: int, head: int) -> str:
    """Returns [H, P, D]."""
    split = graph.reshape(name + ".split", x, [n, heads, head])
    return graph.add("Transpose", name + ".heads", split, perm=[1, 0, 2])


def _rotated(graph: _Graph, x: str, head: int) -> str:
    half = head // 2
    graph.constant("zero", np.asarray([0], np.int64))
    graph.constant("half", np.asarray([half], np.int64))
    graph.constant("whole", np.asarray([head], np.int64))
    graph.constant("last", np.asarray([-1], np.int64))
    low = graph.add("Slice", x + ".low", x, "zero", "half", "last")
    high = graph.add("Slice", x + ".high", x, "half", "whole", "last")
    turned = graph.add("Concat", x + ".turned", graph.add("Neg", x + ".neg", high), low, axis=-1)
    a, b = graph.add("Mul", x + ".a", x, "cos"), graph.add("Mul", x + ".b", turned, "sin")
    return graph.add("Add", x + ".rotated", a, b)


def _repeated(graph: _Graph, x: str, n: int, heads: int, groups: int, head: int) -> str:
    """Returns keys or values [groups, P, D] as [H, P, D]."""
    if heads == groups:
        return x
    wide = graph.reshape(x + ".one", x, [groups, 1, n, head])
    shape = graph.constant("wide", np.asarray([groups, heads // groups, n, head], np.int64))
    return graph.reshape(
        x + ".all", graph.add("Expand", x + ".wide", wide, shape), [heads, n, head]
    )
