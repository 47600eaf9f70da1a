"""One pass of a transformers model's own code, seen at the boundaries between its operations.

No code of the model is replaced. Module hooks show what its modules return and what some of them
are given; a `TorchFunctionMode` shows the call that takes queries and keys. An operation is all
that happens between the values it starts from, as the architecture declares them, and its result:
so whatever somebody has patched in lies within one, and is judged as part of it.

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
from .transformers_calls import Call, attention_call


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

    def seen(self, address: str) -> Any:
        """Returns an earlier operation's output, None if it has not run."""
        return self._values.get(address)

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

    def __init__(
        self, address: str, heads: tuple[int, int], values: Any, rotated: Callable[..., Any]
    ) -> None:
        """`heads` are those of queries and of keys; `values()` are the projected ones;
        `rotated(name, x_BHPh)` passes "rope_q" or "rope_k" through its override."""
        self.address, self.values = address, values
        self.scored = False
        self._heads, self._rotated = heads, rotated

    def score(self, call: Call) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The call's arguments after overrides; keys may come once for each query head, and one
        token's query heads as positions of their key/value head."""
        self.scored = True
        n_heads, n_groups = self._heads
        packed, k_all = call.queries, call.keys
        q_BHPh = packed if packed.shape[1] == n_heads else packed.flatten(1, 2).unsqueeze(2)
        repeats = k_all.shape[1] // n_groups
        k_BGKh = k_all[:, ::repeats]
        if not torch.equal(k_BGKh.repeat_interleave(repeats, 1), k_all):
            raise UnobservedError(
                f"{self.address}: query heads of one group see other keys than one another, which "
                "no operation of this architecture does"
            )
        q = self._rotated("rope_q", q_BHPh)
        rotated_k = self._rotated("rope_k", k_BGKh)
        if q is q_BHPh and rotated_k is k_BGKh:
            return call.args, dict(call.kwargs)
        k = k_all if rotated_k is k_BGKh else rotated_k.repeat_interleave(repeats, 1)
        return call.with_operands(q.reshape(packed.shape), k)


class FunctionsOfPass(TorchFunctionMode):
    """Shows the pass the call that takes queries and keys inside each attention module."""

    def __init__(self, run: ObservedPass) -> None:
        super().__init__()
        self._run = run

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        attention = self._run.attention
        if attention is not None and not attention.scored:
            call = attention_call(func, args, kwargs, attention.values())
            if call is not None:
                args, kwargs = attention.score(call)
        return func(*args, **kwargs)
