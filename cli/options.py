"""Options that several commands have."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from ..policies import NativePolicyName, PolicyName


class Backend(StrEnum):
    """The backends that `bitlens.load` knows."""

    native = "native"
    torch = "torch"


DtypeOption = Annotated[PolicyName, typer.Option(help="Precision policy, see docs/numerics.md.")]
NativeDtypeOption = Annotated[
    NativePolicyName, typer.Option(help="Precision policy that has native kernels.")
]
BackendOption = Annotated[Backend, typer.Option(help="Native kernels, or plain PyTorch.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads (default: torch's number).")]
Device = Annotated[str, typer.Option(help="Where kernels run: cpu, cuda or cuda:N.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")]
