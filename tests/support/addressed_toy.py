"""A model of four matrix products that any test can bend: precision/ needs no transformer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from bitlens.precision.addresses import Replacement, Site
from bitlens.precision.contract import PrecisionContract

ORDER = ("embed", "left", "right", "unembed")


class Toy:
    """logits = (left(x) + right(x)) @ unembed; left and right run in the order asked for."""

    def __init__(
        self,
        dtype: torch.dtype = torch.float32,
        order: Sequence[str] = ORDER,
        seed: int = 0,
        width: int = 16,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        shapes = {"embed": (11, width), "left": (width,) * 2, "right": (width,) * 2}
        shapes["unembed"] = (width, 11)
        self.weights = {
            name: (torch.randn(shape, generator=generator) * shape[0] ** -0.5).to(dtype)
            for name, shape in shapes.items()
        }
        self.storage = {torch.float32: "fp32", torch.bfloat16: "bf16"}[dtype]
        self.order = order
        self.installed: dict[str, list[Replacement]] = {}
        self.calls = 0

    @property
    def op_addresses(self) -> list[str]:
        return list(self.order)

    @contextmanager
    def override(self, address: str, fn: Replacement, /) -> Iterator[None]:
        if address not in self.weights:
            raise KeyError(address)
        self.installed.setdefault(address, []).append(fn)
        try:
            yield
        finally:
            self.installed[address].remove(fn)

    def site(self, address: str) -> Site:
        return Site(
            address,
            PrecisionContract("matmul", storage=self.storage),
            "toy",
            bind=lambda x, w: {"a": x, "b": w},
            operands=lambda x, w: (x,),
            view=lambda result: result,
            restore=lambda y, like: y.to(like.dtype),
        )

    def __call__(self, tokens: torch.Tensor, /) -> torch.Tensor:
        self.calls += 1
        one_hot = torch.nn.functional.one_hot(tokens.flatten(), 11)
        x = self._op("embed", one_hot.to(self.weights["embed"].dtype))
        middle = {name: self._op(name, x) for name in self.order if name in ("left", "right")}
        return self._op("unembed", middle["left"] + middle["right"])[None]

    def _op(self, address: str, x: torch.Tensor) -> torch.Tensor:
        fn: Callable[..., Any] = torch.matmul
        for replacement in self.installed.get(address, []):
            fn = partial(replacement, fn)
        result: torch.Tensor = fn(x, self.weights[address])
        return result
