"""The package at the repository root: CONTRIBUTING.md's four recipes, the wheel, the import."""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from collections import defaultdict
from email.parser import Parser
from importlib.util import find_spec
from pathlib import Path

import bitlens
import pytest
from support.clean_environment import build_sdist, source_tree
from support.extra_uses import USES, Use

ROOT = Path(bitlens.__file__).resolve().parent
ROOMS = ("precision", "model", "interp", "audit", "alignment", "cli")
HEAVY = {
    "wandb", "datasets", "pandas", "transformers", "transformer_lens", "accelerate", "gguf",
    "scipy",
}  # fmt: skip


def _run(*command: str | Path, cwd: Path, **env: str) -> str:
    """Runs a command, returns stdout, shows everything where it fails."""
    run = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=os.environ | env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-4000:]
    return run.stdout


NEEDS = {
    "bitlens.audit.harness.inspect_model": "inspect_ai",
    "bitlens.audit.harness.inspect_provider": "inspect_ai",
    "bitlens.audit.harness.inspect_tasks": "inspect_ai",
}
"""Modules whose classes are those of an extra that the tests do without, and its package."""


def _submodules() -> list[str]:
    """All modules but those whose extra is not installed."""
    names = [
        module.name
        for package in ROOMS
        for module in pkgutil.walk_packages([str(ROOT / package)], f"bitlens.{package}.")
    ]
    assert NEEDS.keys() <= set(names)
    return [name for name in names if name not in NEEDS or find_spec(NEEDS[name]) is not None]


# Recipe 1: pytest.


def test_every_file_is_imported_as_one_module() -> None:
    """Two modules of one file would register every torch op twice."""
    for name in _submodules():
        importlib.import_module(name)
    names_of = defaultdict(set)
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        # torch gives some of its modules a relative name for a file.
        if file and Path(file).is_absolute() and _ours(Path(file).resolve()):
            names_of[Path(file).resolve()].add(getattr(module, "__name__", name))
    doubles = {file: names for file, names in names_of.items() if len(names) > 1}
    assert not doubles
    tests = ROOT / "tests"
    strangers = {
        file: names
        for file, names in names_of.items()
        if not file.is_relative_to(tests) and not all(n.startswith("bitlens") for n in names)
    }
    assert not strangers


def test_pytest_recipe() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))
    assert not (ROOT / "conftest.py").exists()
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    assert options["testpaths"] == ["tests"]
    assert options["pythonpath"] == ["tests"]
    assert {"--import-mode=importlib", "--confcutdir=tests"} <= set(options["addopts"])


def test_doctests_run_against_the_package() -> None:
    import doctest

    for name in ("bitlens.precision.ulp", *_submodules()):
        assert doctest.testmod(importlib.import_module(name)).failed == 0


# Recipe 2: mypy sees the package through a link, whatever the clone is called.


@pytest.mark.parametrize("clone", ["main", "bitlens-main"])
def test_mypy_recipe(tmp_path: Path, clone: str) -> None:
    shutil.copytree(ROOT / "precision", tmp_path / clone / "precision")
    shutil.copy(ROOT / "py.typed", tmp_path / clone)
    (tmp_path / clone / "__init__.py").touch()
    link = tmp_path / "build" / "link"
    link.mkdir(parents=True)
    (link / "bitlens").symlink_to(tmp_path / clone)
    command = [sys.executable, "-m", "mypy", "--config-file", ROOT / "pyproject.toml"]
    command += ["--follow-imports=skip", "--cache-dir", tmp_path / "cache", "-m"]
    # With imports skipped, torch's types are Any: what counts here is that the name resolves.
    loose = ["--allow-subclassing-any", "--allow-any-unimported", "--no-warn-return-any"]
    out = _run(*command, "bitlens.precision.ulp", *loose, cwd=link)
    assert "Success: no issues found in 1 source file" in out


