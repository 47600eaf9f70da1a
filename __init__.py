"""Transformers whose bits do not move and whose insides are readable at full speed.

    import bitlens
    model = bitlens.load("smollm2-135m-instruct")
    logits, cache = model.run_with_cache("Paris is the capital of")

What is promised, and at which rounding points, is in docs/numerics.md; an equal `numerics_version`
promises equal bits. BITLENS_ISA=generic|avx2|avx512|avx512_bf16|amx forces an instruction set.
"""

from __future__ import annotations

import gc
import importlib
import sys
from typing import TYPE_CHECKING, Any

try:
    from ._core import numerics_version as numerics_version
except ModuleNotFoundError as error:
    raise ImportError(
        "bitlens._core, the compiled part of bitlens, is missing or was built for another Python. "
        "From a clone run `make build` (or `python setup.py build_ext --inplace`); "
        "otherwise reinstall with `pip install --force-reinstall --no-deps bitlens`."
    ) from error

from . import moved_modules
from ._core import isa as _isa
from .threads import get_num_threads, set_num_threads
from .version import __version__

if TYPE_CHECKING:
    from . import sampling
    from .model import GenerateOutput, HookedTransformer, ModelConfig
    from .model.load import load
    from .model.ops.cuda import cuda_launches, cuda_status

moved_modules.install()

__all__ = [
    "GenerateOutput",
    "HookedTransformer",
    "ModelConfig",
    "__version__",
    "cuda_launches",
    "cuda_status",
    "get_num_threads",
    "isa",
    "load",
    "numerics_version",
    "sampling",
    "set_num_threads",
]

_HOMES = {
    "GenerateOutput": "model",
    "HookedTransformer": "model",
    "ModelConfig": "model",
    "cuda_launches": "model.ops.cuda",
    "cuda_status": "model.ops.cuda",
    "load": "model",
}
"""The modules that names of this one are resolved from when they are first asked for (PEP 562), so
that what needs no model does not wait for torch."""

_MODULES = ("interp", "model", "precision", "sampling")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_MODULES})


def isa() -> str:
    """The widest instruction set in use: "generic", "avx2", "avx512", "avx512_bf16" or "amx".

    The last two are avx512 with vdpbf16ps and with tiles for bf16; unless BITLENS_ISA forces one,
    bf16 products run on whichever set is fastest here (`bitlens info` says which). All have the
    same bits.
    """
    return _isa()


if "torch" in sys.modules:
    # Whoever has torch finds torch.ops.bitlens as well: importing the model registers it. An import
    # makes no garbage, and a collection would walk all of torch in the middle of it.
    collects = gc.isenabled()
    gc.disable()
    try:
        importlib.import_module(".model", __name__)
    finally:
        if collects:
            gc.enable()
