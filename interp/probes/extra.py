"""scikit-learn, which does the generic parts: an extra."""

from __future__ import annotations

import importlib
from typing import Any


def scikit_learn(module: str) -> Any:
    """Returns a module of scikit-learn, such as "linear_model". Raises RuntimeError naming the
    extra where it is not installed."""
    try:
        return importlib.import_module(f"sklearn.{module}")
    except ModuleNotFoundError as error:
        raise RuntimeError(
            "fitting and judging probes needs scikit-learn: pip install 'bitlens[probes]'"
        ) from error
