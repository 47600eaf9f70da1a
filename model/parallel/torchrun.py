"""The processes that torchrun starts, as a group."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch

from .group import Group, as_group

TIMEOUT = timedelta(minutes=5)
"""A rank that ends is noticed at once; this is for one that is stuck."""


def launched_by_torchrun() -> bool:
    """Returns whether torchrun started this process."""
    return torch.distributed.is_available() and torch.distributed.is_torchelastic_launched()


@contextmanager
def torchrun_group() -> Iterator[Group | None]:
    """The group of all processes torchrun started; None for one alone, or without torchrun."""
    if not launched_by_torchrun():
        yield None
        return
    torch.distributed.init_process_group("gloo", timeout=TIMEOUT)
    try:
        yield as_group(torch.distributed.group.WORLD)
    finally:
        torch.distributed.destroy_process_group()
