"""The tests that the field writes, for comparison. They raise AssertionError."""

from __future__ import annotations

import torch


def assert_close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """torch.testing.assert_close with its defaults; mixed dtypes get the looser one's."""
    torch.testing.assert_close(actual, expected, check_dtype=False)


def liger_rope_close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """Liger's tolerance for RoPE in bf16 (test/transformers/test_rope.py at 00fb8bf)."""
    torch.testing.assert_close(actual, expected, atol=1e-1, rtol=1e-5)
