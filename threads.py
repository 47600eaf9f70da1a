"""The number of threads of bitlens' kernels: torch's until another is set."""

from __future__ import annotations

from . import _core

_decided = False


def set_num_threads(n: int) -> None:
    """Let bitlens' kernels use `n` threads of their own pool (default: torch's number).

    The number changes no bit. Raises ValueError for n < 1.
    """
    global _decided
    if n < 1:
        raise ValueError(f"set_num_threads: expected at least 1 thread, got {n}")
    _core.set_num_threads(n)
    _decided = True


def get_num_threads() -> int:
    """Returns the number of threads that bitlens' kernels use."""
    follow_torch()
    return _core.get_num_threads()


def follow_torch() -> None:
    """Takes over torch's number, unless one was set or taken over before."""
    if not _decided:
        import torch

        set_num_threads(torch.get_num_threads())
