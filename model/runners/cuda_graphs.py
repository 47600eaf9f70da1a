"""Spans of blocks that decode as CUDA graphs: one launch for all kernels of a span.

What a graph computes is what its kernels compute: it has their bits. Tensor names: T ragged rows,
d d_model.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping

import torch

from ..ops.cuda.kernels import CudaKernels
from ..ops.cuda.sequences import Sequences

KEYS = 256
"""A graph serves sequences until the longest passes the next multiple of so many keys."""
KEPT = 4
"""Graphs that a thread keeps; each holds the memory in which its span works."""

Captured = Mapping[str, torch.Tensor]
"""Rows of activations, by the name of their hook."""
Body = Callable[[torch.Tensor, Sequences], tuple[torch.Tensor, Captured]]


class SpanGraphs:
    """Graphs of spans that came before with the same shapes, a thread's its own.

    The first time a span runs as it is, the second time it is captured; other shapes, another
    stream or pages that have moved are another span.
    """

    def __init__(self, kernels: CudaKernels) -> None:
        self._kernels = kernels
        self._own = threading.local()

    def __deepcopy__(self, memo: object) -> SpanGraphs:
        """Returns one without graphs."""
        return SpanGraphs(self._kernels)

    def run(
        self, span: Hashable, body: Body, resid_Td: torch.Tensor, where: Sequences
    ) -> tuple[torch.Tensor, Captured]:
        """Returns body(resid_Td, where). `span` tells everything else that the body reads, and what
        it captures, which may have more keys than there are."""
        wide = where.widened(KEYS)
        key = (
            span, self._kernels.library.stream, resid_Td.shape, resid_Td.dtype, wide.table.shape,
            wide.keys,
        )  # fmt: skip
        seen = self._seen()
        if key not in seen:
            seen[key] = None
            self._forget(seen)
            return body(resid_Td, where)
        graph = seen[key]
        if graph is None:
            graph = seen[key] = _Graph(self._kernels, body, resid_Td, wide)
        seen.move_to_end(key)
        return graph.run(resid_Td, wide)

    def _seen(self) -> OrderedDict[Hashable, _Graph | None]:
        if not hasattr(self._own, "seen"):
            self._own.seen = OrderedDict()
        seen: OrderedDict[Hashable, _Graph | None] = self._own.seen
        return seen

    def _forget(self, seen: OrderedDict[Hashable, _Graph | None]) -> None:
        while len(seen) > KEPT:
            seen.popitem(last=False)


class _Graph:
    """One captured span, and the memory that its kernels read and write: what it captures of
    activations, too, which is copied out of there after each replay."""

    @torch.inference_mode(False)
    @torch.no_grad()
    def __init__(
        self, kernels: CudaKernels, body: Body, resid_Td: torch.Tensor, where: Sequences
    ) -> None:
        self._resid_Td, self._where = resid_Td.clone(), where.clone()
        self._replay, self._left = kernels.captured(lambda: body(self._resid_Td, self._where))

    @torch.inference_mode(False)
    @torch.no_grad()
    def run(self, resid_Td: torch.Tensor, where: Sequences) -> tuple[torch.Tensor, Captured]:
        self._resid_Td.copy_(resid_Td)
        self._where.copy_(where)
        self._replay()
        result_Td, captured = self._left
        return result_Td.clone(), {name: x.clone() for name, x in captured.items()}