def test_a_copied_tree_is_linked_to_itself(tmp_path: Path) -> None:
    """Also where the tree it was copied from is still there: mypy and an import would see that."""
    code = (
        "import setuptools; setuptools.setup = lambda **_: None; import setup; setup.link_package()"
    )
    first, second = tmp_path / "first", tmp_path / "second"
    for file in ("setup.py", "csrc/cuda/build.py", "version.py", "bitlens_pytest.py"):
        (first / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, first / file)
    _run(sys.executable, "-c", code, cwd=first)
    shutil.copytree(first, second, symlinks=True)
    _run(sys.executable, "-c", code, cwd=second)
    for tree in (first, second):
        link = tree / "build" / "link"
        assert (link / "bitlens").resolve() == tree
        assert (link / "bitlens_pytest.py").resolve() == tree / "bitlens_pytest.py"


# Recipe 3: sdist -> wheel -> import in a clean environment.


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from an sdist of a clone named unlike the package."""
    folder = tmp_path_factory.mktemp("wheel")
    sdist = build_sdist(source_tree(folder), folder)
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    _run(*pip, "-w", folder, sdist, cwd=folder, CMAKE_BUILD_PARALLEL_LEVEL="2")
    (built,) = folder.glob("*.whl")
    return built


def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    assert wheel.stat().st_size < 10 * 2**20
    names = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    assert {name.split("/")[0] for name in names} == {"bitlens", "bitlens_pytest.py"}
    inside = {name.removeprefix("bitlens/") for name in names if name.startswith("bitlens/")}
    assert {"__init__.py", "__main__.py", "version.py", "py.typed", "_core.pyi"} <= inside
    assert "_core" + sysconfig.get_config_var("EXT_SUFFIX") in inside
    assert not {"setup.py", "bitlens_pytest.py"} & inside
    folders = {name.split("/")[0] for name in inside if "/" in name}
    assert folders == set(ROOMS)
    sources = {
        str(path.relative_to(ROOT))
        for package in ROOMS
        for path in (ROOT / package).rglob("*")
        if path.is_file() and not {"__pycache__", "frontend"} & set(path.parts)
    }
    assert sources <= inside
    assert {name for name in inside if name.split("/")[0] in folders} == sources


def test_metadata_keeps_the_heavy_packages_out_of_the_core(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
    metadata = Parser().parsestr(archive.read(name).decode())
    core = {
        re.split(r"[<>=!~ \[;]", line)[0].lower()
        for line in metadata.get_all("Requires-Dist", [])
        if "extra ==" not in line
    }
    expected = {
        "torch", "numpy", "scipy", "safetensors", "tokenizers", "gguf", "jinja2", "rich", "typer",
    }  # fmt: skip
    assert core == expected
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Version"] == bitlens.__version__


def test_wheel_imports_in_a_clean_environment(wheel: Path, tmp_path: Path) -> None:
    """Clean of bitlens; this environment's other packages are lent to it, torch above all."""
    venv.create(tmp_path / "env", with_pip=False, symlinks=True)
    python = tmp_path / "env" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps"]
    _run(*pip, wheel, cwd=tmp_path, PYTHONPATH="")  # which may name another bitlens
    (site,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    code = "import bitlens; print(bitlens.__file__); bitlens.load; print(bitlens._core.__file__)"
    files = _run(python, "-c", code, cwd=tmp_path, PYTHONPATH="").split()
    assert all(Path(file).is_relative_to(tmp_path / "env") for file in files)
    command = tmp_path / "env" / "bin" / "bitlens"
    assert bitlens.__version__ in _run(command, "--version", cwd=tmp_path, PYTHONPATH="")


# Recipe 4: the torch pin lives in constraints.txt, the metadata names the lowest torch.


def test_torch_is_pinned_in_the_constraints_only() -> None:
    assert re.search(r"^torch==\d", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    (torch_,) = (d for d in dependencies if d.startswith("torch"))
    assert torch_.startswith("torch>=")
    assert "-c constraints.txt" in (ROOT / "Makefile").read_text()


# What an import costs. Its time is a benchmark's; here stands what the time grows with.

MODULES_OF_AN_IMPORT = 150
"""How many of our own modules `import bitlens` may load where torch is there."""

_IMPORTED = """
import sys, torch
before = set(sys.modules)
import bitlens
print(*sorted(set(sys.modules) - before))
"""


def test_an_import_loads_little() -> None:
    modules = _run(sys.executable, "-c", _IMPORTED, cwd=ROOT.parent).split()
    assert not {name.split(".")[0] for name in modules} & HEAVY
    ours = [name for name in modules if name.split(".")[0] == "bitlens"]
    assert 1 < len(ours) <= MODULES_OF_AN_IMPORT, ours


_COMMANDS = """
import sys
from bitlens.cli import main
for arguments in %r:
    sys.argv = ["bitlens", *arguments]
    try:
        main()
    except SystemExit as leaving:
        assert leaving.code in (0, None)
    assert "torch" not in sys.modules, arguments
"""


def test_help_and_version_do_not_wait_for_torch() -> None:
    commands = ("generate", "info", "fetch", "verify", "bench", "audit", "context-cost", "explore")
    helps = [("--help",), ("--version",), *((command, "--help") for command in commands)]
    out = _run(sys.executable, "-c", _COMMANDS % helps, cwd=ROOT.parent)
    assert bitlens.__version__ in out
    assert all(command in out for command in commands)


def test_names_are_resolved_when_they_are_asked_for() -> None:
    code = (
        "import sys, bitlens; bitlens.isa(), bitlens.numerics_version, bitlens.__version__;"
        "assert 'torch' not in sys.modules; from bitlens import load, sampling, ModelConfig;"
        "from bitlens.model import load as same; assert load is same is bitlens.load;"
        "assert bitlens.sampling is sampling; assert bitlens.model.load is load;"
        "assert bitlens.precision.check; import torch; assert torch.ops.bitlens.linear"
    )
    _run(sys.executable, "-c", code, cwd=ROOT.parent)


def test_who_has_torch_finds_the_operators() -> None:
    code = "import torch, bitlens; assert torch.ops.bitlens.linear"
    _run(sys.executable, "-c", code, cwd=ROOT.parent)


def test_a_missing_core_says_how_to_build(tmp_path: Path) -> None:
    # Under another name: an editable install finds bitlens._core wherever `bitlens` lies.
    (tmp_path / "coreless").mkdir()
    shutil.copy(ROOT / "__init__.py", tmp_path / "coreless")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import coreless"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode != 0
    assert "make build" in run.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("use", USES, ids=lambda use: f"{use.extra}: {use.package}")
def test_a_missing_extra_is_named(use: Use, smollm2_path: Path) -> None:
    code = f"import sys; sys.modules[{use.package!r}] = None\n{use.code}"
    command = [sys.executable, "-c", code]
    env = os.environ | {"MODEL": str(smollm2_path)}
    run = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert run.returncode != 0
    assert f"pip install 'bitlens[{use.extra}]'" in run.stderr.strip().splitlines()[-1]


def test_an_unknown_isa_names_what_there_is() -> None:
    env = os.environ | {"BITLENS_ISA": "sse9"}
    command = [sys.executable, "-c", "import bitlens"]
    run = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert run.returncode != 0
    message = run.stderr.strip().splitlines()[-1]
    assert "BITLENS_ISA" in message
    assert "sse9" in message
    assert "generic" in message


def test_each_available_isa_can_be_forced() -> None:
    for name in bitlens._core.available_isas():
        code = "import bitlens; print(bitlens.isa())"
        assert _run(sys.executable, "-c", code, cwd=ROOT.parent, BITLENS_ISA=name).strip() == name


def test_public_names() -> None:
    for name in bitlens.__all__:
        assert getattr(bitlens, name) is not None
    assert set(bitlens.__all__) <= set(dir(bitlens))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        bitlens.nothing  # noqa: B018


def test_threads_are_torchs_until_set() -> None:
    code = (
        "import torch; torch.set_num_threads(1); import bitlens; print(bitlens.get_num_threads())"
    )
    assert _run(sys.executable, "-c", code, cwd=ROOT.parent).strip() == "1"
    bitlens.set_num_threads(3)
    assert bitlens.get_num_threads() == 3
    with pytest.raises(ValueError, match="at least 1"):
        bitlens.set_num_threads(0)


def test_no_file_is_named_for_a_drawer() -> None:
    drawers = {"utils", "util", "helpers", "helper", "common", "manager", "base", "misc"}
    assert not [path for path in ROOT.rglob("*.py") if path.stem in drawers and _ours(path)]


def _ours(path: Path) -> bool:
    """Whether a file belongs to the repository, not to an environment or a build inside it."""
    if not path.is_relative_to(ROOT):
        return False
    return not {".venv", "build", "dist"} & set(path.relative_to(ROOT).parts)
