"""A priori bounds on the rounding error of native gradients.

To first order the error of a gradient is the sum, over every operation of the forward pass, of its
derivative by the operation's output times the operation's error (error_bounds.py), and the same
over every operation of the backward pass. Both kinds of derivative come from autograd in fp64:
every forward output gets a leaf of zeros added, and so does every gradient that arrives at an
operation's input. Tensor names: T rows, K keys, H heads, h d_head.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from bitlens.model.ops.torch_ops import TorchOps
from bitlens.model.transformer import HookedTransformer
from support.error_bounds import Rounding
from support.gradient_cases import metric

Tensor = torch.Tensor


@dataclass
class Operation:
    """One operation as it ran, `inputs` being what gradients flow to."""

    name: str
    call: Callable[..., Tensor]
    inputs: list[Tensor]
    sources: list[int]
    arguments: tuple[Any, ...]
    leaf: Tensor

    def slopes(self, inputs: list[Tensor], dy: Tensor) -> tuple[Tensor, ...]:
        """dy times the operation's derivative at these inputs."""
        leaves = [x.detach().requires_grad_() for x in inputs]
        return torch.autograd.grad(self.call(*leaves), leaves, dy)


class _Arrival(torch.autograd.Function):
    """x, whose gradient gets a leaf added on arrival."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, leaf: Tensor) -> Tensor:
        ctx.save_for_backward(leaf)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (leaf,) = ctx.saved_tensors
        return grads[0] + leaf, None


@dataclass
class Trace:
    """What `ObservedOps` saw of a pass. A source is a tensor that some operations read."""

    operations: list[Operation] = field(default_factory=list)
    arrivals: list[Tensor] = field(default_factory=list)
    sources: dict[int, tuple[Tensor, Tensor, int]] = field(default_factory=dict)

    def read(self, x: Tensor) -> tuple[Tensor, int]:
        """x through its arrival node, one for all its readers, and its number."""
        if id(x) not in self.sources:
            leaf = torch.zeros_like(x, requires_grad=True)
            arrival: Tensor = _Arrival.apply(x, leaf)  # type: ignore[assignment]
            self.sources[id(x)] = (x, arrival, len(self.arrivals))
            self.arrivals.append(leaf)
        return self.sources[id(x)][1:]

    def run(
        self, name: str, call: Callable[..., Tensor], inputs: list[Tensor], *arguments: Any
    ) -> Tensor:
        read = [self.read(x) for x in inputs]
        y = call(*(x for x, _ in read))
        leaf = torch.zeros_like(y, requires_grad=True)
        detached = [x.detach() for x in inputs]
        numbers = [number for _, number in read]
        self.operations.append(Operation(name, call, detached, numbers, arguments, leaf))
        return y + leaf


class ObservedOps(TorchOps):
    """fp64 operations that tell a trace."""

    def __init__(self, ops: TorchOps) -> None:
        super().__init__(ops.policy, ops.device)
        self.trace = Trace()

    def embed(self, tokens_T: Any, weight: Any, scale: float) -> Tensor:
        plain = super().embed
        return self.trace.run("embed", lambda: plain(tokens_T, weight, scale), [])

    def linear(self, x: Any, weight: Any, bias: Any = None, *, out_dtype: Any = None) -> Tensor:
        plain = super().linear
        return self.trace.run("linear", lambda x: plain(x, weight, bias), [x], weight, bias)

    def add(self, x: Any, y: Any) -> Tensor:
        return self.trace.run("add", super().add, [x, y])

    def rms_scale(self, x: Any, eps: float) -> Tensor:
        plain = super().rms_scale
        return self.trace.run("rms_scale", lambda x: plain(x, eps), [x], eps)

    def normalize(self, x: Any, scale: Any) -> Tensor:
        return self.trace.run("normalize", super().normalize, [x, scale])

    def norm_weight(self, normalized: Any, weight: Any) -> Tensor:
        plain = super().norm_weight
        return self.trace.run("norm_weight", lambda n: plain(n, weight), [normalized])

    def rope(self, x_THh: Any, *arguments: Any) -> Tensor:
        plain = super().rope
        return self.trace.run("rope", lambda x: plain(x, *arguments), [x_THh], *arguments)

    def attention_scores(self, q_THh: Any, layer_cache: Any, batch: Any, **options: Any) -> Tensor:
        plain, (k, v) = super().attention_scores, layer_cache.written

        def call(q: Tensor, k: Tensor) -> Tensor:
            layer_cache.written = (k, v)
            return plain(q, layer_cache, batch, **options)

        scores = self.trace.run("scores", call, [q_THh, k], options["scale"])
        layer_cache.written = (k, v)
        return scores

    def attention_pattern(self, scores_THK: Any) -> Tensor:
        return self.trace.run("softmax", super().attention_pattern, [scores_THK])

    def attention_values(
        self, pattern_THK: Any, layer_cache: Any, batch: Any, **options: Any
    ) -> Tensor:
        plain, (k, v) = super().attention_values, layer_cache.written

        def call(pattern: Tensor, v: Tensor) -> Tensor:
            layer_cache.written = (k, v)
            return plain(pattern, layer_cache, batch, **options)

        z = self.trace.run("values", call, [pattern_THK, v])
        layer_cache.written = (k, v)
        return z

    def gated_act(self, kind: Any, gate: Any, up: Any) -> Tensor:
        plain = super().gated_act
        return self.trace.run("gated_act", lambda g, u: plain(kind, g, u), [gate, up], kind)


class GradientBounds:
    """The gradients of `metric` on an fp64 model at some hooks, and bounds on those of arithmetic
    that rounds so: native, or of the same operations in another order."""

    def __init__(
        self,
        model: HookedTransformer,
        tokens_P: Tensor,
        names: list[str],
        rounding: Rounding | None = None,
    ) -> None:
        assert isinstance(model.ops, TorchOps)
        model.ops = model.forward_pass.ops = ops = ObservedOps(model.ops)
        found: dict[str, Tensor] = {}

        def keep(tensor: Tensor, hook: Any) -> None:
            found[hook.name] = tensor

        logits = model.run_with_hooks(tokens_P[None], [(name, keep) for name in names])
        trace, self._rounding = ops.trace, rounding or Rounding()
        number = metric(logits)
        of_outputs = torch.autograd.grad(
            number, [each.leaf for each in trace.operations], retain_graph=True
        )
        self._leaves = [each.leaf for each in trace.operations] + trace.arrivals
        self._bounds = [_forward(self._rounding, each) for each in trace.operations]
        self._bounds += _arrivals(self._rounding, trace, of_outputs)
        grads = torch.autograd.grad(number, [found[name] for name in names], create_graph=True)
        self.gradients: Mapping[str, Tensor] = dict(zip(names, grads, strict=True))

    def bound(self, name: str, elements: Tensor) -> Tensor:
        """On the error of these elements of a gradient, counted through its flattened axes."""
        chosen = self.gradients[name].flatten()[elements]
        if not chosen.requires_grad:  # of the logits, by which the metric is linear
            return torch.zeros(len(elements))
        slopes = torch.autograd.grad(
            chosen,
            self._leaves,
            torch.eye(len(elements), dtype=chosen.dtype),
            is_grads_batched=True,
            retain_graph=True,
            allow_unused=True,
        )
        parts = [
            slope.flatten(1).abs() @ bound.flatten()
            for slope, bound in zip(slopes, self._bounds, strict=True)
            if slope is not None
        ]
        return torch.stack(parts).sum(0)


def _forward(r: Rounding, each: Operation) -> Tensor:
    """Of an operation's output."""
    x = each.inputs
    match each.name:
        case "embed":
            return r.u * each.call().detach().abs()
        case "linear":
            weight, bias = each.arguments
            return r.linear(x[0], weight.detach(), None if bias is None else bias.detach())
        case "add":
            return r.add(x[0], x[1])
        case "rms_scale":
            return r.rms_scale(x[0], *each.arguments)
        case "normalize":
            return r.normalize(x[0], x[1])
        case "norm_weight":
            return 2 * r.u * each.call(*x).detach().abs()
        case "rope":
            return r.rope(x[0], *each.arguments)
        case "scores":
            size = each.call(x[0].abs(), x[1].abs())
            return r.gamma(x[0].shape[-1] + 1) * size.masked_fill(size == -math.inf, 0.0)
        case "softmax":
            return r.softmax(x[0])
        case "values":
            return r.gamma(x[0].shape[-1] + 1) * each.call(x[0], x[1].abs())
    return r.gated_act(*each.arguments, x[0], x[1])


