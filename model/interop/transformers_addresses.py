"""transformers' Llama family and Gemma 3, eager, under the addresses of bitlens (transformers 5).

    from bitlens.model.interop.transformers_addresses import TransformersAddresses
    peer = TransformersAddresses(AutoModelForCausalLM.from_pretrained(..., "eager"))
    with peer.override("blocks.7.mlp.down", fn): ...

Modules get an own `forward` while something is overridden, and their class's back afterwards.
Tensor names: B batch, P positions, T = B P rows, K keys, H heads, G key/value heads, h d_head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import nn

from ...precision.addresses import Site
from ...precision.contract import PrecisionContract
from ...precision.contracts import HUGGINGFACE_LLAMA_BF16, HUGGINGFACE_LLAMA_FP32
from ..hooks.overrides import Override, OverrideRegistry
from ..ops.sites import CONTRACTED, operation_at
from .transformers_sites import GEMMA_SITES, SITES

FAMILY = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
"""Models whose blocks are Llama's: what differs is biases, windows and norms of q and k."""

GEMMA = "Gemma3ForCausalLM"
"""Has two norms more a block, which multiply by 1 + w, a scaled embedding, and GELU."""

_CONTRACTS = {torch.float32: HUGGINGFACE_LLAMA_FP32, torch.bfloat16: HUGGINGFACE_LLAMA_BF16}
_BEFORE_ATTENTION = ("ln1", "attn.q", "attn.k", "attn.v")
_HEAD_NORMS = ("attn.q_norm", "attn.k_norm")
_AFTER = (
    "attn.rope_q",
    "attn.rope_k",
    "attn.attention",
    "attn.o",
    "ln1_post",
    "resid_mid",
    "ln2",
    "mlp.gate",
    "mlp.up",
    "mlp.act",
    "mlp.down",
    "ln2_post",
    "resid_post",
)
_SANDWICH = {"ln1_post", "ln2_post"}


class TransformersAddresses:
    """A transformers model as an `Addressable` (precision/addresses.py).

    Calling it runs the model on int64 [P] or [B, P], without padding, and returns its logits.
    """

    def __init__(self, model: Any) -> None:
        """Raises TypeError for a model of another family, ValueError for settings not supported."""
        _check(model)
        self.model = model
        self._is_gemma = type(model).__name__ == GEMMA
        head_norms = _HEAD_NORMS if hasattr(model.model.layers[0].self_attn, "q_norm") else ()
        absent = set() if self._is_gemma else _SANDWICH
        after = (name for name in _AFTER if name not in absent)
        block = (*_BEFORE_ATTENTION, *head_norms, *after)
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
        parts = (GEMMA_SITES if self._is_gemma else SITES)[kind]
        module = self._leaves.get(address)
        return Site(
            address,
            self._contract(kind),
            f"transformers eager {type(self.model).__name__}",
            bind=parts.bind if module is None else partial(parts.bind, module),
            operands=parts.operands,
            view=parts.view,
            restore=parts.restore,
        )

    def __call__(self, tokens: torch.Tensor, /) -> torch.Tensor:
        tokens_BP = tokens[None] if tokens.ndim == 1 else tokens
        logits: torch.Tensor = self.model(input_ids=tokens_BP, use_cache=False).logits
        return logits

    def _contract(self, kind: str) -> PrecisionContract:
        contract = _CONTRACTS[self.model.dtype][CONTRACTED[kind]]
        if kind == "norm" and self._is_gemma:
            return replace(contract, casts=("output",))
        return contract

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
        """Runs in place of the decoder layers, whose residual adds are no modules."""
        norms = _norms(layer)
        attn_out, _ = layer.self_attn(hidden_states=norms["ln1"](hidden_states), **kwargs)
        if self._is_gemma:
            attn_out = norms["ln1_post"](attn_out)
        resid_mid = self._op(f"{block}.resid_mid", torch.add, hidden_states, attn_out)
        mlp_out = layer.mlp(norms["ln2"](resid_mid))
        if self._is_gemma:
            mlp_out = norms["ln2_post"](mlp_out)
        resid_post: torch.Tensor = self._op(f"{block}.resid_post", torch.add, resid_mid, mlp_out)
        return resid_post

    def _mlp_forward(self, mlp: Any, address: str, x: torch.Tensor) -> torch.Tensor:
        """Runs in place of the family's MLPs, whose product is no module."""
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
        """Answers like the table's own; the default is what transformers runs as "eager"."""
        return partial(self._dispatch, self._registry.get_interface(name, default))


def _check(model: Any) -> None:
    kind = type(model).__name__
    if kind not in (*FAMILY, GEMMA):
        raise TypeError(f"{kind}: addresses are known for {', '.join((*FAMILY, GEMMA))}")
    if model.config._attn_implementation != "eager":
        raise ValueError(
            f"attention is computed by {model.config._attn_implementation!r}, whose contract is "
            'unknown: load with attn_implementation="eager"'
        )
    if model.dtype not in _CONTRACTS:
        raise ValueError(f"weights in {model.dtype}: contracts exist for float32 and bfloat16")
    field, known = _GELU if kind == GEMMA else _SILU
    if getattr(model.config, field) not in known:
        raise ValueError(f"{field} = {getattr(model.config, field)!r}: only {known[0]} is known")
    if getattr(model.config, "final_logit_softcapping", None) is not None:
        raise ValueError("final_logit_softcapping: has no address")
    if model.training:
        raise ValueError("the model is in training mode: call model.eval()")
    forward = type(model.model.layers[0].self_attn).forward
    if hasattr(forward, "__wrapped__") or not _SEAMS.issubset(forward.__code__.co_names):
        raise TypeError(f"{kind}: this transformers computes attention in another way than 5.23")


_SILU = ("hidden_act", ("silu", "swish"))
_GELU = ("hidden_activation", ("gelu_pytorch_tanh",))
_SEAMS = {"apply_rotary_pos_emb", "ALL_ATTENTION_FUNCTIONS"}


def _leaves(model: Any) -> dict[str, Any]:
    """The modules that are an operation of their own, by address."""
    leaves = {"embed": model.model.embed_tokens}
    for i, layer in enumerate(model.model.layers):
        attn, mlp = layer.self_attn, layer.mlp
        found = {
            **_norms(layer),
            "attn.q": attn.q_proj,
            "attn.k": attn.k_proj,
            "attn.v": attn.v_proj,
            "attn.q_norm": getattr(attn, "q_norm", None),
            "attn.k_norm": getattr(attn, "k_norm", None),
            "attn.o": attn.o_proj,
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


def _norms(layer: Any) -> dict[str, Any]:
    """A block's norms by the last part of their addresses."""
    if not hasattr(layer, "pre_feedforward_layernorm"):
        return {"ln1": layer.input_layernorm, "ln2": layer.post_attention_layernorm}
    return {
        "ln1": layer.input_layernorm,
        "ln1_post": layer.post_attention_layernorm,
        "ln2": layer.pre_feedforward_layernorm,
        "ln2_post": layer.post_feedforward_layernorm,
    }


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
