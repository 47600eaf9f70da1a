"""Formats, ULP, contracts and what they allow, faults, divergence, verdicts. Knows no model.

Loaded on first use: importing bitlens stays light. The strategies for Hypothesis are in
`bitlens.precision.strategies`, the statistics in `bitlens.precision.statistics`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .ulp import ulp, ulp_distance, ulp_error

if TYPE_CHECKING:
    from .addresses import Addressable, Site
    from .assertions import assert_bitwise, assert_correctly_rounded, assert_within_bound
    from .binding import BindingError, ExampleCall, bind
    from .bounds.error_bound import error_bound
    from .certificate import EquivalenceCertificate
    from .condition import condition_number
    from .contract import ContractError, PrecisionContract
    from .contracts import (
        BITLENS,
        HUGGINGFACE_LLAMA_BF16,
        HUGGINGFACE_LLAMA_FP32,
        bitlens_contract,
    )
    from .differential import differential_test
    from .divergence.first_divergence import first_divergence
    from .emulation import emulate
    from .exact import reference
    from .faults import FAULTS, Fault
    from .flips import flip_certificate
    from .formats import FORMATS, Format, format_of, round_to
    from .inject import SingleOperation, inject_fault
    from .oracle import Verdict, check, enclosure

_HOME = {
    "addresses": ("Addressable", "Site"),
    "assertions": ("assert_bitwise", "assert_correctly_rounded", "assert_within_bound"),
    "binding": ("BindingError", "ExampleCall", "bind"),
    "bounds.error_bound": ("error_bound",),
    "certificate": ("EquivalenceCertificate",),
    "condition": ("condition_number",),
    "contract": ("ContractError", "PrecisionContract"),
    "contracts": (
        "BITLENS",
        "HUGGINGFACE_LLAMA_BF16",
        "HUGGINGFACE_LLAMA_FP32",
        "bitlens_contract",
    ),
    "differential": ("differential_test",),
    "divergence.first_divergence": ("first_divergence",),
    "emulation": ("emulate",),
    "exact": ("reference",),
    "faults": ("FAULTS", "Fault"),
    "flips": ("flip_certificate",),
    "formats": ("FORMATS", "Format", "format_of", "round_to"),
    "inject": ("SingleOperation", "inject_fault"),
    "oracle": ("Verdict", "check", "enclosure"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "BITLENS",
    "FAULTS",
    "FORMATS",
    "HUGGINGFACE_LLAMA_BF16",
    "HUGGINGFACE_LLAMA_FP32",
    "Addressable",
    "BindingError",
    "ContractError",
    "EquivalenceCertificate",
    "ExampleCall",
    "Fault",
    "Format",
    "PrecisionContract",
    "SingleOperation",
    "Site",
    "Verdict",
    "assert_bitwise",
    "assert_correctly_rounded",
    "assert_within_bound",
    "bind",
    "bitlens_contract",
    "check",
    "condition_number",
    "differential_test",
    "emulate",
    "enclosure",
    "error_bound",
    "first_divergence",
    "flip_certificate",
    "format_of",
    "inject_fault",
    "reference",
    "round_to",
    "ulp",
    "ulp_distance",
    "ulp_error",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
