"""`bitlens explore`: a live page on this machine."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..policies import NativePolicyName
from .console import err
from .loading import load_model
from .options import NativeDtypeOption, Threads

if TYPE_CHECKING:
    from ..interp.pages import Page
    from ..interp.pages.live import Live

Against = Annotated[
    NativePolicyName | None,
    typer.Option(help="Run the prompt under this policy too, and show what flips."),
]


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        epilog='Examples:  bitlens explore "The Eiffel Tower is in"  |  bitlens explore --graph '
        "graph.json  |  bitlens explore --graph a.json --graph b.json --html compared.html"
    )(explore)


def explore(
    prompt: Annotated[str, typer.Argument(help="A text to begin with.")] = "Paris is the capital",
    model: Annotated[str, typer.Option("--model", "-m", help="As for `generate`.")] = (
        "smollm2-135m-instruct"
    ),
    dictionary: Annotated[
        list[str] | None,
        typer.Option("--dictionary", "-d", help="A SAELens folder; several for several layers."),
    ] = None,
    against: Against = None,
    graph: Annotated[
        list[Path] | None,
        typer.Option(help="Show an attribution graph in place of a prompt, or two side by side."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write the page to this file and serve nothing.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 0,
    open_browser: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in a browser.")
    ] = True,
    dtype: NativeDtypeOption = NativePolicyName.fp32,
    threads: Threads = None,
) -> None:
    """Look at a prompt's features, steer them and watch the model write, in a browser.

    Served on this machine alone, to whoever has the address it prints. Ctrl-C ends it.
    """
    from ..interp.pages.server import PageServer

    if graph:
        page, live = _graph(graph)
    else:
        page, live = _prompt(prompt, model, dictionary, against, dtype, threads)
    if html is not None:
        typer.echo(f"wrote {page.save(html)}")
        return
    server = PageServer(page, live, port)
    typer.echo(server.url)
    if open_browser:
        webbrowser.open(server.url)
    try:
        server.run()
    except KeyboardInterrupt:
        err.print("ended")


def _graph(paths: list[Path]) -> tuple[Page, Live]:
    from ..interp.pages import graph_page
    from ..interp.pages.live import LiveGraph

    return graph_page(*paths), LiveGraph(paths[0])


def _prompt(
    prompt: str,
    model: str,
    dictionaries: list[str] | None,
    against: NativePolicyName | None,
    dtype: NativePolicyName,
    threads: int | None,
) -> tuple[Page, Live]:
    from ..interp.pages.explore import explored

    loaded = load_model(model, dtype, threads=threads)
    beside = None if against is None else load_model(model, against, threads=threads)
    with err.status("running the prompt"):
        return explored(loaded, prompt, dictionaries, against=beside)
