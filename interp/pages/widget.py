"""A page as a widget of a notebook: the same view, with the kernel behind it."""

from __future__ import annotations

import contextvars
import json
import threading
from typing import Any

from .live import Event, Live
from .page import SCRIPT, STYLE, Page, bundle

try:
    import anywidget
    import traitlets
except ImportError as error:
    raise ImportError(
        "a live page in a notebook needs anywidget: pip install 'bitlens[notebook]'"
    ) from error


class _Stopped(Exception):
    """The page no longer waits for the answer."""


class PageWidget(anywidget.AnyWidget):
    """A page, live in JupyterLab, a plain notebook or VS Code."""

    _esm = bundle(SCRIPT)
    data = traitlets.Unicode().tag(sync=True)
    shards = traitlets.List(traitlets.Unicode()).tag(sync=True)
    style = traitlets.Unicode().tag(sync=True)

    def __init__(self, page: Page, live: Live) -> None:
        super().__init__(
            data=json.dumps({**page.data, "live": True}),
            shards=list(page.shards),
            style=bundle(STYLE),
        )
        self.page = page
        self._live = live
        self._stopped: set[int] = set()
        self.on_msg(self._asked)

    def save(self, path: str) -> None:
        """Writes the page to a file, as it was first shown."""
        self.page.save(path)

    def _asked(self, _: Any, request: dict[str, Any], __: Any) -> None:
        """Answers beside the kernel's own thread, so that a request can be stopped."""
        if request.get("kind") == "stop":
            self._stopped.add(request["id"])
            return
        context = contextvars.copy_context()  # in which ipykernel keeps what a message answers
        threading.Thread(target=context.run, args=(self._answer, request), daemon=True).start()

    def _answer(self, request: dict[str, Any]) -> None:
        number = request["id"]

        def emit(event: Event) -> None:
            if number in self._stopped:
                raise _Stopped
            self.send({**event, "id": number})

        try:
            self._live.answer(request, emit)
            emit({"kind": "end"})
        except _Stopped:
            self._stopped.discard(number)
        except Exception as error:
            self.send({"kind": "error", "message": str(error), "id": number})
