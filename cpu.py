"""The name of the processor, for records and for what holds on one kind of it alone."""

from __future__ import annotations

import platform
import re
from pathlib import Path


def cpu_name() -> str:
    """Returns model, family and stepping as the processor states them."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    fields = dict(re.findall(r"^(\w[\w ]*?)\s*: (.*)$", text.split("\n\n")[0], re.MULTILINE))
    name = fields.get("model name", platform.machine())
    numbers = (
        f"{key} {fields[key]}" for key in ("cpu family", "model", "stepping") if key in fields
    )
    return ", ".join([name, *numbers])