def _arrivals(r: Rounding, trace: Trace, of_outputs: tuple[Tensor, ...]) -> list[Tensor]:
    """Of the gradient that arrives at each source: of every reader's part, and of their sum."""
    bounds = [torch.zeros_like(leaf) for leaf in trace.arrivals]
    sizes = [torch.zeros_like(leaf) for leaf in trace.arrivals]
    readers = [0] * len(bounds)
    for each, dy in zip(trace.operations, of_outputs, strict=True):
        parts = each.slopes(each.inputs, dy) if each.inputs else ()
        for number, part, off in zip(each.sources, parts, _backward(r, each, dy), strict=True):
            bounds[number] += off
            sizes[number] += part.abs()
            readers[number] += 1
    return [
        (bound + (n - 1) * r.u * size).detach()
        for bound, size, n in zip(bounds, sizes, readers, strict=True)
    ]


def _backward(r: Rounding, each: Operation, dy: Tensor) -> list[Tensor]:
    """Of the gradients at an operation's inputs, in the orders of docs/numerics.md."""
    x = each.inputs
    size = [part.abs() for part in each.slopes([t.abs() for t in x], dy.abs())] if x else []
    match each.name:
        case "embed":
            return []
        case "linear":
            weight = each.arguments[0].detach()
            return [r.gamma(weight.shape[0] + 3) * (dy.abs() @ weight.abs())]
        case "add":
            return [torch.zeros_like(dy), torch.zeros_like(dy)]
        case "rms_scale":  # the scale it divides by is off, too
            return [(r.gamma(x[0].shape[-1] + 3) / 2 + 8 * r.u) * size[0]]
        case "normalize":
            terms = (dy * x[0]).abs().sum(-1, keepdim=True) / x[1].square()
            return [2 * r.u * size[0], r.gamma(x[0].shape[-1] + 6) * terms]
        case "norm_weight":
            return [2 * r.u * size[0]]
        case "rope":
            return [r.rope(dy, *each.arguments)]
        case "scores" | "values":
            n_queries, n_heads, width = x[0].shape
            group = n_heads // x[1].shape[1]
            width = dy.shape[-1] if each.name == "scores" else x[1].shape[-1]
            return [r.gamma(width + 3) * size[0], r.gamma(group * n_queries + 4) * size[1]]
        case "softmax":
            return [_softmax(r, x[0], dy)]
    return _gated(r, each.arguments[0], x[0], x[1], dy)


