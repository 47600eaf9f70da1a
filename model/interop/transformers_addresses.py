"""transformers' Llama family and Gemma 3 under the addresses of bitlens (transformers 5).

    from bitlens.model.interop.transformers_addresses import TransformersAddresses
    peer = TransformersAddresses(AutoModelForCausalLM.from_pretrained(...))
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
from ...precision.contracts import HUGGINGFACE_LLAMA_BF16, HUGGINGFACE_LLAMA_FP32, unit_contract
from ...precision.meaning import Quantities
from ...precision.operations import UNITS
from ..hooks.overrides import Override, OverrideRegistry, op_addresses
from ..ops.sites import KINDS, operation_at
from .transformers_hooks import watched
from .transformers_meaning import observed_quantities, stored_rounding
from .transformers_pass import FunctionsOfPass, ObservedPass
from .transformers_sites import Placed, site_parts
from .transformers_structure import (
    causal_model,
    family_config,
    modules_by_address,
    require_contracts,
    weights_of,
)
from .transformers_units import Watch, units_of

_STORAGE = {torch.float32: "fp32", torch.bfloat16: "bf16"}
_CONTRACTS = {torch.float32: HUGGINGFACE_LLAMA_FP32, torch.bfloat16: HUGGINGFACE_LLAMA_BF16}


class TransformersAddresses:
    """A transformers model as an `Addressable` (precision/addresses.py).

    Calling it runs the model on int64 [P] or [B, P], without padding, and returns its logits; while
    something is overridden it raises UnobservedError unless every operation ran exactly once.
    Fused operations are one unit (model/interop/transformers_units.py), whose `Site.unit` says so:
    attention in one call, such as sdpa's, and MLPs and attention modules that cannot be seen into.
    Overrides are called with an `original` that returns what the model's own code computed.
    """

    def __init__(self, model: Any) -> None:
        """Runs the model once, on two tokens.

        Raises TypeError for a model of another family or of code that cannot be watched, naming the
        module, ValueError for settings not supported.
        """
        self.model = model
        self._inner = causal_model(model)
        require_contracts(self._inner)
        self.config = family_config(self._inner)
        self._modules = modules_by_address(self._inner)
        self._units = units_of(self._inner)
        inside = {address for unit in self._units.values() for address in unit.inside}
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
        """Ends of addresses whose contract the model does not have: rotations by frequencies that
        `.to(dtype)` has rounded, and the units that they are in."""
        rotary = self._inner.model.rotary_emb.buffers()
        if not any(stored_rounding(buffer) for buffer in rotary):
            return ()
        turning = (x for x, unit in self._units.items() if f"{unit.of}.rope_q" in unit.inside)
        return (".rope_q", ".rope_k", *turning)

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
                        self._units,
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
        unit = self._units.get(address)
        kind = operation_at(address) if unit is None else unit.op
        parts = site_parts(kind, self.config)
        placed = Placed(self.config, layer, self._module(address), self._inner.model.rotary_emb)
        by = "eager" if unit is None else unit.by
        return Site(
            address,
            self._contract(kind),
            f"transformers {by} {type(self._inner).__name__}",
            bind=partial(parts.bind, placed),
            operands=parts.operands,
            view=parts.view,
            restore=parts.restore,
            unit=None if unit is None else str(unit),
        )

    def _module(self, address: str) -> Any:
        """Returns the module that has an operation's weights, if one has."""
        unit = self._units.get(address)
        if unit is not None:
            layer = self._inner.model.layers[int(address.split(".")[1])]
            return layer.mlp if unit.op == "gated_mlp" else layer.self_attn
        module = self._modules.get(address)
        return None if module is None else weights_of(address, module)

    def derived_quantities(self, tokens: torch.Tensor, /) -> Quantities:
        """See `precision.meaning.Derives`: what a pass over these tokens shows."""
        tokens_BP = tokens[None] if tokens.ndim == 1 else tokens
        seen = Watch()
        with seen.of(self._inner):
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
        if kind in UNITS:
            return unit_contract(kind, _STORAGE[self._inner.dtype])
        contract = _CONTRACTS[self._inner.dtype][KINDS[kind].op]
        if kind == "rms_norm" and self.config.multiplies_by_offset:
            return replace(contract, casts=("output",))
        return contract
