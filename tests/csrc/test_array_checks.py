"""What the core is handed is checked, each array of each function: type, device, gaps and size."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from bitlens import _core
from bitlens.model.sampling.batch import ROW
from bitlens.model.sampling.shard import CHOICE, MASS, SCORED, SUMS

F32, BF16 = 0, 1
ROWS, D, HEADS, KV_HEADS, D_HEAD, D_MLP, N = 3, 64, 4, 2, 16, 96, 64


def f32(*shape: int) -> torch.Tensor:
    return torch.full(shape, 0.5, dtype=torch.float32)


def f64(*shape: int) -> torch.Tensor:
    return torch.full(shape, 0.5, dtype=torch.float64)


def i64(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64)


def i32(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


def zeros(dtype: Any, *shape: int) -> Any:
    return np.zeros(shape, dtype=dtype)


def panels(n: int, k: int) -> torch.Tensor:
    return torch.zeros(_core.packed_bytes(F32, n, k), dtype=torch.uint8)


def pages() -> torch.Tensor:
    return f32(1, KV_HEADS, D_HEAD, 64)


@dataclass(frozen=True)
class Call:
    """A call that is right. `optional`: places of arrays that may be None."""

    args: tuple[Any, ...]
    optional: tuple[int, ...] = ()


STARTS, PAST, TABLE = i64(0, ROWS), i64(0), i32(0)
LINES = (f32(ROWS, N), N, N, 0, zeros(ROW, ROWS), np.arange(ROWS), ROWS)
U64, U32, I64, FLOAT = np.uint64, np.uint32, np.int64, np.float32


def _rows_norm() -> Call:
    args = (f32(ROWS, D), f32(ROWS, D), f32(D), ROWS, 1, D, D, 1e-5, F32, F32, f32(ROWS, D), D)
    return Call((*args, f32(ROWS, D), f32(ROWS, 1), f32(ROWS, D)), optional=(1, 10, 13, 14))


def _rotation() -> Call:
    q = f32(ROWS, HEADS * D_HEAD)
    tables = (i64(0, 1, 2), f32(4, D_HEAD // 2), f32(4, D_HEAD // 2), 4)
    return Call((q, F32, ROWS, HEADS, D_HEAD, HEADS * D_HEAD, *tables, q.clone(), HEADS * D_HEAD))


def _gate() -> Call:
    return Call((0, f32(ROWS, D), f32(ROWS, D), ROWS, D, D, D, F32, f32(ROWS, D), D))


def _map(*count: int, out: tuple[int, ...] | None = None) -> Call:
    return Call((f32(*count), *count, f32(*(out or count))))


_SOFTMAX = 5  # the aggregate that takes logits
_ZERO = (0x80000000 << 32) | 0xFFFFFFFF  # the key of a logit of 0


def _choosing() -> Any:
    rows = zeros(ROW, ROWS)
    rows["top_k"], rows["top_p"], rows["typical_p"] = 2, 1.0, 1.0
    return rows


_Q, _SHAPE = f32(ROWS, HEADS * D_HEAD), (HEADS, KV_HEADS, D_HEAD)
_WHERE = (STARTS, PAST, 1, TABLE, 1)
CALLS: dict[str, Call] = {
    "pack": Call((F32, f32(N, D), N, D, panels(N, D))),
    "unpack_rows": Call((F32, panels(N, D), N, D, 1, 2, f32(2, D))),
    "linear": Call(
        (f32(ROWS, D), F32, ROWS, D, panels(N, D), F32, N, D, f32(N), f32(ROWS, N), F32, N),
        optional=(8,),
    ),
    "embedding": Call((i64(0, 1), 2, panels(N, D), F32, N, D, 1.0, f32(2, D), F32)),
    "rms_norm": _rows_norm(),
    "stepwise_rms_norm": _rows_norm(),
    "normalize": Call((f32(ROWS, D), f32(ROWS), ROWS, D, F32, f32(ROWS, D))),
    "norm_weight": Call((f32(ROWS, D), f32(D), ROWS, D, f32(ROWS, D), F32)),
    "add": Call((f32(D), F32, f32(D), F32, D, f32(D))),
    "cast": Call((f32(D), F32, D, f32(D).bfloat16(), BF16)),
    "scale_scores": Call((f32(D), 0.5, D, F32, f32(D))),
    "gated_act": _gate(),
    "stepwise_gated_act": _gate(),
    "softmax": _map(ROWS, D),
    "log_softmax": _map(ROWS, D),
    "logsumexp": _map(ROWS, D, out=(ROWS,)),
    "cross_entropy": Call(
        (f32(ROWS, D), F32, i64(*range(ROWS)), ROWS, D, -100, 0.1, f32(ROWS), f32(1)), optional=(8,)
    ),
    "exp": _map(D),
    "log": _map(D),
    "tanh": _map(D),
    "soft_cap": Call((f32(D), D, 2.0, f32(D))),
    "rope_inv_freq": Call((1e4, D_HEAD, f64(D_HEAD // 2))),
    "rope_table": Call((f64(8), 8, 0, 4, f32(4, 8), f32(4, 8))),
    "rope": _rotation(),
    "stepwise_rope": _rotation(),
    "kv_write": Call(
        (
            *(f32(ROWS, KV_HEADS * D_HEAD), f32(ROWS, KV_HEADS * D_HEAD), F32),
            *(KV_HEADS * D_HEAD, KV_HEADS * D_HEAD, STARTS, PAST, 1, KV_HEADS, D_HEAD),
            *(TABLE, 1, pages(), pages()),
        )
    ),
    "attention": Call(
        (
            *(_Q, F32, HEADS * D_HEAD, *_SHAPE, 0.25, 0.0, 0, *_WHERE, pages(), pages()),
            *(_Q.clone(), HEADS * D_HEAD, f32(ROWS, HEADS)),
        )
    ),
    "attention_scores": Call(
        (
            *(_Q, F32, HEADS * D_HEAD, *_SHAPE, 0.25, 0.0, 0, *_WHERE, pages()),
            *(i64(0, 2), 2, ROWS, f32(2, HEADS, ROWS)),
        )
    ),
    "attention_values": Call(
        (
            *(f32(ROWS, HEADS, ROWS), ROWS, *_SHAPE, F32, 0, *_WHERE, pages()),
            *(_Q.clone(), HEADS * D_HEAD),
        )
    ),
    "scaled": Call((f32(D), F32, D, 0.5, f32(D), F32)),
    "normalize_backward": Call(
        (f32(ROWS, D), f32(ROWS, D), f32(ROWS), ROWS, D, f32(ROWS, D), f32(ROWS))
    ),
    "rms_scale_backward": Call((f32(ROWS), f32(ROWS, D), f32(ROWS), ROWS, D, f32(ROWS, D))),
    "rms_norm_backward": Call(
        (f32(ROWS, D), f32(ROWS, D), f32(D), ROWS, D, 1e-5, F32, F32, f32(ROWS, D))
    ),
    "softmax_backward": Call((f32(ROWS, D), f32(ROWS, D), ROWS, D, f32(ROWS, D))),
    "soft_cap_backward": Call((f32(D), f32(D), D, 2.0, f32(D))),
    "gated_act_backward": Call((0, f32(D), f32(D), f32(D), D, F32, f32(D), f32(D))),
    "top_k": Call((f32(ROWS, D), ROWS, D, 2, f32(ROWS, 2), i32(*[0] * 6))),
    "weighted_sums": Call(
        (f32(3), i32(0, 1, 1), i64(0, 1, 3), 2, f32(4, D), 4, D, f32(D), f32(2, D)), optional=(7,)
    ),
    "gathered_dots": Call((f32(2, D), i32(0, 1, 1), i64(0, 1, 3), 2, f32(4, D), 4, D, f32(3))),
    "by_column": Call((i32(0, 1, 1), 3, 2, i64(0, 0, 0), i32(0, 0, 0))),
    "sums_of_squares": Call((f32(ROWS, D), ROWS, D, f32(ROWS))),
    "unit_rows": Call((f32(ROWS, D), ROWS, D)),
    "project_rows": Call((f32(ROWS, D), f32(ROWS, D), ROWS, D)),
    "bounded_exp": Call((f64(D), D, f64(D))),
    "softplus": Call((f64(D), D, f64(D))),
    "token_logprob": Call((f32(ROWS, D), ROWS, D, i64(0, 1, 2), 1.0, *[f32(ROWS)] * 3)),
    "token_logprob_backward": Call(
        (
            *(f32(ROWS), f32(ROWS, D), ROWS, D, i64(0, 1, 2), 1.0),
            *(f32(ROWS), f32(ROWS), f32(ROWS, D)),
        )
    ),
    "linear_weight_grad": Call(
        (f32(ROWS, N), F32, N, f32(ROWS, D), F32, D, i64(0, ROWS), 1, f32(N, D))
    ),
    "bias_grad": Call((f32(ROWS, D), F32, D, i64(0, ROWS), 1, f32(D))),
    "norm_weight_grad": Call((f32(ROWS, D), F32, D, f32(ROWS, D), 1, i64(0, ROWS), 1, f32(D))),
    "embed_grad": Call((f32(ROWS, D), D, i64(0, 1, 2), N, 0.5, i64(0, ROWS), 1, f32(N, D))),
    "adam": Call((f32(D), D, 0.9, 0.1, 0.99, 0.01, 1e-3, 1.0, 1e-8, 1.0, 0.9, *[f32(D)] * 3)),
    "fold_scores": Call(
        (
            *(_SOFTMAX, 1, 0.0, f32(3, HEADS), f32(3, HEADS), i64(0, 1, 3), 2, HEADS, 0.0),
            *(i64(0, 0), f32(2, HEADS, _core.fold_state_floats(_SOFTMAX, 1)), f32(3)),
        )
    ),
    "encode_above": Call((f32(3, D), 3, panels(N, D), F32, N, D, f32(N), f32(N)), optional=(6,)),
    "encode_top_k": Call(
        (f32(3, D), 3, panels(N, D), F32, N, D, f32(N), 2, f32(3, 2), zeros(np.int32, 3, 2)),
        optional=(6,),
    ),
    "sampling_prepare": Call(
        (
            *(f32(ROWS, N), 0, ROWS, N, N, np.ones(ROWS, FLOAT), f32(ROWS, N)),
            *(zeros(FLOAT, ROWS), zeros(np.uint8, ROWS)),
        ),
        optional=(6,),
    ),
    "sampling_terms": Call((zeros(U64, 4), 4, 0.5, 1, 2, 3, zeros(U64, 4), zeros(I64, 4))),
    "sampling_logprobs": Call(
        (zeros(U64, 4), zeros(FLOAT, 4), np.ones(4, U64), 4, zeros(FLOAT, 4))
    ),
    "sampling_perturbed": Call(
        (*LINES, 2, zeros(U64, ROWS), zeros(SCORED, ROWS, 2), zeros(MASS, ROWS)), optional=(8, 10)
    ),
    "sampling_top": Call((*LINES, np.full(ROWS, 2), 2, zeros(U64, ROWS, 2))),
    "sampling_choose": Call(
        (
            *(_choosing(), np.arange(ROWS), ROWS, np.full((ROWS, 2), _ZERO, U64), 2),
            *(np.ones(ROWS, U64), zeros(CHOICE, ROWS)),
        )
    ),
    "sampling_before": Call(
        (*LINES, zeros(U64, ROWS, 2), 2, zeros(U64, ROWS, 2), zeros(U32, ROWS, 2))
    ),
    "sampling_histogram": Call(
        (*LINES, zeros(U32, ROWS), 24, zeros(U64, ROWS, 256), zeros(U32, ROWS, 256))
    ),
    "sampling_nth_tie": Call((*LINES, zeros(U32, ROWS), zeros(I64, ROWS), zeros(U32, ROWS))),
    "typical_mask": Call((*LINES, zeros(U64, ROWS), f32(ROWS, N))),
    "typical_sums": Call((*LINES, zeros(SUMS, ROWS))),
    "typical_before": Call(
        (
            *(*LINES, zeros(U32, ROWS), zeros(U64, ROWS, 2), 2),
            *(zeros(U64, ROWS, 2), zeros(U32, ROWS, 2)),
        )
    ),
    "typical_histogram": Call(
        (
            *(*LINES, zeros(U32, ROWS), zeros(U64, ROWS), 48),
            *(zeros(U64, ROWS, 256), zeros(U32, ROWS, 256)),
        )
    ),
    "typical_keep": Call((*LINES, zeros(U32, ROWS), zeros(U64, ROWS), f32(ROWS, N))),
}


def spoilt(array: Any) -> Iterator[tuple[str, Any]]:
    """What no kernel may be handed in an array's place."""
    yield "an address", array.data_ptr() if isinstance(array, torch.Tensor) else array.ctypes.data
    if isinstance(array, torch.Tensor):
        yield "another device", array.to("meta")
        if array.dtype is not torch.uint8:  # bytes of any type are packed
            yield "another type", array.to(torch.int16)
        yield "one element less", array.flatten()[:-1]
        if array.numel() > 1:
            yield "gaps", torch.stack([array.flatten()] * 2, dim=1)[:, 0]
    else:
        yield "another type", np.zeros(array.shape, np.int16)
        yield "one element less", array.ravel()[:-1]
        if array.size > 1:
            yield "gaps", np.stack([array.ravel()] * 2, axis=1)[:, 0]


