"""TransformerLens models under the addresses of bitlens: results only, at its hook points.

    from bitlens.model.interop.transformer_lens_addresses import TransformerLensAddresses
    peer = TransformerLensAddresses(HookedTransformer.from_pretrained_no_processing(...))

A hook point shows what an operation returned, not what it was given: results can be compared and
exchanged (every mode of `first_divergence`, but for judge="contract" and replacement="upcast"),
operations neither judged by contract nor given a fault. The first two norms of a block have no hook
point at their output, and no address here. Tensor names: B batch, P positions, T = B P rows,
H heads, h d_head.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from threading import Lock
from typing import Any, NoReturn

import torch
from torch.utils.hooks import RemovableHandle

from ...precision.addresses import Site
from ...precision.contract import PrecisionContract
from ..hooks.overrides import Override, OverrideRegistry
from ..ops.sites import KINDS, as_rows, operation_at

_BLOCK_HOOKS: Mapping[str, str] = {
    "attn.q": "attn.hook_q",
    "attn.k": "attn.hook_k",
    "attn.v": "attn.hook_v",
    "attn.rope_q": "attn.hook_rot_q",
    "attn.rope_k": "attn.hook_rot_k",
    "attn.attention": "attn.hook_z",
    "attn.o": "hook_attn_out",
    "resid_mid": "hook_resid_mid",
    "mlp.gate": "mlp.hook_pre",
    "mlp.up": "mlp.hook_pre_linear",
    "mlp.act": "mlp.hook_post",
    "mlp.down": "hook_mlp_out",
    "resid_post": "hook_resid_post",
}
_FORMATS = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
_NEEDED = {
    "normalization_type": "RMS",
    "final_rms": True,
    "gated_mlp": True,
    "attn_only": False,
    "positional_embedding_type": "rotary",
    "rotary_adjacent_pairs": False,
    "use_normalization_before_and_after": False,
    "attn_scores_soft_cap": -1.0,
    "output_logits_soft_cap": -1.0,
}


class TransformerLensAddresses:
    """A TransformerLens 3 `HookedTransformer` as an `Addressable` (precision/addresses.py).

    Overrides are called with an `original` that takes no arguments.
    """

    def __init__(self, model: Any) -> None:
        """Raises ValueError for a model that is no Llama, or whose weights were processed."""
        for name, value in _NEEDED.items():
            if (found := getattr(model.cfg, name)) != value:
                raise ValueError(
                    f"cfg.{name} = {found!r}: addresses are known where it is {value!r} "
                    "(a Llama from from_pretrained_no_processing)"
                )
        if model.cfg.dtype not in _FORMATS:
            raise ValueError(f"cfg.dtype = {model.cfg.dtype}: expected one of {list(_FORMATS)}")
        self.model = model
        inner = {
            f"blocks.{i}.{name}": f"blocks.{i}.{hook}"
            for i in range(model.cfg.n_layers)
            for name, hook in _BLOCK_HOOKS.items()
        }
        self._hooks = {
            "embed": "hook_embed",
            **inner,
            "ln_final": "unembed.hook_in",
            "unembed": "unembed.hook_out",
        }
        self._registry = OverrideRegistry(list(self._hooks))
        self._lock = Lock()
        self._users: Counter[str] = Counter()
        self._handles: dict[str, RemovableHandle] = {}

    @property
    def op_addresses(self) -> list[str]:
        """Every operation whose result a hook point shows, in order."""
        return list(self._registry.addresses)

    @contextmanager
    def override(self, address: str, fn: Override, /) -> Iterator[None]:
        """See `Addressable.override`; another thread's passes go by it."""
        with self._registry.added(address, fn):
            self._watch(address)
            try:
                yield
            finally:
                self._unwatch(address)

    def _watch(self, address: str) -> None:
        """Has the model call `_dispatch` at an address, however many overrides stand there."""
        with self._lock:
            self._users[address] += 1
            if self._users[address] == 1:
                point = self.model.hook_dict[self._hooks[address]]
                dispatch = partial(self._dispatch, address)
                self._handles[address] = point.register_forward_hook(dispatch)

    def _unwatch(self, address: str) -> None:
        with self._lock:
            self._users[address] -= 1
            if not self._users[address]:
                self._handles.pop(address).remove()

    def site(self, address: str) -> Site:
        """See `Addressable.site`; binding raises NotImplementedError."""
        self._registry.check(address)
        kind = operation_at(address)
        heads = kind in ("rope", "attention")
        return Site(
            address,
            PrecisionContract(KINDS[kind].op, storage=_FORMATS[self.model.cfg.dtype]),
            "transformer_lens",
            bind=partial(_bind, address),
            operands=None,
            view=_heads if heads else partial(_rows, KINDS[kind].view),
            restore=_as_heads if heads else as_rows,
        )

    def __call__(self, tokens: torch.Tensor, /) -> torch.Tensor:
        logits: torch.Tensor = self.model(tokens[None] if tokens.ndim == 1 else tokens)
        return logits

    def _dispatch(self, address: str, point: Any, inputs: Any, output: torch.Tensor) -> Any:
        override = self._registry.installed.get(address)
        if override is None:
            return output  # the pass of a thread that asked for nothing
        result = override(lambda: output)
        # TransformerLens goes on with anything at all; another shape would broadcast.
        if not isinstance(result, torch.Tensor) or result.shape != output.shape:
            raise ValueError(f"the override of {address} returned no {list(output.shape)} tensor")
        return None if result is output else result


def _bind(address: str, *args: Any, **kwargs: Any) -> NoReturn:
    raise NotImplementedError(
        f"TransformerLens shows what {address} returned, not what it was given: no contract can be "
        "judged and no fault injected there; use the Hugging Face model"
    )


def _rows(view: Callable[[Any], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    return view(x.flatten(2))


def _heads(x_BPHh: torch.Tensor) -> torch.Tensor:
    return x_BPHh.flatten(0, 1).transpose(0, 1)


def _as_heads(y_HTh: torch.Tensor, like_BPHh: torch.Tensor) -> torch.Tensor:
    return y_HTh.transpose(0, 1).reshape(like_BPHh.shape).to(like_BPHh.dtype)
