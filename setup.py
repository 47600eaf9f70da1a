"""Builds `bitlens._core` with CMake. Everything declarative is in pyproject.toml."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel

ROOT = Path(__file__).resolve().parent
LINK = Path("build", "link")
CUDA = runpy.run_path(str(ROOT / "csrc" / "cuda" / "build.py"))
"""How the library of CUDA kernels is built."""


class CMakeBuild(build_ext):
    """Builds csrc/ in build/cmake and puts the library where setuptools wants it."""

    def run(self) -> None:
        if self.inplace:  # which build_ext sets to false before it comes to build_extension
            link_package()
        folder = ROOT if self.inplace else Path(self.build_lib, "bitlens")
        super().run()
        if nvcc := CUDA["find_nvcc"]():
            CUDA["build_cuda"](nvcc, folder.resolve())

    def build_extension(self, ext: Extension) -> None:
        import pybind11

        cmake = shutil.which("cmake")
        if cmake is None:
            raise RuntimeError("building bitlens needs cmake >= 3.24: pip install cmake ninja")
        # One tree per interpreter: CMake caches what it found, and incremental builds stay fast.
        tree = ROOT / "build" / "cmake" / (sys.implementation.cache_tag or "python")
        configure = [cmake, "-S", str(ROOT), "-B", str(tree), "-DCMAKE_BUILD_TYPE=Release"]
        configure += [f"-DPython_EXECUTABLE={sys.executable}"]
        configure += [f"-Dpybind11_DIR={pybind11.get_cmake_dir()}"]
        if ninja := shutil.which("ninja"):
            configure += ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
        subprocess.run(configure, check=True)
        jobs = os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL", str(os.cpu_count() or 1))
        subprocess.run([cmake, "--build", str(tree), "--parallel", jobs], check=True)

        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        (built,) = (tree / "lib").glob("_core*" + target.suffix)
        # Replaced, never overwritten: a running process may have the old library mapped.
        fresh = target.with_name(target.name + ".new")
        shutil.copyfile(built, fresh)
        os.replace(fresh, target)


class BuildPy(build_py):
    """The package is the repository root: setup.py and the pytest plugin's door, a module beside
    the package, lie in it, but are no modules of bitlens.
    """

    def run(self) -> None:
        if not self.editable_mode:
            # Of an earlier build: modules that are gone from the tree would go into the wheel.
            shutil.rmtree(Path(self.build_lib, "bitlens"), ignore_errors=True)
        super().run()

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        modules = super().find_package_modules(package, package_dir)
        strangers = [("bitlens", "setup"), ("bitlens", "bitlens_pytest")]
        return [m for m in modules if (m[0], m[1]) not in strangers]


class EditableWheel(editable_wheel):
    """Puts a folder on the path in which the repository is called `bitlens`.

    A mapping of the root to `bitlens` would be done by an import hook, which type checkers and
    editors do not follow.
    """

    def finalize_options(self) -> None:
        link_package()
        self.distribution.package_dir = {"": str(LINK)}
        super().finalize_options()


def link_package() -> None:
    """Makes the links build/link/bitlens and build/link/bitlens_pytest.py."""
    (ROOT / LINK).mkdir(parents=True, exist_ok=True)
    for name, target in (("bitlens", ROOT), ("bitlens_pytest.py", ROOT / "bitlens_pytest.py")):
        link = ROOT / LINK / name
        if link.resolve() != target:
            link.unlink(missing_ok=True)  # of a clone that has moved or was copied
            link.symlink_to(target)


version = re.search(r'^__version__ = "(.+)"$', (ROOT / "version.py").read_text(), re.MULTILINE)
assert version is not None
subpackages = find_packages(
    str(ROOT), include=["precision*", "model*", "interp*", "audit*", "alignment*", "cli*"]
)

setup(
    version=version[1],
    packages=["bitlens", *(f"bitlens.{name}" for name in subpackages)],
    package_dir={"bitlens": "."},
    py_modules=["bitlens_pytest"],
    package_data={
        "bitlens": ["py.typed", "_core.pyi"],
        "bitlens.alignment.constitution": ["default.toml", "standin.toml", "unrelated.toml"],
        "bitlens.alignment.pipeline": ["report.html.j2"],
        "bitlens.audit.cache_cost": ["prices.toml"],
        "bitlens.audit.page": ["report.html.j2"],
        "bitlens.audit.platforms": ["report.html.j2"],
        "bitlens.interp.probes.page": ["report.html.j2", "report.css"],
        "bitlens.interp.monitors": ["watch.html.j2"],
        "bitlens.audit.postmortem": ["prompts.txt", "report.html.j2"],
        "bitlens.audit.postmortem.compiled": ["report.html.j2"],
        "bitlens.interp.pages": ["page.js", "page.css"],
        "bitlens.precision": ["equivalence_certificate.schema.json"],
        "bitlens.precision.charts": ["page.css", "macros.html.j2"],
        "bitlens.precision.pytest_plugin": ["report.html.j2"],
    },
    include_package_data=False,
    ext_modules=[Extension("bitlens._core", sources=[])],
    cmdclass={"build_ext": CMakeBuild, "build_py": BuildPy, "editable_wheel": EditableWheel},
)
