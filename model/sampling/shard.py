"""A rank's slice of the vocabulary, and the kernels on it. Row subsets are int64 index arrays R."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from ... import _core
from .batch import ROW, Batch
from .edits import edit_row, is_edited

U64 = npt.NDArray[np.uint64]
U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

LOGIT_TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
SCORED = np.dtype([("score", "<i8"), ("key", "<u8")])
MASS = np.dtype([("support", "<u8"), ("kept", "<u8")])
CHOICE = np.dtype(
    [
        ("key", "<u8"), ("mass", "<u8"), ("mass_before", "<u8"), ("threshold_key", "<u8"),
        ("typical_key", "<u8"), ("centre", "<u4"), ("kept", "<u4"), ("rank", "<u4"),
        ("reserved", "<u4"),
    ]
)  # fmt: skip
"""`Choice` of csrc/cpu/sampling.h; `SCORED` and `MASS` are `Scored` and `Mass`."""

SUMS = np.dtype([("mass", "<u8"), ("low", "<u8"), ("high", "<u8")])
"""`TypicalSums` of csrc/cpu/typical.h."""

BEYOND_ALL = np.uint64(0xFF800000 << 32)
"""The order key of +inf: no token has one as large."""
NO_TOKEN = np.uint32(0x007FFFFF)
"""The order bits of -inf."""


@dataclass
class Shard:
    """Prepared logits x of ids first_id .. first_id + n - 1, and the batch's records.

    Attributes:
        x: fp32 [B, n], after all edits and temperature.
        rows: The records of the whole batch, with x_max.
    """

    x: torch.Tensor
    first_id: int
    rows: npt.NDArray[np.void]

    @classmethod
    def prepare(
        cls, logits: torch.Tensor, first_id: int, batch: Batch
    ) -> tuple[Shard, npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
        """The shard, each row's maximum here [B] and whether it holds NaN or +inf here [B]."""
        size, n = logits.shape
        logits = logits if n == 0 or logits.stride(1) == 1 else logits.contiguous()
        maximum, bad = np.empty(size, dtype=np.float32), np.empty(size, dtype=np.uint8)
        edited = [b for b, p in enumerate(batch.params) if is_edited(p)]
        plain = logits.dtype == torch.float32 and not edited and (batch.temperature == 1).all()
        bad_raw = np.zeros(size, dtype=np.uint8)
        if edited:
            _prepare(logits, np.ones(size, dtype=np.float32), None, maximum, bad_raw)
            # numpy's copy: torch's would start OpenMP threads that spin on the kernels' cores.
            logits = torch.from_numpy(logits.float().numpy().copy())
            for b in edited:
                edit_row(logits[b], first_id, batch, b)
        x = logits if plain else torch.empty(size, n, dtype=torch.float32, device="cpu")
        _prepare(logits, batch.temperature, None if plain else x, maximum, bad)
        return cls(x, first_id, batch.rows.copy()), maximum, bad | bad_raw

    def perturbed(
        self, indices: I64, m: int, thresholds: U64 | None = None
    ) -> npt.NDArray[np.void]:
        """The m best scores and their keys [R, m], among keys of at least `thresholds` [R]."""
        best = np.empty((len(indices), m), dtype=SCORED)
        _core.sampling_perturbed(*self.at(indices), m, thresholds, best, None)
        return best

    def perturbed_and_mass(
        self, indices: I64, m: int
    ) -> tuple[npt.NDArray[np.void], npt.NDArray[np.void]]:
        """Returns `perturbed` and the slice's sums of weights [R], from one pass."""
        best = np.empty((len(indices), m), dtype=SCORED)
        mass = np.empty(len(indices), dtype=MASS)
        _core.sampling_perturbed(*self.at(indices), m, None, best, mass)
        return best, mass

    def mass(self, indices: I64) -> npt.NDArray[np.void]:
        """The slice's sums of weights [R]."""
        mass = np.empty(len(indices), dtype=MASS)
        best = np.empty(len(indices), dtype=SCORED)
        beyond = np.full(len(indices), BEYOND_ALL)
        _core.sampling_perturbed(*self.at(indices), 1, beyond, best, mass)
        return mass

    def top(self, indices: I64, k: I64, width: int, whole: Bools) -> U64:
        """Keys of the first k[i] tokens of each row, descending, padded with 0: [R, width].

        They are the kept ones, but in rows of the batch where `whole` [B] they are any.
        """
        keys = np.empty((len(indices), width), dtype=np.uint64)
        rows = self.rows.copy()
        rows["min_weight"][whole] = 1
        _core.sampling_top(*replace(self, rows=rows).at(indices), k, width, keys)
        return keys

    def choose(self, indices: I64, keys: U64, totals: U64) -> npt.NDArray[np.void]:
        """Filters and chooses from the merged first tokens of each row; sorts `keys` in place."""
        choices = np.empty(len(indices), dtype=CHOICE)
        _core.sampling_choose(
            self.rows, indices, len(indices), keys, keys.shape[1],
            totals, choices,
        )  # fmt: skip
        return choices

    def before(self, indices: I64, keys: U64, centres: U32 | None = None) -> tuple[U64, U32]:
        """Mass and count of kept tokens ahead of each key, [R, C] like `keys`; no key is 0.

        centres: Of each row [R], for the typical order.
        """
        mass, count = np.empty(keys.shape, np.uint64), np.empty(keys.shape, np.uint32)
        width = keys.shape[1]
        if centres is None:
            _core.sampling_before(*self.at(indices), keys, width, mass, count)
        else:
            _core.typical_before(*self.at(indices), centres, keys, width, mass, count)
        return mass, count

    def histogram(
        self, indices: I64, prefix: U64, shift: int, centres: U32 | None = None
    ) -> tuple[U64, U32]:
        """Mass and count of kept tokens by 8 bits at `shift`, [R, 256]: of their order bits, or
        with centres [R] of their typical keys."""
        mass = np.empty((len(indices), 256), dtype=np.uint64)
        count = np.empty((len(indices), 256), dtype=np.uint32)
        if centres is None:
            order = prefix.astype(np.uint32)
            _core.sampling_histogram(*self.at(indices), order, shift, mass, count)
        else:
            _core.typical_histogram(*self.at(indices), centres, prefix, shift, mass, count)
        return mass, count

    def masked(self, indices: I64, last: U64, centres: U32 | None = None) -> Shard:
        """Rows R without what min-p drops, and without order keys, or with centres [R] typical
        keys, below `last` [R]."""
        x = torch.empty(len(indices), self.x.shape[1], dtype=torch.float32, device="cpu")
        if centres is None:
            _core.typical_mask(*self.at(indices), last, x)
        else:
            _core.typical_keep(*self.at(indices), centres, last, x)
        return Shard(x, self.first_id, np.ascontiguousarray(self.rows[indices]))

    def typical_sums(self, indices: I64) -> npt.NDArray[np.void]:
        """Mass and sum of weight * gap of kept tokens here [R]."""
        found = np.empty(len(indices), dtype=SUMS)
        _core.typical_sums(*self.at(indices), found)
        return found

    def nth_tie(self, indices: I64, order: U32, nth: I64) -> U32:
        """Ids of the nth token, from 1, with these order bits [R]; 0xffffffff where nth is 0."""
        ids = np.empty(len(indices), dtype=np.uint32)
        _core.sampling_nth_tie(*self.at(indices), order, nth, ids)
        return ids

    def at(
        self, indices: I64
    ) -> tuple[torch.Tensor, int, int, int, npt.NDArray[np.void], I64, int]:
        """Rows R of this slice, as kernels take them."""
        assert self.rows.dtype == ROW
        return (
            self.x, self.x.shape[1], self.x.stride(0), self.first_id,
            self.rows, indices, len(indices),
        )  # fmt: skip


