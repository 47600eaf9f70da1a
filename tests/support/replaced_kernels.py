"""A model whose operations run somebody else's kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from bitlens.precision.addresses import Addressable, Site

Kernel = Callable[..., torch.Tensor]


@contextmanager
def replaced(model: Addressable, addresses: Sequence[str], kernel: Kernel) -> Iterator[None]:
    """Runs `kernel(**inputs)`, inputs as the contract names them, at these addresses."""
    with ExitStack() as stack:
        for address in addresses:
            stack.enter_context(model.override(address, partial(_run, model.site(address), kernel)))
        yield


def _run(site: Site, kernel: Kernel, original: Callable[..., Any], *args: Any, **kw: Any) -> Any:
    inputs = site.bind(*args, **kw)
    return site.restore(kernel(**inputs), original(*args, **kw))
