"""docs/numerics.md in NumPy: the canonical orders on arrays, with an fma that rounds once.

An oracle that shares no line with csrc/: the kernels must agree with it bit for bit.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]

LEAF = 256
LANES = 16


def fma(a: npt.ArrayLike, b: npt.ArrayLike, c: npt.ArrayLike) -> F32:
    """a * b + c for fp32 arrays, rounded once.

    The product is exact in fp64. The fp64 sum is rounded to odd (Boldo & Melquiond 2008), after
    which rounding to fp32 cannot round twice.
    """
    with np.errstate(all="ignore"):
        product = np.asarray(a, np.float64) * np.asarray(b, np.float64)
        addend = np.broadcast_to(np.asarray(c, np.float64), np.shape(product + c))
        product = np.broadcast_to(product, addend.shape)
        total = product + addend
        part = total - product
        error = (product - (total - part)) + (addend - part)
        even = (total.view(np.int64) & 1) == 0
        inexact = np.isfinite(total) & (error != 0)
        odd = np.nextafter(total, np.copysign(np.inf, error))
        return np.where(inexact & even, odd, total).astype(np.float32)


def dot(a: F32, b: F32) -> F32:
    """Sum over the last axis: leaves of 256, one FMA chain each, added in ascending order."""
    total: F32 | None = None
    for start in range(0, a.shape[-1], LEAF):
        acc = np.zeros(np.broadcast_shapes(a.shape[:-1], b.shape[:-1]), np.float32)
        for i in range(start, min(start + LEAF, a.shape[-1])):
            acc = fma(a[..., i], b[..., i], acc)
        total = acc if total is None else total + acc
    assert total is not None
    return total


def _tree(lanes: F32) -> F32:
    for width in (8, 4, 2, 1):
        lanes = lanes[..., :width] + lanes[..., width : 2 * width]
    return lanes[..., 0]


def row_sum(x: F32, *, squares: bool = False) -> F32:
    """Row reduction over the last axis: blocks of 256, 16 lanes, a tree, blocks ascending."""
    return row_dot(x, x) if squares else row_dot(x, np.ones_like(x))


def row_dot(x: F32, y: F32) -> F32:
    """`row_sum` of products, each fused with its addition (x + 0 and 1 * x + 0 have one value)."""
    n = -x.shape[-1] % LEAF
    blocks = []
    for operand in (x, y):
        padded = np.concatenate([operand, np.zeros((*x.shape[:-1], n), np.float32)], axis=-1)
        blocks.append(padded.reshape(*x.shape[:-1], -1, LEAF // LANES, LANES))
    total: F32 | None = None
    for x_block, y_block in zip(*(np.moveaxis(each, -3, 0) for each in blocks), strict=True):
        lanes = np.zeros((*x.shape[:-1], LANES), np.float32)
        for v, w in zip(np.moveaxis(x_block, -2, 0), np.moveaxis(y_block, -2, 0), strict=True):
            lanes = fma(v, w, lanes)
        total = _tree(lanes) if total is None else total + _tree(lanes)
    assert total is not None
    return total


def exp(x: F32) -> F32:
    """The operation list of csrc/spec/exp.h."""
    x = np.where(x > 90, np.float32(90), x)
    x = np.where(x < -105, np.float32(-105), x)
    magic = np.float32(1.5 * 2**23)
    n = fma(x, np.float32(float.fromhex("0x1.715476p+0")), magic) - magic
    r = fma(-n, np.float32(float.fromhex("0x1.62e4p-1")), x)
    r = fma(-n, np.float32(float.fromhex("0x1.7f7d1cp-20")), r)
    names = ("0x1.6a2434p-10", "0x1.1239e2p-7", "0x1.5558f2p-5", "0x1.555492p-3", "0x1.fffffcp-2")
    c6, c5, c4, c3, c2 = (np.float32(float.fromhex(name)) for name in names)
    p = fma(c6, r, c5)
    for c in (c4, c3, c2, np.float32(1), np.float32(1)):
        p = fma(p, r, c)
    with np.errstate(all="ignore"):
        return np.ldexp(p.astype(np.float64), np.nan_to_num(n).astype(np.int64)).astype(np.float32)


def tanh(x: F32) -> F32:
    """The operation list of csrc/spec/tanh.h."""
    one, two = np.float32(1), np.float32(2)
    names = ("-0x1.77cdc6p-12", "0x1.2da078p-9", "-0x1.045ffep-7", "0x1.6009a6p-6")
    names += ("-0x1.b9623ap-5", "0x1.110be4p-3", "-0x1.55553cp-2")
    p, *lower = (np.float32(float.fromhex(name)) for name in names)
    with np.errstate(all="ignore"):
        a = np.abs(x)
        s = a * a
        for c in lower:
            p = fma(p, s, c)
        near, far = fma(a * s, p, a), one - two / (exp(a + a) + one)
        return np.copysign(np.where(a < one, near, far), x)


def soft_cap(x: F32, cap: float) -> F32:
    with np.errstate(all="ignore"):
        return np.float32(cap) * tanh(x / np.float32(cap))


def softmax(x: F32) -> tuple[F32, F32, F32]:
    """Softmax over the last axis, with its max (0 for a row of -inf) and its sum."""
    with np.errstate(all="ignore"):
        top = np.fmax.reduce(x, axis=-1, keepdims=True)
        top = np.where(np.isneginf(top), np.float32(0), top)
        e = exp(x - top)
        total = row_sum(e)
        inverse = np.where(total == 0, np.float32(0), np.float32(1) / total)
        return e * inverse[..., None], top[..., 0], total


def attention(
    q_h: F32, k_Kh: F32, v_Kh: F32, scale: float, first: int, cap: float = 0.0
) -> tuple[F32, F32, F32, F32, F32]:
    """One query row of one head that sees keys first .. K - 1; cap 0 is none.

    Returns scores [K], pattern [K], z [h], and the softmax's max and sum.
    """
    scores = np.full(len(k_Kh), -np.inf, np.float32)
    scores[first:] = dot(q_h, k_Kh[first:]) * np.float32(scale)
    if cap:
        scores[first:] = soft_cap(scores[first:], cap)
    pattern, top, total = softmax(scores)
    z: F32 | None = None
    for start in range(first // LEAF * LEAF, len(k_Kh), LEAF):
        acc = np.zeros(v_Kh.shape[1], np.float32)
        for j in range(max(first, start), min(start + LEAF, len(k_Kh))):
            acc = fma(pattern[j], v_Kh[j], acc)
        z = acc if z is None else z + acc
    assert z is not None
    return scores, pattern, z, top, total