def logprobs(keys: U64, x_max: npt.NDArray[np.float32], totals: U64) -> npt.NDArray[np.float32]:
    """ln of each key's probability before filters; arguments of one shape."""
    out = np.empty(keys.shape, dtype=np.float32)
    keys, totals = np.ascontiguousarray(keys), np.ascontiguousarray(totals)
    x_max = np.ascontiguousarray(x_max)
    _core.sampling_logprobs(keys, x_max, totals, keys.size, out)
    return out


def x_of(keys: U64) -> npt.NDArray[np.float32]:
    """The logit of order keys (`x_of_key` of csrc/spec/sampling.h)."""
    order = (keys >> np.uint64(32)).astype(np.uint32)
    positive = (order >> np.uint32(31)).astype(bool)
    return np.where(positive, order & np.uint32(0x7FFFFFFF), ~order).view(np.float32)


def exact(x: npt.NDArray[np.float32]) -> list[float]:
    """The same numbers as Python floats; a cast flushes subnormals where torch was told to."""
    found = []
    for bits in x.view(np.uint32).tolist():
        exponent, fraction = bits >> 23 & 0xFF, bits & 0x7FFFFF
        magnitude = math.ldexp(fraction | (exponent > 0) << 23, max(exponent, 1) - 150)
        found.append(-magnitude if bits >> 31 else magnitude)
    return found


def order_of(x: npt.NDArray[np.float32]) -> U32:
    """Order bits (csrc/spec/sampling.h) of numbers other than -0: they compare as x does."""
    bits = x.view(np.uint32)
    return np.where(bits >> np.uint32(31), ~bits, bits | np.uint32(0x80000000))


def id_of(keys: U64) -> I64:
    """The id of order keys; -1 for the key 0, which stands for no token."""
    ids = (~keys & np.uint64(0xFFFFFFFF)).astype(np.int64)
    return np.where(keys == 0, -1, ids)


def _prepare(
    logits: torch.Tensor,
    temperature: npt.NDArray[np.float32],
    x: torch.Tensor | None,
    maximum: npt.NDArray[np.float32],
    bad: npt.NDArray[np.uint8],
) -> None:
    size, n = logits.shape
    _core.sampling_prepare(
        logits, LOGIT_TYPES[logits.dtype], size, n, logits.stride(0),
        temperature, x, maximum, bad,
    )  # fmt: skip
