"""Chooses what multiplies bf16 by bf16: the sets are timed once a machine; all give the same bits.

The kernels time them at their first product, in a few milliseconds, where nothing is remembered
here (docs/decisions/bf16-instructions.md).
"""

from __future__ import annotations

import functools
import json
import logging
from pathlib import Path

from ... import _core
from ...cpu import cpu_name
from ...version import __version__
from ..sources import cache_directory
from ..weights.atomic import write_atomically

_log = logging.getLogger(__name__)

_FILE = "bf16-products.json"
_LARGEST = 1 << 16  # bytes of the file
_OF_ONE_ORDER = {"avx512_bf16", "amx"}  # sets that FMAs of the same bits stand beside


@functools.cache
def settle_bf16_products() -> None:
    """Takes what is remembered of this CPU; else times the sets and remembers the fastest. Once a
    process.

    Of no consequence for any bit: a cache that cannot be read or written is passed over.
    """
    path, machine = cache_directory() / _FILE, _machine()
    known = _read(path)
    found = known.get(machine)
    if found is not None and _core.choose_bf16_products(found["few"], found["many"]):
        return
    few, many, timed = _core.bf16_products()
    if not timed:  # chosen before, or there is no choice
        return
    speeds = {isa: [round(one, 1), round(more, 1)] for isa, one, more in timed}
    _log.info("bf16 products: %s for few rows, %s for many, of %s GFLOP/s", few, many, speeds)
    text = json.dumps(known | {machine: {"few": few, "many": many}}, indent=1)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(path) as part:
            part.write_text(text, encoding="utf-8")
    except OSError as error:
        _log.info("%s is not written: %s", path, error)


def bf16_products_in_words() -> str:
    """Returns which instruction sets multiply bf16, and why."""
    if (setting := _core.isa_setting()) != "auto":
        return f"{setting}, as asked for"
    few, many, timed = _core.bf16_products()
    chosen = f"{few} for few rows, {many} for many"
    if not timed:
        choice = _OF_ONE_ORDER & set(_core.available_isas())
        return chosen + (", as timed before" if choice else "")
    speeds = ", ".join(f"{isa} {one:.0f} and {more:.0f}" for isa, one, more in timed)
    return f"{chosen}: {speeds} GFLOP/s"


def _machine() -> str:
    """Returns the name of all that a choice depends on."""
    return " ".join([cpu_name(), *_core.available_isas(), __version__])


def _read(path: Path) -> dict[str, dict[str, str]]:
    """The choices of the file; none if it is not such a file."""
    try:
        if path.stat().st_size > _LARGEST:
            return {}
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {
        machine: {"few": choice["few"], "many": choice["many"]}
        for machine, choice in found.items()
        if isinstance(choice, dict)
        and isinstance(choice.get("few"), str)
        and isinstance(choice.get("many"), str)
    }