def _softmax(r: Rounding, scores: Tensor, dp: Tensor) -> Tensor:
    """Of p (dp - sum p dp), where p is off by `softmax`'s own error."""
    p, off = scores.softmax(-1), r.softmax(scores).masked_fill(scores == -math.inf, 0.0)
    dp = dp.masked_fill(scores == -math.inf, 0.0)
    mean = (p * dp).sum(-1, keepdim=True)
    n_keys = scores.shape[-1]
    mean_off = ((off + r.gamma(n_keys + 3) * p) * dp.abs()).sum(-1, keepdim=True)
    return off * (dp - mean).abs() + p * mean_off + 3 * r.u * p * (dp.abs() + mean.abs())


def _gated(r: Rounding, kind: str, gate: Tensor, up: Tensor, dy: Tensor) -> list[Tensor]:
    """The slope's error is derived in test_backward_kernels.py."""
    if kind == "silu":
        z, dz = gate, torch.ones_like(gate)
    else:
        z = math.sqrt(8 / math.pi) * (gate + 0.044715 * gate**3)
        dz = math.sqrt(8 / math.pi) * (1 + 3 * 0.044715 * gate.square())
    s, c = torch.sigmoid(z), torch.sigmoid(-z)
    slope = s * (1 + gate * c * dz)
    delta = (6 * z.abs() + 3) * r.u
    slope_off = (c * delta + 5 * r.u) * slope.abs() + s * c * gate.abs() * dz * (
        s * delta + 9 * r.u
    )
    act_off = r.gated_act(kind, gate, torch.ones_like(up)) + 2 * r.u * (gate * s).abs()
    return [(dy * up).abs() * (slope_off + 3 * r.u * slope.abs()), dy.abs() * act_off]
