"""One client of a server, over a real socket, beside the engine that the server asks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import httpx
import torch
import uvicorn

from ... import set_num_threads
from ...model.load import load
from ...model.serving import Engine, Request
from ...model.serving.http import Service, create_app, listen
from .timing import prompt, seconds

PROMPT = 32


class BitlensHttp:
    """A server in a thread of this process, and a client that keeps its connection."""

    def __init__(self, model: str, threads: int, dtype: str) -> None:
        set_num_threads(threads)
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        loaded = load(model, dtype=dtype)  # type: ignore[arg-type]
        self.ids = prompt(loaded.config.d_vocab, PROMPT)[0].tolist()
        self.engine = Engine(loaded)
        app = create_app(Service(self.engine, "m", timeout=60))
        listening = listen("127.0.0.1", 0)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on"))
        run = {"sockets": [listening]}
        threading.Thread(target=server.run, kwargs=run, daemon=True).start()
        while not server.started:
            time.sleep(0.01)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        self.client = httpx.Client(base_url=url, timeout=60)

    def first_token(self) -> dict[str, float]:
        """Seconds until the first token of a prompt that is known: of the engine alone, of an
        answer over HTTP, and of a stream's first piece; each the least of five."""
        alone = Request(self.ids, max_new_tokens=1)
        ways: dict[str, Callable[[], float]] = {
            "engine": lambda: seconds(lambda: self.engine.submit(alone).result()),
            "answer": lambda: self._asked(stream=False),
            "stream": lambda: self._asked(stream=True),
        }
        found = {name: [way() for _ in range(6)][1:] for name, way in ways.items()}
        return {name: min(each) for name, each in found.items()}

    def _asked(self, *, stream: bool) -> float:
        """Seconds until the first line of an answer, which holds its first token."""
        body = {"model": "m", "prompt": self.ids, "max_tokens": 1, "temperature": 0}
        started = time.perf_counter()
        with self.client.stream(
            "POST", "/v1/completions", json={**body, "stream": stream}
        ) as answer:
            lines = answer.iter_lines()
            assert "text" in next(lines)
            taken = time.perf_counter() - started
            for _ in lines:  # to the end, so that the connection is kept
                pass
        return taken
