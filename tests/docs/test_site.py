"""The site that `make docs` builds: what is public is in it, and no link is lost."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import bitlens
import pytest

ROOT = Path(bitlens.__file__).resolve().parent
ROOMS = ("model", "interp", "audit", "alignment", "precision")

UNPUBLISHED = {
    "bitlens.audit.page": "the parts of a report",
    "bitlens.interp.probes.page": "the parts of a report",
    "bitlens.interp.training.objectives": "the losses, chosen by `TrainConfig.objective`",
    "bitlens.model.sampling": "published as `bitlens.sampling`",
    "bitlens.model.rope": "tables that the forward pass makes",
    "bitlens.precision.charts": "the charts and the style of reports",
    "bitlens.precision.pytest_plugin": "installed as the plugin `bitlens_pytest`",
}
"""Packages whose names are for code inside bitlens, or reach users in another way."""


def published() -> dict[str, set[str]]:
    """The modules whose members are on API pages, with the names that each page leaves out."""
    text = "".join(page.read_text() for page in sorted((ROOT / "docs" / "api").glob("*.md")))
    found = re.findall(r"automodule:: (\S+)\n   :members:\n(?:   :exclude-members: (.*)\n)?", text)
    assert len(found) == text.count("automodule")
    return {module: set(left_out.split(", ")) - {""} for module, left_out in found}


def members(module: str) -> dict[str, object]:
    imported = importlib.import_module(module)
    return {name: getattr(imported, name) for name in imported.__all__}


def test_every_package_with_public_names_is_published() -> None:
    packages = {
        "bitlens." + ".".join(path.parent.relative_to(ROOT).parts)
        for room in ROOMS
        for path in (ROOT / room).rglob("__init__.py")
        if "__all__" in path.read_text()
    }
    assert len(packages) > 20
    assert packages - set(published()) == set(UNPUBLISHED)


def test_a_name_is_left_out_only_where_another_page_has_it() -> None:
    pages = published()
    for module, left_out in pages.items():
        held = members(module)
        assert left_out <= set(held)
        for name in left_out:
            assert any(
                members(other).get(name) is held[name] and name not in pages[other]
                for other in pages
                if other != module
            ), f"{module}.{name} is on no page"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it."""
    if not all(find_spec(package) for package in ("sphinx", "furo", "myst_parser")):
        pytest.skip("needs the extra `docs`: pip install -e '.[docs]'")
    built = tmp_path_factory.mktemp("site")
    words = ["-q", "-W", "--keep-going", "-c", "docs", "-b", "html", ".", str(built)]
    command = [sys.executable, "-m", "sphinx", *words]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return built


def links(site: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "docs" / "check_links.py"), str(site)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.nightly
def test_the_site_builds_and_holds_every_class_and_function(site: Path) -> None:
    ran = links(site)
    assert ran.returncode == 0, ran.stdout
    text = "".join(page.read_text() for page in (site / "docs" / "api").glob("*.html"))
    for module, left_out in published().items():
        held = members(module).items()
        documented = {name for name, x in held if inspect.isclass(x) or inspect.isfunction(x)}
        for name in documented - left_out:
            assert f'id="{module}.{name}"' in text, f"{module}.{name}"


def test_lost_links_are_found(tmp_path: Path) -> None:
    """A file and an anchor that are missing, beside ones that are there."""
    (tmp_path / "other.html").write_text('<h1 id="there">x</h1>')
    page = tmp_path / "index.html"
    page.write_text('<a href="other.html#there">x</a><a href="https://example.org/no">x</a>')
    assert links(tmp_path).returncode == 0
    page.write_text(page.read_text() + '<a href="other.html#gone">x</a><img src="no.png">')
    ran = links(tmp_path)
    assert ran.returncode == 1
    assert ran.stdout.split("\n")[:2] == ["index.html: no.png", "index.html: other.html#gone"]
