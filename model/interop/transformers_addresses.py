"""Hugging Face models of the Llama family under the addresses of bitlens (transformers 5, eager).

    from bitlens.model.interop.transformers_addresses import TransformersAddresses
    peer = TransformersAddresses(AutoModelForCausalLM.from_pretrained(..., "eager"))
    with peer.override("blocks.7.mlp.down", fn): ...

Modules get an own `forward` while something is overridden, and their class's back afterwards.
Tensor names: B batch, P positions, T = B P rows, K keys, H heads, G key/value heads, h d_head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import nn

from ...precision.addresses import Site
from ...precision.contract import PrecisionContract
from ...precision.contracts import HUGGINGFACE_LLAMA_BF16, HUGGINGFACE_LLAMA_FP32
from ..op_sites import CONTRACTED, RESTORES, VIEWS, bind_add, operation_at, rows
from ..overrides import Override, OverrideRegistry

FAMILY = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
"""Models whose blocks are Llama's: what differs is biases, windows and norms of q and k."""

_CONTRACTS = {torch.float32: HUGGINGFACE_LLAMA_FP32, torch.bfloat16: HUGGINGFACE_LLAMA_BF16}
_BEFORE_ATTENTION = ("ln1", "attn.q", "attn.k", "attn.v")
_HEAD_NORMS = ("attn.q_norm", "attn.k_norm")
_AFTER = (
    "attn.rope_q",
    "attn.rope_k",
    "attn.attention",
    "attn.o",
    "resid_mid",
    "ln2",
    "mlp.gate",
    "mlp.up",
    "mlp.act",
    "mlp.down",
    "resid_post",
)


