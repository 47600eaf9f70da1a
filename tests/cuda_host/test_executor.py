"""The executor sees each kind of mistake that a CUDA kernel can make, in every order of threads."""

from __future__ import annotations

import os
import subprocess

import pytest
from support.cuda_host import EXECUTOR, ORDERS, build_program

CASES = ("barrier", "copy", "shuffle", "mask", "collective", "atomic", "shared")


def run(sanitizer: str, case: str, kind: str, order: str) -> tuple[int, str]:
    program = build_program(EXECUTOR / "samples.cu", sanitizer=sanitizer)
    done = subprocess.run(
        [program, case, kind],
        capture_output=True,
        text=True,
        env=os.environ | {"HOST_CUDA_ORDER": order},
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("case", CASES)
def test_a_sound_kernel_has_its_result(case: str, order: str) -> None:
    assert run("", case, "sound", order) == (0, "same\n")


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("barrier", "differs"),
        ("copy", "differs"),
        ("shuffle", "threads wait forever: 0:__shfl_xor_sync 1:__shfl_xor_sync"),
        ("mask", "__shfl_xor_sync: its own lane is not in the mask"),
        ("collective", " meets "),
    ],
)
def test_a_fault_is_seen(case: str, message: str, order: str) -> None:
    _, output = run("", case, "fault", order)
    assert message in output
    assert "same" not in output


def test_the_address_sanitizer_sees_shared_memory_overrun() -> None:
    code, output = run("address,undefined", "shared", "sound", "up")
    assert (code, "same" in output) == (0, True)
    code, output = run("address,undefined", "shared", "fault", "up")
    assert code != 0
    assert "heap-buffer-overflow" in output


@pytest.mark.nightly
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("case", CASES)
def test_the_thread_sanitizer_sees_races_whatever_the_order(case: str, order: str) -> None:
    assert run("thread", case, "sound", order) == (0, "same\n")
    if case in ("barrier", "atomic"):
        code, output = run("thread", case, "fault", order)
        assert code != 0
        assert "data race" in output
        assert "samples.cu" in output