def is_array(argument: Any) -> bool:
    return isinstance(argument, torch.Tensor | np.ndarray)


def refuses(function: Callable[..., None], args: list[Any]) -> bool:
    try:
        function(*args)
    except (TypeError, ValueError, BufferError):
        return True
    return False


def copied(args: tuple[Any, ...]) -> list[Any]:
    return [x.clone() if isinstance(x, torch.Tensor) else x for x in args]


@pytest.mark.parametrize("name", CALLS)
def test_a_spoilt_array_raises(name: str) -> None:
    function: Callable[..., None] = getattr(_core, name)
    call, refused = CALLS[name], 0
    function(*copied(call.args))
    for i in filter(lambda i: is_array(call.args[i]), range(len(call.args))):
        for what, spoiled in spoilt(call.args[i]):
            args = copied(call.args)
            args[i] = spoiled
            if name == "pack" and i == 1 and what == "another type":
                continue
            assert refuses(function, args), f"{name} took {what} as argument {i}"
            refused += 1
        args = copied(call.args)
        args[i] = None
        if i in call.optional:
            function(*args)
        else:
            with pytest.raises(ValueError, match=r"None where an array is needed|room for the sum"):
                function(*args)
    assert refused >= 4


SCORER = (panels(2, D), 2, D, f32(2), i64(0, 1, 1, 1, 0, 0), f32(2), zeros(np.float64, 2))
PUSHED = (f32(3, D), 3, i64(0, 1, 1), f32(3, 2))


