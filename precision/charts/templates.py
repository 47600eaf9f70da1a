"""Reports as HTML: one stylesheet and one set of macros for all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Template


def template(
    package: str, name: str, filters: Mapping[str, Callable[..., Any]] | None = None
) -> Template:
    """Returns a package's Jinja template. Whatever it is given is escaped, unless marked safe.

    It may import "macros" (`macros.html.j2`) and reads the stylesheet as `style`.
    """
    from jinja2 import DictLoader, Environment, StrictUndefined

    here = files(__package__)
    macros = here.joinpath("macros.html.j2").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=DictLoader({"macros": macros}),
    )
    environment.filters |= filters or {}
    environment.globals["style"] = here.joinpath("page.css").read_text(encoding="utf-8")
    return environment.from_string(files(package).joinpath(name).read_text(encoding="utf-8"))
