"""The checks that need other compilers say what to install where there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make to call")
@pytest.mark.parametrize(
    ("target", "program", "package"),
    [
        ("arm-check", "ARM_CXX", "g++-aarch64-linux-gnu"),
        ("arm-check", "QEMU", "qemu-user"),
        ("clang-check", "CLANG_CXX", "clang"),
    ],
)
def test_absent_compilers_are_named(target: str, program: str, package: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    make = subprocess.run(
        # The others are there for certain: what is called is the absent one or nothing.
        [
            "make",
            target,
            "ARM_CXX=true",
            "QEMU=true",
            "CLANG_CXX=true",
            f"{program}=no-such-program",
        ],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert make.returncode != 0
    assert f"{target} needs no-such-program: apt-get install" in make.stderr
    assert package in make.stderr
