"""Builds the wheel of bitlens-cuda from a clone of bitlens, with nvcc."""

from __future__ import annotations

import re
import runpy
import shutil
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
CUDA = runpy.run_path(str(HERE.parent / "build.py"))


class BuildLibrary(build_py):
    """Builds the library beside the module."""

    def run(self) -> None:
        super().run()
        nvcc = shutil.which("nvcc")
        if nvcc is None:
            raise RuntimeError("bitlens-cuda needs nvcc: install the CUDA toolkit")
        CUDA["build_cuda"](nvcc, Path(self.build_lib, "bitlens_cuda").resolve())


class WithLibrary(Distribution):
    """Holds compiled code, so that it goes where such code belongs."""

    def has_ext_modules(self) -> bool:
        return True


class PlatformWheel(bdist_wheel):
    """A wheel of this machine's kind, for every Python: the library knows none."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


version = re.search(
    r'^__version__ = "(.+)"$', (HERE.parents[2] / "version.py").read_text(), re.MULTILINE
)
assert version is not None

setup(
    version=version[1],
    install_requires=[f"bitlens=={version[1]}"],
    distclass=WithLibrary,
    cmdclass={"build_py": BuildLibrary, "bdist_wheel": PlatformWheel},
)
