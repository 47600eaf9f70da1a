"""Every kernel under sanitizers that know the fibers: no byte beyond its buffers, no race."""

from __future__ import annotations

import os
import subprocess

import pytest
from support.cuda_host import EXECUTOR, ORDERS, SOURCES, build_program

pytestmark = pytest.mark.nightly  # each build takes half a minute


def run(sanitizer: str, order: str) -> list[str]:
    program = build_program(EXECUTOR / "sanitized.cpp", SOURCES, sanitizer)
    environment = os.environ | {"HOST_CUDA_ORDER": order}
    done = subprocess.run([program], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[:3000]
    return done.stdout.splitlines()


@pytest.mark.parametrize("order", ["up", "down", "7"])
@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_no_kernel_does_what_a_sanitizer_sees(sanitizer: str, order: str) -> None:
    assert len(run(sanitizer, order)) > 40


@pytest.mark.parametrize("order", ORDERS)
def test_no_order_of_threads_moves_a_bit(order: str) -> None:
    assert run("", order) == run("", "up")
