"""The machine of a result, as far as it can move a bit. No host names, users or paths."""

from __future__ import annotations

import platform
from dataclasses import dataclass

import torch

from .._core import isa, numerics_version
from ..cpu import cpu_name
from ..threads import get_num_threads
from ..version import __version__


@dataclass(frozen=True)
class Fingerprint:
    """The surroundings of a run.

    Attributes:
        cpu: Model, family and stepping as the processor states them.
        isa: The instruction set that bitlens' kernels use.
        torch_isa: The one torch's use.
        numerics_version: Of docs/numerics.md.
        threads, torch_threads: bitlens' kernels do not depend on theirs, torch's do.
    """

    cpu: str
    isa: str
    torch_isa: str
    python: str
    torch: str
    bitlens: str
    numerics_version: str
    threads: int
    torch_threads: int


def environment_fingerprint() -> Fingerprint:
    """The fingerprint of this process, now."""
    return Fingerprint(
        cpu=cpu_name(),
        isa=isa(),
        torch_isa=torch.backends.cpu.get_cpu_capability(),
        python=platform.python_version(),
        torch=torch.__version__,
        bitlens=__version__,
        numerics_version=numerics_version,
        threads=get_num_threads(),
        torch_threads=torch.get_num_threads(),
    )
