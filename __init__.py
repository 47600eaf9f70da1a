"""Transformers whose bits do not move and whose insides are readable at full speed.

    import bitlens
    model = bitlens.load("smollm2-135m-instruct")
    logits, cache = model.run_with_cache("Paris is the capital of")

What is promised, and at which rounding points, is in docs/numerics.md; an equal `numerics_version`
promises equal bits. BITLENS_ISA=generic|avx2|avx512|avx512_bf16 forces an instruction set.
"""

from __future__ import annotations

try:
    from ._core import numerics_version as numerics_version
except ModuleNotFoundError as error:
    raise ImportError(
        "bitlens._core, the compiled part of bitlens, is missing or was built for another Python. "
        "From a clone run `make build` (or `python setup.py build_ext --inplace`); "
        "otherwise reinstall with `pip install --force-reinstall --no-deps bitlens`."
    ) from error

from . import _core, moved_modules

moved_modules.install()

from . import sampling  # noqa: E402
from .model import GenerateOutput, HookedTransformer, ModelConfig, load  # noqa: E402
from .threads import get_num_threads, set_num_threads  # noqa: E402
from .version import __version__  # noqa: E402

__all__ = [
    "GenerateOutput",
    "HookedTransformer",
    "ModelConfig",
    "__version__",
    "get_num_threads",
    "isa",
    "load",
    "numerics_version",
    "sampling",
    "set_num_threads",
]


def isa() -> str:
    """The instruction set in use: "generic", "avx2", "avx512" or "avx512_bf16", which is avx512
    with vdpbf16ps for bf16. BITLENS_ISA forces one; all have the same bits."""
    return _core.isa()