def scored(*args: Any) -> None:
    """Returns what a scorer's two functions take, the second's first array in a list."""
    scorer = _core.TokenScorer(2)
    scorer.add(*args[: len(SCORER)])
    x, *others = args[len(SCORER) :]
    scorer.push([x], *others)


def test_the_arrays_of_a_scorer_are_checked() -> None:
    scored(*copied(SCORER + PUSHED))
    scored(*copied(SCORER), f32(3, D).bfloat16(), *copied(PUSHED[1:]))
    refused = 0
    for i, good in enumerate(SCORER + PUSHED):
        for what, spoiled in spoilt(good) if is_array(good) else ():
            args = copied(SCORER + PUSHED)
            args[i] = spoiled
            assert refuses(scored, args), f"a scorer took {what} as argument {i}"
            refused += 1
    assert refused >= 30
    with pytest.raises(ValueError, match="another number of hooks"):
        _core.TokenScorer(2).push([f32(3, D)], *PUSHED[1:])
    with pytest.raises(IndexError, match="row 2 of 2"):
        scored(*SCORER, f32(3, D), 3, i64(0, 1, 2), f32(3, 2))


def test_every_function_with_arrays_is_here() -> None:
    functions = {
        name
        for name, x in inspect.getmembers(_core, callable)
        if not inspect.isclass(x) and "torch.Tensor" in (x.__doc__ or "")
    }
    assert functions - CALLS.keys() == {"sampling_edit"}  # whose arrays are in tuples: below
    assert CALLS.keys() <= functions


