"""One pass of a transformers model's own code, seen at the boundaries between its operations.

No code of the model is replaced. Module hooks show what its modules return and what some of them
are given; a `TorchFunctionMode` shows the product of queries and keys. An operation is all that
happens between the values it starts from, as the architecture declares them, and its result: so
whatever somebody has patched in lies within one, and is judged as part of it.

Tensor names: B batch, P positions, K keys, H heads, G key/value heads, h d_head.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from ...precision.addresses import UnobservedError
from ..hooks.overrides import Override

_PRODUCTS = ("matmul", "__matmul__", "scaled_dot_product_attention")
"""Functions whose first two operands are queries and keys, the first time one runs."""


class ObservedPass:
    """The values of one pass by address, as they come; calls what is installed at each."""

    def __init__(self, tokens_BP: torch.Tensor, installed: Mapping[str, Override]) -> None:
        self._installed = installed
        self._fired: Counter[str] = Counter()
        self._values: dict[str, Any] = {"tokens": tokens_BP}
        self.attention: AttentionCall | None = None

    def value(self, address: str) -> Any:
        """Returns an earlier operation's output; raises UnobservedError if it has not run."""
        if address not in self._values:
            raise UnobservedError(
                f"{address} did not run before what needs it, so this model's code is arranged in "
                "another way than its architecture: nothing can be concluded about it"
            )
        return self._values[address]

    def fire(self, address: str, result: torch.Tensor, *args: Any) -> torch.Tensor:
        """Passes an operation's result through its override; what the model is to go on with.

        Kept and shown is a copy, since the model's code may overwrite what it has used.
        """
        self._fired[address] += 1
        override = self._installed.get(address)
        self._values[address] = shown = result.clone()
        if override is None:
            return result
        given = partial(_given, address, shown, args)
        with torch._C.DisableTorchFunction():  # what the override computes is no part of the pass
            self._values[address] = new = override(given, *args)
        return result if new is shown else new.clone()

    def forget(self, block: str, but: str) -> None:
        """Drops the values of a block that has ended, all but one."""
        for address in [x for x in self._values if x.startswith(f"{block}.") and x != but]:
            del self._values[address]

    def check_complete(self, addresses: Iterable[str]) -> None:
        """Raises UnobservedError unless every operation ran exactly once."""
        for address in addresses:
            if self._fired[address] != 1:
                times = "never ran" if not self._fired[address] else "ran more than once"
                raise UnobservedError(
                    f"{address} {times} where it could be seen: a module around it was fused, "
                    "compiled or called in another way, and nothing can be concluded about it"
                )


def _given(address: str, result: Any, expected: tuple[Any, ...], *args: Any) -> Any:
    """Stands for the operation, which has run already."""
    if len(args) != len(expected) or any(x is not y for x, y in zip(args, expected, strict=True)):
        raise RuntimeError(
            f"{address} has run already, in its model's own code: it cannot run on other inputs"
        )
    return result


class AttentionCall:
    """An attention module's call, from its rotated queries and keys on."""

    def __init__(self, address: str, group: int, rotated: Callable[..., Any]) -> None:
        """`rotated(name, x_BHPh)` passes "rope_q" or "rope_k" through its override."""
        self.address = address
        self.scored = False
        self._group, self._rotated = group, rotated

    def score(
        self, is_transposed: bool, q_BHPh: torch.Tensor, k: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Both operands of the product, after overrides; keys may come once for each query head."""
        self.scored = True
        k_all = k.transpose(-2, -1) if is_transposed else k
        repeats = k_all.shape[1] * self._group // q_BHPh.shape[1]
        k_BGKh = k_all[:, ::repeats]
        if not torch.equal(k_BGKh.repeat_interleave(repeats, 1), k_all):
            raise UnobservedError(
                f"{self.address}: query heads of one group see other keys than one another, which "
                "no operation of this architecture does"
            )
        q = self._rotated("rope_q", q_BHPh)
        rotated_k = self._rotated("rope_k", k_BGKh)
        if rotated_k is not k_BGKh:
            k_all = rotated_k.repeat_interleave(repeats, 1)
            k = k_all.transpose(-2, -1) if is_transposed else k_all
        return q, k


class FunctionsOfPass(TorchFunctionMode):
    """Shows the pass the product of queries and keys inside each attention module."""

    def __init__(self, run: ObservedPass) -> None:
        super().__init__()
        self._run = run

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        call = self._run.attention
        if call is None or call.scored:
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name in _PRODUCTS and _is_query_key(name, args):
            q, k = call.score(name != "scaled_dot_product_attention", *args[:2])
            args = (q, k, *args[2:])
        return func(*args, **kwargs)


def _is_query_key(name: str, args: tuple[Any, ...]) -> bool:
    if len(args) < 2 or not all(isinstance(x, torch.Tensor) and x.ndim == 4 for x in args[:2]):
        return False
    return bool(args[0].shape[-1] == args[1].shape[-1 if name.startswith("scaled") else -2])
