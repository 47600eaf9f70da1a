"""A server over real sockets, on tiny models."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import httpx
import torch
import uvicorn
from bitlens.model.serving import Engine, Pool, Router
from bitlens.model.serving.http import Service, create_app, listen
from bitlens.model.transformer import HookedTransformer

TEMPLATE = (
    "{% for m in messages %}<bos>{{ m.role }}\n{{ m.content }}<eos>{% endfor %}"
    "{% if add_generation_prompt %}<bos>assistant\n{% endif %}"
)


class Server(NamedTuple):
    url: str
    service: Service

    @property
    def engine(self) -> Engine:
        return self.service.router.pools[0].engine

    @property
    def model(self) -> Any:
        return self.engine.model

    def post(self, path: str, body: Any = None, **options: Any) -> httpx.Response:
        return httpx.post(f"{self.url}{path}", json=body, timeout=30, **options)


def serving(models: Mapping[str, HookedTransformer], **options: Any) -> Iterator[Server]:
    """A server of pools of these models, by name, on a free port, until the test ends."""
    torch.set_num_threads(1)
    own = {name: options.pop(name) for name in ("monitors", "record") if name in options}
    timeout = options.pop("timeout", 60.0)
    engine: dict[str, Any] = {"token_budget": 60, "clock": time.monotonic}
    for name in ("clock", "max_running", "max_waiting", "cache_bytes"):
        if name in options:
            engine[name] = options.pop(name)
    router = Router([Pool(name, each, **engine) for name, each in models.items()])
    service = Service(router, "tiny", timeout=timeout, **own)
    listening = listen("127.0.0.1", 0)
    server = uvicorn.Server(
        uvicorn.Config(create_app(service, **options), log_level="warning", lifespan="on")
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    while not server.started:
        time.sleep(0.01)
    yield Server(url, service)
    server.should_exit = True
    thread.join(timeout=20)
    assert not thread.is_alive()
    assert all(pool.engine.cache.pool.n_references == 0 for pool in service.router.pools)
