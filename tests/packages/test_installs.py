"""Wheel, sdist and editable installs in clean environments, on every Python that is supported.

`make packages` runs these. PYTHONS names the interpreters; one that is missing is a failure.
"""

from __future__ import annotations

import json
import shutil
import sys
import tarfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import bitlens
import pytest
from support.clean_environment import (
    KEPT,
    ROOT,
    Environment,
    build_sdist,
    find_interpreter,
    interpreters,
    run,
    source_tree,
    torch_environment,
)
from support.extra_uses import USES

pytestmark = pytest.mark.nightly

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FORMS = ("wheel", "sdist", "editable", "editable without isolation")
HEAVY = {"wandb", "datasets", "pandas", "transformers", "transformer-lens", "accelerate"}
PROMPT = ("--prompt", "Paris is the capital of", "--max-new-tokens", "8", "--json")

TYPES = """
import bitlens
reveal_type(bitlens.isa())
reveal_type(bitlens.load("model.gguf"))
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return source_tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="module")
def sdist(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_sdist(tree, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module", params=interpreters())
def lender(request: pytest.FixtureRequest) -> Environment:
    return torch_environment(find_interpreter(request.param))


@pytest.fixture
def environment(lender: Environment, tmp_path: Path) -> Iterator[Environment]:
    """Torch and pip, nothing else."""
    fresh = Environment.create(lender.folder / "bin" / "python", tmp_path / "env")
    fresh.borrow(lender)
    yield fresh
    shutil.rmtree(fresh.folder)


@pytest.fixture(scope="module")
def wheel(lender: Environment, sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    lender.pip("wheel", "-q", "--no-deps", "-w", folder, sdist)
    (built,) = folder.glob("*.whl")
    assert built.stat().st_size < 10 * 2**20
    return built


def install(environment: Environment, form: str, wheel: Path, sdist: Path, tree: Path) -> Path:
    """Installs with the declared dependencies; where the package must then be imported from."""
    if form == "editable without isolation":
        environment.pip("install", "-q", *PYPROJECT["build-system"]["requires"])
        environment.pip("install", "-q", "--no-build-isolation", "-e", tree)
        return tree
    if form == "editable":
        environment.pip("install", "-q", "-e", tree)
        return tree
    environment.pip("install", "-q", {"wheel": wheel, "sdist": sdist}[form])
    return environment.site_packages


@pytest.mark.parametrize("form", FORMS)
def test_an_installation(
    form: str,
    environment: Environment,
    wheel: Path,
    sdist: Path,
    tree: Path,
    smollm2_path: Path,
) -> None:
    before = environment.distributions()
    home = install(environment, form, wheel, sdist, tree)
    assert "No broken requirements" in environment.pip("check")
    assert "bitlens" in environment.distributions() - before
    assert not environment.distributions() & HEAVY
    imports_from(environment, home)
    answers(environment, smollm2_path)
    shows_its_types(environment)
    environment.pip("install", "-q", "bitlens[precision]")
    offers_its_marker(environment)
    has_the_golden_bits(environment)
    leaves_nothing(environment)


def imports_from(environment: Environment, home: Path) -> None:
    file = environment.run("python", "-c", "import bitlens; print(bitlens._core.__file__)").strip()
    assert Path(file).resolve().is_relative_to(home.resolve())


def answers(environment: Environment, model: Path) -> None:
    """The command line works, and its tokens are those of this process."""
    assert bitlens.__version__ in environment.run("bitlens", "--version")
    assert "generate" in environment.run("bitlens", "--help")
    found = json.loads(environment.run("bitlens", "generate", model, *PROMPT))
    expected = bitlens.load(model).generate(PROMPT[1], max_new_tokens=int(PROMPT[3]))
    assert found["tokens"] == expected.tokens[0].tolist()


def shows_its_types(environment: Environment) -> None:
    (environment.folder / "user.py").write_text(TYPES)
    python = environment.folder / "bin" / "python"
    mypy = ("-m", "mypy", "--follow-imports=silent", "--python-executable", python)
    cache = ("--cache-dir", KEPT / "mypy")
    told = run(sys.executable, *mypy, *cache, "user.py", cwd=environment.folder)
    assert 'Revealed type is "str"' in told
    assert 'Revealed type is "bitlens.model.transformer.HookedTransformer"' in told


def offers_its_marker(environment: Environment) -> None:
    assert "@pytest.mark.precision(contract" in environment.run(
        "python", "-m", "pytest", "--markers"
    )


def has_the_golden_bits(environment: Environment) -> None:
    """tests/test_golden.py and its vectors, with no source of bitlens beside them."""
    folder = environment.folder / "elsewhere"
    shutil.copytree(ROOT / "tests" / "golden", folder / "golden")
    shutil.copy(ROOT / "tests" / "test_golden.py", folder)
    options = ("-q", "--import-mode=importlib", "-o", f"pythonpath={folder}", f"--rootdir={folder}")
    assert " passed" in environment.run("python", "-m", "pytest", *options, folder)


def leaves_nothing(environment: Environment) -> None:
    environment.pip("uninstall", "-q", "-y", "bitlens")
    left = [path for path in environment.site_packages.rglob("*") if "bitlens" in path.name]
    assert not left
    assert not (environment.folder / "bin" / "bitlens").exists()


def test_the_sdist_holds_what_builds_it_and_no_more(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    folders = {name.partition("/")[0] for name in names if "/" in name}
    rooms = {"precision", "model", "interp", "audit", "alignment", "cli"}
    assert folders == {"bitlens.egg-info", "csrc", *rooms}
    assert {"setup.py", "CMakeLists.txt", "constraints.txt", "py.typed", "_core.pyi"} <= names
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob("*") if path.is_file()}
    assert sources <= names


def test_a_module_that_is_gone_stays_out_of_the_wheel(environment: Environment, tree: Path) -> None:
    """A second build in one tree, after a module was removed from it."""
    gone = tree / "interp" / "gone.py"
    build = ("wheel", "-q", "--no-deps", "-w", environment.folder, tree)
    gone.touch()
    try:
        environment.pip(*build)
        stale = list((tree / "build").glob("lib*/bitlens/interp/gone.py"))
        assert stale
    finally:
        gone.unlink()
    environment.pip(*build)
    assert not stale[0].exists()


def test_what_needs_an_extra_says_so(
    environment: Environment, wheel: Path, smollm2_path: Path
) -> None:
    environment.pip("install", "-q", wheel)
    absent = [use for use in USES if not environment.imports(use.package)]
    # tokenizers, a core dependency, brings huggingface_hub.
    assert {use.extra for use in USES} - {use.extra for use in absent} <= {"hub"}
    for use in absent:
        code = f"try:\n    exec({use.code!r})\nexcept (ImportError, RuntimeError) as e: print(e)"
        told = environment.run("python", "-c", code, MODEL=str(smollm2_path))
        assert f"pip install 'bitlens[{use.extra}]'" in told, use


@pytest.mark.parametrize("extra", PYPROJECT["project"]["optional-dependencies"])
def test_an_extra(extra: str, environment: Environment, wheel: Path, smollm2_path: Path) -> None:
    environment.pip("install", "-q", f"{wheel}[{extra}]")
    assert "No broken requirements" in environment.pip("check")
    for use in USES:
        if use.extra == extra:
            environment.run("python", "-c", use.code, MODEL=str(smollm2_path))