def test_the_arrays_of_an_edit_are_checked() -> None:
    row, ids, bias = f32(N), np.arange(2), np.ones(2, FLOAT)
    seen, none = (ids, np.ones(2, U32), 2), (1.0, 0.0, 0.0)

    def edit(**changes: Any) -> None:
        parts = {"allowed": (ids, 2), "bias": (ids, bias, 2), "banned": (ids, 2), "seen": seen}
        parts |= changes
        _core.sampling_edit(row, N, 0, *parts.values(), none)

    edit()
    for name, part in {
        "allowed": (ids, 3),
        "bias": (ids, bias.astype(np.float64), 2),
        "banned": (ids.astype(np.int32), 2),
        "seen": (ids, np.ones(1, U32), 2),
    }.items():
        with pytest.raises(ValueError, match=name):
            edit(**{name: part})


def test_messages_name_the_argument_and_what_is_wrong() -> None:
    good = f32(D)
    for x, message in {
        f32(D).double(): "x: holds float64, float32 is read",
        f32(D - 1): "x: holds 63 elements, 64 are needed",
        f32(2 * D)[::2]: "pass .contiguous()",
        good.to("meta"): "a tensor on meta: the kernels read the CPU's memory",
    }.items():
        with pytest.raises(ValueError, match=message):
            _core.exp(x, D, good)


def test_sequences_pages_and_rows_are_checked() -> None:
    args = list(CALLS["attention"].args)
    for i, value, message in (
        (9, i64(1, ROWS), "starts, past"),
        (9, i64(0, 50), "holds 12 elements, 200 are needed"),
        (10, i64(-1), "starts, past"),
        (10, i64(64), "more keys than pages"),
        (12, i32(-1), "a page below 0"),
        (12, i32(1), "k_pages: holds"),
    ):
        with pytest.raises(ValueError, match=message):
            _core.attention(*args[:i], value, *args[i + 1 :])  # type: ignore[call-arg]
