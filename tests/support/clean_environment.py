"""Virtual environments that hold nothing but what is installed into them, torch lent from another.

Torch is gigabytes where only its CUDA build is offered, so each interpreter gets one environment
with torch alone, kept in build/packages. Others see it through a .pth file, pip included.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import bitlens
import pytest

ROOT = Path(bitlens.__file__).resolve().parent
KEPT = ROOT / "build" / "packages"


def run(*command: str | Path, cwd: Path, **env: str) -> str:
    """Runs a command outside this process's PYTHONPATH; shows everything where it fails."""
    surroundings = {name: x for name, x in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=surroundings | env,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.fail(f"{command}\n{done.stdout[-4000:]}{done.stderr[-4000:]}", pytrace=False)
    return done.stdout


@dataclass(frozen=True)
class Environment:
    """A virtual environment; commands run in it with its own folder as working directory."""

    folder: Path

    @classmethod
    def create(cls, interpreter: Path, folder: Path) -> Environment:
        run(interpreter, "-m", "venv", folder, cwd=folder.parent)
        return cls(folder)

    @property
    def site_packages(self) -> Path:
        (site,) = (self.folder / "lib").glob("python*/site-packages")
        return site

    def run(self, program: str, *arguments: str | Path, **env: str) -> str:
        return run(self.folder / "bin" / program, *arguments, cwd=self.folder, **env)

    def pip(self, *arguments: str | Path, **env: str) -> str:
        return self.run("python", "-m", "pip", "--disable-pip-version-check", *arguments, **env)

    def distributions(self) -> set[str]:
        """Normalised names of what is installed here, less what is lent."""
        listed = self.pip("list", "--format=freeze", "--path", self.site_packages)
        return {normalised(line.split("==")[0]) for line in listed.splitlines()}

    def imports(self, package: str) -> bool:
        """Whether a package of this name can be imported here."""
        code = f"import importlib.util as u; print(u.find_spec({package!r}) is not None)"
        return self.run("python", "-c", code).strip() == "True"

    def borrow(self, lender: Environment) -> None:
        (self.site_packages / "lent.pth").write_text(f"{lender.site_packages}\n")


def normalised(name: str) -> str:
    """A distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def interpreters() -> list[str]:
    """What $PYTHONS names, or the three versions that are supported."""
    return os.environ.get("PYTHONS", "python3.11 python3.12 python3.13").split()


def find_interpreter(name: str) -> Path:
    """Where it is. Fails for one that is not there, or does not run, or is too old."""
    found = shutil.which(name)
    if found is None:
        pytest.fail(f"{name} is not on the PATH; PYTHONS names the interpreters", pytrace=False)
    code = "import sys, venv, ensurepip; print(sys.executable, *sys.version_info[:2])"
    path, major, minor = run(found, "-c", code, cwd=ROOT.parent).split()
    if (int(major), int(minor)) < (3, 11):
        pytest.fail(f"{name} is Python {major}.{minor}, bitlens needs 3.11", pytrace=False)
    return Path(path)


def torch_environment(interpreter: Path) -> Environment:
    """The one with the pinned torch and what it needs: made once, made anew for another pin."""
    (pin,) = re.findall(r"^torch==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    tag = run(interpreter, "-c", "import sys; print(sys.implementation.cache_tag)", cwd=ROOT.parent)
    environment = Environment(KEPT / f"torch-{pin}-{tag.strip()}")
    complete = environment.folder / "complete"
    if not complete.exists():
        shutil.rmtree(environment.folder, ignore_errors=True)
        environment.folder.parent.mkdir(parents=True, exist_ok=True)
        Environment.create(interpreter, environment.folder)
        # The CPU build where pip is offered one, as in the Makefile.
        install = "-m pip install -q torch=={0}+cpu 2>/dev/null || {1} -m pip install -q torch=={0}"
        python = environment.folder / "bin" / "python"
        run("sh", "-c", f"{python} {install.format(pin, python)}", cwd=environment.folder)
        complete.touch()
    return environment


def source_tree(folder: Path) -> Path:
    """A copy of the repository, less what was built and what belongs to tools."""
    junk = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "*.so", "__pycache__")
    return Path(shutil.copytree(ROOT, folder / "bitlens-main", ignore=junk, symlinks=True))


def build_sdist(tree: Path, folder: Path) -> Path:
    """By this environment's setuptools; what installs from it runs the build isolated."""
    build = "import sys, setuptools.build_meta as b; print(b.build_sdist(sys.argv[1]))"
    run(sys.executable, "-c", build, folder, cwd=tree)
    (sdist,) = folder.glob("*.tar.gz")
    return sdist
