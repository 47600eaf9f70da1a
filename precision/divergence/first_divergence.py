"""Finds where two runs of a model part, and the operation that is to blame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import torch

from ..addresses import Addressable
from ..meaning import meaning_differences
from .judge import JudgeChoice
from .report import Divergence, Mode
from .side_by_side import common_addresses, run_free, run_lockstep
from .swap import Replacement, run_swap


def first_divergence(
    model_a: Addressable,
    model_b: Addressable,
    tokens: torch.Tensor | str,
    mode: Mode = "free",
    *,
    judge: JudgeChoice = "auto",
    position: int = -1,
    replacement: Replacement = "a",
    addresses: Sequence[str] | None = None,
) -> Divergence:
    """Compares two models operation by operation, aligned by address whatever order they run in.

    The models may differ in dtype, backend or implementation; they may be one object only if its
    overrides tell threads apart. Operations only one of them has are listed, not compared.

    Args:
        model_a: The reference.
        model_b: The model in question.
        tokens: int64 [P] or [B, P], no padding; one sequence for "swap". Or a text, where model_a
            has a `to_tokens` as bitlens' models do.
        mode: "free": each on its own, the error of every activation. "lockstep": besides, every
            operation of b on a's inputs: where the difference is created, then amplified; costs one
            pass of a and two of b. "swap": one operation of b exchanged at a time: which of them
            alone restores a's token; costs two passes of both and one of b for each operation that
            differs, and holds their results.
        judge: What counts as a difference. "bits": any bit. "relative": an error in the 2-norm
            beyond what rounding to the coarser formats explains, an estimate. "contract": a result
            provably outside what its contract permits (an fp64 enclosure of every operation: slow).
            "auto": bits for one implementation under one contract, else relative; each row says.
        position: Whose next token "swap" looks at.
        replacement: What "swap" puts in: "a", a's operation on b's inputs, or "upcast", the real
            value rounded once.
        addresses: The operations that "swap" tries; None: all.

    Raises:
        ValueError: tokens, a mode or an address that cannot be, or models of other shapes.
        UnobservedError: a model that two plain runs, or watching it, give other logits, or whose
            operations do not each run once: nothing can be concluded.
    """
    if isinstance(tokens, str):
        tokens = _encoded(model_a, tokens)
    _check(model_b, tokens, mode, judge, replacement, addresses)
    meaning = meaning_differences(model_a, model_b, tokens)
    common = set(common_addresses(model_a, model_b))
    only_a = tuple(x for x in model_a.op_addresses if x not in common)
    only_b = tuple(x for x in model_b.op_addresses if x not in common)
    if mode == "swap":
        rows, token_a, token_b = run_swap(
            model_a, model_b, tokens, position, replacement, addresses
        )
        asked = (position, token_a, token_b, replacement)
        return Divergence(mode, tuple(rows), only_a, only_b, *asked, meaning=meaning)
    run = run_free if mode == "free" else run_lockstep
    table = tuple(run(model_a, model_b, tokens, judge))
    return Divergence(mode, table, only_a, only_b, meaning=meaning)


def _encoded(model: Addressable, text: str) -> torch.Tensor:
    to_tokens = getattr(model, "to_tokens", None)
    if to_tokens is None:
        raise ValueError(f"tokens: model_a, a {type(model).__name__}, encodes no text; pass ids")
    tokens: torch.Tensor = to_tokens(text)
    return tokens


def _check(
    b: Addressable,
    tokens: torch.Tensor,
    mode: Any,
    judge: Any,
    replacement: Any,
    addresses: Sequence[str] | None,
) -> None:
    chosen = (("mode", mode, Mode), ("judge", judge, JudgeChoice))
    for name, value, allowed in (*chosen, ("replacement", replacement, Replacement)):
        if value not in get_args(allowed):
            raise ValueError(f"{name} = {value!r}: expected one of {', '.join(get_args(allowed))}")
    if not isinstance(tokens, torch.Tensor) or tokens.dtype != torch.int64:
        kind = tokens.dtype if isinstance(tokens, torch.Tensor) else type(tokens).__name__
        raise ValueError(f"tokens: expected an int64 tensor [P] or [B, P], got {kind}")
    if tokens.ndim not in (1, 2) or tokens.numel() == 0:
        raise ValueError(f"tokens: expected [P] or [B, P], got shape {list(tokens.shape)}")
    if mode == "swap" and tokens.ndim == 2 and len(tokens) != 1:
        raise ValueError('tokens: mode="swap" looks at one token of one sequence')
    for address in addresses or ():
        if address not in b.op_addresses:
            raise ValueError(f"addresses: {address!r} is no operation of model_b")
