"""transformers' Llama family and Gemma 3, eager, under the addresses of bitlens (transformers 5).

    from bitlens.model.interop.transformers_addresses import TransformersAddresses
    peer = TransformersAddresses(AutoModelForCausalLM.from_pretrained(..., "eager"))
    with peer.override("blocks.7.mlp.down", fn): ...

The model's own code runs, patched or not, with hooks on its modules while something is overridden.
Tensor names: B batch, P positions, T = B P rows, K keys, H heads, G key/value heads, h d_head.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from ...precision.addresses import Site
from ...precision.contract import PrecisionContract
from ...precision.contracts import HUGGINGFACE_LLAMA_BF16, HUGGINGFACE_LLAMA_FP32
from ...precision.meaning import Quantities
from ..hooks.overrides import Override, OverrideRegistry, op_addresses
from ..ops.sites import KINDS, operation_at
from .transformers_hooks import attention_arguments, watched
from .transformers_meaning import observed_quantities, stored_rounding
from .transformers_pass import FunctionsOfPass, ObservedPass
from .transformers_sites import Placed, site_parts
from .transformers_structure import (
    causal_model,
    family_config,
    fused_mlps,
    modules_by_address,
    require_contracts,
    weights_of,
)

_CONTRACTS = {torch.float32: HUGGINGFACE_LLAMA_FP32, torch.bfloat16: HUGGINGFACE_LLAMA_BF16}

_FUSED_MLP = {
    torch.float32: PrecisionContract("gated_mlp"),
    torch.bfloat16: PrecisionContract(
        "gated_mlp",
        storage="bf16",
        casts=("hidden", "activated", "product", "output"),
        may_flush=True,
    ),
}


class TransformersAddresses:
    """A transformers model as an `Addressable` (precision/addresses.py).

    Calling it runs the model on int64 [P] or [B, P], without padding, and returns its logits; while
    something is overridden it raises UnobservedError unless every operation ran exactly once.
    An MLP whose linears somebody's code has fused is one operation, "blocks.0.mlp.down".
    Overrides are called with an `original` that returns what the model's own code computed.
    """

    def __init__(self, model: Any, *, any_attention: bool = False) -> None:
        """`any_attention` watches attention whose contract nobody knows, too, such as sdpa's: what
        its sites say is not to be judged by.

        Raises TypeError for a model of another family or of code that cannot be watched, naming the
        module, ValueError for settings not supported.
        """
        self.model = model
        self._inner = causal_model(model)
        require_contracts(self._inner, any_attention)
        self.config = family_config(self._inner)
        self._modules = modules_by_address(self._inner)
        self._fused = fused_mlps(self._inner)
        inside = {f"blocks.{i}.mlp.{name}" for i in self._fused for name in ("gate", "up", "act")}
        addresses = [address for address in op_addresses(self.config) if address not in inside]
        self._registry = OverrideRegistry(addresses)
        self._passes = threading.local()
        self._hooks = ExitStack()
        self._lock, self._watching = threading.Lock(), 0

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of its weights."""
        dtype: torch.dtype = self._inner.dtype
        return dtype

    @property
    def unjudged(self) -> tuple[str, ...]:
        """Ends of addresses whose contract the model does not have: attention that is not eager,
        rotations by frequencies that `.to(dtype)` has rounded."""
        eager = self._inner.config._attn_implementation == "eager"
        rotary = self._inner.model.rotary_emb.buffers()
        whole = not any(stored_rounding(buffer) for buffer in rotary)
        return (() if eager else (".attention",)) + (() if whole else (".rope_q", ".rope_k"))

    @property
    def op_addresses(self) -> list[str]:
        """Every operation of a pass, in order."""
        return list(self._registry.addresses)

    @contextmanager
    def override(self, address: str, fn: Override, /) -> Iterator[None]:
        """See `Addressable.override`."""
        with self._registry.added(address, fn), self._watched():
            yield

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Hooks on the modules while any thread has something overridden."""
        with self._lock:
            if not self._watching:
                self._hooks.enter_context(
                    watched(
                        self.model,
                        self._inner,
                        self.config,
                        self._fused,
                        self._pass_of_this_thread,
                    )
                )
            self._watching += 1
        try:
            yield
        finally:
            with self._lock:
                self._watching -= 1
                if not self._watching:
                    self._hooks.close()

    def site(self, address: str) -> Site:
        """See `Addressable.site`."""
        self._registry.check(address)
        layer = int(address.split(".")[1]) if address.startswith("blocks.") else None
        is_fused = layer in self._fused and address.endswith(".mlp.down")
        kind = "mlp" if is_fused else operation_at(address)
        parts = site_parts(kind, self.config)
        module = self._modules.get(address)
        if is_fused:
            module = self._inner.model.layers[layer].mlp
        elif module is not None:
            module = weights_of(address, module)
        placed = Placed(self.config, layer, module, self._inner.model.rotary_emb)
        return Site(
            address,
            self._contract(kind),
            f"transformers eager {type(self._inner).__name__}",
            bind=partial(parts.bind, placed),
            operands=parts.operands,
            view=parts.view,
            restore=parts.restore,
        )

    def derived_quantities(self, tokens: torch.Tensor, /) -> Quantities:
        """See `precision.meaning.Derives`: what a pass over these tokens shows."""
        tokens_BP = tokens[None] if tokens.ndim == 1 else tokens
        with attention_arguments(self._inner) as seen:
            self._logits(tokens_BP)
        return observed_quantities(self._inner, self.config, seen, tokens_BP.shape[1])

    def __call__(self, tokens: torch.Tensor, /) -> torch.Tensor:
        tokens_BP = tokens[None] if tokens.ndim == 1 else tokens
        installed = self._registry.installed
        if not installed:
            return self._logits(tokens_BP)
        run = ObservedPass(tokens_BP, installed)
        self._passes.run = run
        try:
            with FunctionsOfPass(run):
                logits = self._logits(tokens_BP)
        finally:
            self._passes.run = None
        run.check_complete(self._registry.addresses)
        return logits

    def _pass_of_this_thread(self) -> ObservedPass | None:
        return getattr(self._passes, "run", None)

    def _logits(self, tokens_BP: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(input_ids=tokens_BP, use_cache=False).logits
        return logits

    def _contract(self, kind: str) -> PrecisionContract:
        if kind == "mlp":
            return _FUSED_MLP[self._inner.dtype]
        contract = _CONTRACTS[self._inner.dtype][KINDS[kind].op]
        if kind == "rms_norm" and self.config.multiplies_by_offset:
            return replace(contract, casts=("output",))
        return contract