class TransformersAddresses:
    """A transformers model as an `Addressable` (precision/addresses.py).

    Calling it runs the model on int64 [P] or [B, P], without padding, and returns its logits.
    """

    def __init__(self, model: Any) -> None:
        """Raises TypeError for a model of another family, ValueError for settings not supported."""
        _check(model)
        self.model = model
        head_norms = _HEAD_NORMS if hasattr(model.model.layers[0].self_attn, "q_norm") else ()
        block = (*_BEFORE_ATTENTION, *head_norms, *_AFTER)
        inner = [f"blocks.{i}.{name}" for i in range(len(model.model.layers)) for name in block]
        self._registry = OverrideRegistry(["embed", *inner, "ln_final", "unembed"])
        self._leaves = _leaves(model)
        self._seamed: list[Any] = []

    @property
    def op_addresses(self) -> list[str]:
        """Every operation of a pass, in order."""
        return list(self._registry.addresses)

    @contextmanager
    def override(self, address: str, fn: Override, /) -> Iterator[None]:
        """See `Addressable.override`."""
        try:
            with self._registry.added(address, fn):
                if not self._is_open:
                    self._open_seams()
                yield
        finally:
            if self._is_open and not self._registry.installed:
                self._close_seams()

    def site(self, address: str) -> Site:
        """See `Addressable.site`."""
        self._registry.check(address)
        kind = operation_at(address)
        bind, operands = _ARGUMENTS[kind]
        module = self._leaves.get(address)
        return Site(
            address,
            self._contract(CONTRACTED[kind]),
            f"transformers eager {type(self.model).__name__}",
            bind=bind if module is None else partial(bind, module),
            operands=operands,
            view=_VIEWS[kind],
            restore=_RESTORES[kind],
        )

    def __call__(self, tokens: torch.Tensor, /) -> torch.Tensor:
        tokens_BP = tokens[None] if tokens.ndim == 1 else tokens
        logits: torch.Tensor = self.model(input_ids=tokens_BP, use_cache=False).logits
        return logits

    def _contract(self, op: str) -> PrecisionContract:
        return _CONTRACTS[self.model.dtype][op]

    # The seams, open while something is overridden

    def _op(self, address: str, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        override = self._registry.installed.get(address)
        return fn(*args, **kwargs) if override is None else override(fn, *args, **kwargs)

    def _open_seams(self) -> None:
        forwards: dict[Any, Callable[..., Any]] = {}
        for address, module in self._leaves.items():
            forwards[module] = partial(self._op, address, module.forward)
        for i, layer in enumerate(self.model.model.layers):
            block = f"blocks.{i}"
            attention = self._attention_forward(layer.self_attn, f"{block}.attn")
            forwards[layer.self_attn] = attention
            forwards[layer.mlp] = partial(self._mlp_forward, layer.mlp, f"{block}.mlp")
            forwards[layer] = partial(self._layer_forward, layer, block)
        replaced = [module for module in forwards if "forward" in vars(module)]
        if replaced:
            raise RuntimeError(
                f"something else has replaced the forward of a {type(replaced[0]).__name__}: "
                "use one TransformersAddresses a model, without hooks that wrap modules"
            )
        for module, forward in forwards.items():
            module.forward = forward
        self._seamed = list(forwards)

    def _close_seams(self) -> None:
        for module in self._seamed:
            del module.forward
        self._seamed = []

    @property
    def _is_open(self) -> bool:
        return bool(self._seamed)

    def _layer_forward(
        self, layer: Any, block: str, hidden_states: torch.Tensor, **kwargs: Any
    ) -> torch.Tensor:
        """As the family's decoder layers, whose residual adds are no modules."""
        normed = layer.input_layernorm(hidden_states)
        attn_out, _ = layer.self_attn(hidden_states=normed, **kwargs)
        resid_mid = self._op(f"{block}.resid_mid", torch.add, hidden_states, attn_out)
        mlp_out = layer.mlp(layer.post_attention_layernorm(resid_mid))
        resid_post: torch.Tensor = self._op(f"{block}.resid_post", torch.add, resid_mid, mlp_out)
        return resid_post

    def _mlp_forward(self, mlp: Any, address: str, x: torch.Tensor) -> torch.Tensor:
        """As the family's MLPs, whose product is no module."""
        gate, up = mlp.gate_proj(x), mlp.up_proj(x)
        down: torch.Tensor = mlp.down_proj(
            self._op(f"{address}.act", partial(_gated_act, mlp.act_fn), gate, up)
        )
        return down

    def _attention_forward(self, attn: Any, address: str) -> Callable[..., Any]:
        """The class's own forward, with its rotation and its attention function dispatched here."""
        forward = type(attn).forward
        rotate = forward.__globals__["apply_rotary_pos_emb"]
        attend = _DispatchedAttention(
            forward.__globals__["ALL_ATTENTION_FUNCTIONS"],
            partial(self._op, f"{address}.attention"),
        )

        def rotate_each(
            q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
        ) -> tuple[torch.Tensor, torch.Tensor]:
            one = partial(_rotate_one, rotate)
            rotated_q = self._op(f"{address}.rope_q", one, q, cos, sin)
            return rotated_q, self._op(f"{address}.rope_k", one, k, cos, sin)

        seams = {"apply_rotary_pos_emb": rotate_each, "ALL_ATTENTION_FUNCTIONS": attend}
        function = FunctionType(
            forward.__code__,
            {**forward.__globals__, **seams},
            forward.__name__,
            forward.__defaults__,
            forward.__closure__,
        )
        function.__kwdefaults__ = forward.__kwdefaults__
        return MethodType(function, attn)


class _DispatchedAttention:
    """Stands for transformers' table of attention functions inside one module's forward."""

    def __init__(self, registry: Any, dispatch: Callable[..., Any]) -> None:
        self._registry, self._dispatch = registry, dispatch

    def get_interface(self, name: str, default: Callable[..., Any]) -> Callable[..., Any]:
        """As the table's own; the default is what transformers runs as "eager"."""
        return partial(self._dispatch, self._registry.get_interface(name, default))


def _check(model: Any) -> None:
    kind = type(model).__name__
    if kind not in FAMILY:
        raise TypeError(f"{kind}: addresses are known for {', '.join(FAMILY)}")
    if model.config._attn_implementation != "eager":
        raise ValueError(
            f"attention is computed by {model.config._attn_implementation!r}, whose contract is "
            'unknown: load with attn_implementation="eager"'
        )
    if model.dtype not in _CONTRACTS:
        raise ValueError(f"weights in {model.dtype}: contracts exist for float32 and bfloat16")
    if model.config.hidden_act not in ("silu", "swish"):
        raise ValueError(f"hidden_act = {model.config.hidden_act!r}: only silu is known")
    if model.training:
        raise ValueError("the model is in training mode: call model.eval()")
    forward = type(model.model.layers[0].self_attn).forward
    if hasattr(forward, "__wrapped__") or not _SEAMS.issubset(forward.__code__.co_names):
        raise TypeError(f"{kind}: this transformers computes attention in another way than 5.23")


_SEAMS = {"apply_rotary_pos_emb", "ALL_ATTENTION_FUNCTIONS"}


def _leaves(model: Any) -> dict[str, Any]:
    """The modules that are an operation of their own, by address."""
    leaves = {"embed": model.model.embed_tokens}
    for i, layer in enumerate(model.model.layers):
        attn, mlp = layer.self_attn, layer.mlp
        found = {
            "ln1": layer.input_layernorm,
            "attn.q": attn.q_proj,
            "attn.k": attn.k_proj,
            "attn.v": attn.v_proj,
            "attn.q_norm": getattr(attn, "q_norm", None),
            "attn.k_norm": getattr(attn, "k_norm", None),
            "attn.o": attn.o_proj,
            "ln2": layer.post_attention_layernorm,
            "mlp.gate": mlp.gate_proj,
            "mlp.up": mlp.up_proj,
            "mlp.down": mlp.down_proj,
        }
        leaves |= {f"blocks.{i}.{name}": module for name, module in found.items() if module}
    leaves |= {"ln_final": model.model.norm, "unembed": model.lm_head}
    for address, module in leaves.items():
        if operation_at(address) == "linear" and type(module) is not nn.Linear:
            raise TypeError(f"{address} is a {type(module).__name__}, not a plain nn.Linear")
    return leaves


# The operations as the forwards above call them


def _gated_act(
    act: Callable[[torch.Tensor], torch.Tensor], gate: torch.Tensor, up: torch.Tensor
) -> torch.Tensor:
    return act(gate) * up


def _rotate_one(
    rotate: Callable[..., tuple[torch.Tensor, torch.Tensor]],
    x: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
) -> torch.Tensor:
    # transformers rotates q and k in one call: here the second of them has no heads.
    return rotate(x, x[:, :0], cos, sin)[0]


# Their arguments as the contract's inputs


def _heads(x_BHPh: torch.Tensor) -> torch.Tensor:
    """[H, T, h]."""
    return x_BHPh.detach().transpose(0, 1).flatten(1, 2)


def _as_heads(y_HTh: torch.Tensor, like_BHPh: torch.Tensor) -> torch.Tensor:
    batch, heads, positions, size = like_BHPh.shape
    y_BHPh = y_HTh.reshape(heads, batch, positions, size).transpose(0, 1)
    return y_BHPh.to(like_BHPh.dtype).contiguous()


def _attention_heads(result: tuple[torch.Tensor, Any]) -> torch.Tensor:
    return result[0].flatten(0, 1).transpose(0, 1)


def _as_attention(y_HTh: torch.Tensor, like: tuple[torch.Tensor, Any]) -> tuple[torch.Tensor, Any]:
    """The weights beside the output stay as they were: nothing computes with them."""
    return y_HTh.transpose(0, 1).reshape(like[0].shape).to(like[0].dtype), like[1]


def _bind_embedding(module: Any, tokens_BP: torch.Tensor) -> dict[str, Any]:
    picked_Td = module.weight.detach()[tokens_BP.flatten()]
    return {"a": picked_Td[..., None], "b": picked_Td.new_ones(1, 1)}


def _bind_linear(module: Any, x: torch.Tensor) -> dict[str, Any]:
    inputs = {"a": rows(x), "b": module.weight.detach().T}
    return inputs if module.bias is None else inputs | {"bias": module.bias.detach()}


def _bind_norm(module: Any, x: torch.Tensor) -> dict[str, Any]:
    return {"x": rows(x), "weight": module.weight.detach(), "eps": module.variance_epsilon}


def _bind_rope(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> dict[str, Any]:
    """The tables come as they are, already in the model's dtype; both their halves are one."""
    half = x.shape[-1] // 2
    tables = (t.expand(x.shape[0], -1, -1).flatten(0, 1)[:, :half] for t in (cos, sin))
    return {"x": _heads(x), **dict(zip(("cos", "sin"), tables, strict=True))}


def _bind_attention(
    attn: Any,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    *,
    scaling: float,
    **options: Any,
) -> dict[str, Any]:
    if q.shape[0] != 1:
        raise ValueError(f"attention of {q.shape[0]} sequences: its contract takes one at a time")
    if options.get("softcap") is not None:
        raise ValueError("softcap: the rounding points of a capped eager attention are not known")
    past = k.shape[2] - q.shape[2]
    inputs = {"q": _heads(q), "k": _heads(k), "v": _heads(v), "scale": scaling}
    window = options.get("sliding_window")
    if not _is_causal(mask, past, window, q.shape[2]):
        raise ValueError("attention_mask: not causal; pass one sequence without padding")
    inputs |= {"causal": True, "past": past}
    return inputs if window is None else inputs | {"window": window}


def _is_causal(mask: torch.Tensor | None, past: int, window: int | None, n: int) -> bool:
    t, key = torch.arange(past, past + n)[:, None], torch.arange(past + n)
    expected = key <= t
    if window is not None:
        expected &= key > t - window
    return bool(expected.all()) if mask is None else torch.equal(mask[0, 0].cpu() == 0, expected)


_Arguments = tuple[Callable[..., dict[str, Any]], Callable[..., tuple[torch.Tensor, ...]]]
_ARGUMENTS: Mapping[str, _Arguments] = {
    "embedding": (_bind_embedding, lambda _: ()),
    "linear": (_bind_linear, lambda x: (rows(x.detach()),)),
    "norm": (_bind_norm, lambda x: (rows(x.detach()),)),
    "add": (bind_add, lambda x, y: (rows(x.detach()), rows(y.detach()))),
    "rope": (_bind_rope, lambda x, *_: (_heads(x),)),
    "attention": (
        _bind_attention,
        lambda _, q, k, v, *__, **___: (_heads(q), _heads(k), _heads(v)),
    ),
    "gated_act": (
        lambda gate, up: {"gate": rows(gate), "up": rows(up)},
        lambda gate, up: (rows(gate.detach()), rows(up.detach())),
    ),
}
_VIEWS: Mapping[str, Callable[[Any], torch.Tensor]] = {
    **VIEWS,
    "rope": _heads,
    "attention": _attention_heads,
}
_RESTORES: Mapping[str, Callable[[torch.Tensor, Any], Any]] = {
    **RESTORES,
    "rope": _as_heads,
    "attention": _as_attention,
}
