"""The kernels of every instruction set against the golden vectors of the numerics spec, bitwise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from bitlens import _core
from bitlens.interp.probes.aggregate import KINDS, Aggregate
from bitlens.interp.probes.fold import ScoreFold
from bitlens.model.sampling.batch import ROW
from bitlens.model.sampling.shard import Shard, order_of
from bitlens.model.sampling.typical import TypicalShard, centres_and_masses
from golden import dictionaries, gradients, training
from golden.cases import DTYPES, FILE, FORMATS, Case, checksum, load, samples, specials, words_of

PAGE = 64

# The reductions have no op of their own: rms_norm and softmax cover them. No kernel rounds to fp16.
# The other leaf length and the other order are the negative controls below.
CONTROLS = {"linear_other_leaf", "linear_other_order"}
SPEC_ONLY = {"row_sum", "row_sum_squares", *CONTROLS}

Outputs = tuple[torch.Tensor, ...]


def _packed(stored: torch.Tensor, case: Case, n: int) -> torch.Tensor:
    code = FORMATS[case.format]
    panels = torch.empty(_core.packed_bytes(code, n, case.k) + 64, dtype=torch.uint8)
    panels = panels[-panels.data_ptr() % 64 :]
    _core.pack(code, stored, n, case.k, panels)
    return panels


def _widen(case: Case) -> Outputs:
    if case.flag == 1:
        patterns = torch.arange(65536, dtype=torch.int32).to(torch.int16)
        stored = patterns.view(DTYPES[case.format])
    else:
        stored = case.stored_weights(case.rows)
    panels = _packed(stored, case, case.rows)
    out = torch.empty(case.rows, case.k)
    code = FORMATS[case.format]
    _core.unpack_rows(code, panels, case.rows, case.k, 0, case.rows, out)
    return (out,)


def _round(case: Case) -> Outputs:
    """bf16 through a copying embedding of fp32 values; fp16 is torch's rounding."""
    bits = (np.arange(case.n) << case.flag) + case.position
    x = torch.from_numpy(bits.astype(np.uint32).view(np.float32))
    if case.out == "f16":
        return (x.to(torch.float16),)
    table = Case(**{**vars(case), "format": "f32", "k": 64})
    n = case.n // 64
    panels = _packed(x, table, n)
    return (_embed(panels, table, torch.arange(n), n, 1.0),)


def _embed(
    panels: torch.Tensor, case: Case, tokens: torch.Tensor, n: int, scale: float
) -> torch.Tensor:
    out = torch.empty(len(tokens), case.k, dtype=DTYPES[case.out])
    _core.embedding(
        tokens, len(tokens), panels, FORMATS[case.format], n, case.k, scale,
        out, FORMATS[case.out],
    )  # fmt: skip
    return out


def _embedding(case: Case) -> Outputs:
    tokens = torch.from_numpy((case.stream(1, case.rows) % np.uint64(case.n)).astype(np.int64))
    panels = _packed(case.stored_weights(case.n), case, case.n)
    return (_embed(panels, case, tokens, case.n, case.real),)


def _elementary(case: Case) -> Outputs:
    if case.flag == 0:
        bits = (case.stream(0, case.n) >> np.uint64(32)).astype(np.uint32)
        x = torch.from_numpy(bits.view(np.float32))
    else:
        x = specials() if case.flag == 2 else case.centered(0, case.n) * case.real
    y = torch.empty_like(x)
    if case.op == "soft_cap":
        _core.soft_cap(x, case.n, case.k, y)
    else:
        getattr(_core, case.op)(x, case.n, y)
    return (y,)


def _linear(case: Case) -> Outputs:
    x = case.activations(1, case.rows, case.k)
    panels = _packed(case.stored_weights(case.n), case, case.n)
    bias = case.centered(2, case.n)
    out = torch.empty(case.rows, case.n, dtype=DTYPES[case.out])
    _core.linear(
        x, FORMATS[case.act], case.rows, case.k, panels,
        FORMATS[case.format], case.n, case.k, bias if case.flag == 1 else None,
        out, FORMATS[case.out], case.n,
    )  # fmt: skip
    return (out,)


def _rms_norm(case: Case) -> Outputs:
    shape, adds = (case.rows, case.k), bool(case.flag & 1)
    x_format = "f32" if case.flag & 2 else case.act
    x, weight = case.centered(1, *shape).to(DTYPES[x_format]), case.centered(0, case.k)
    residual = case.activations(2, *shape)
    y, summed = torch.empty_like(residual), torch.empty_like(x) if adds else x
    scale, normalized = torch.empty(case.rows, 1), torch.empty(shape)
    getattr(_core, case.op)(
        x, residual if adds else None, weight, case.rows, 1, case.k,
        case.k, case.real, FORMATS[x_format], FORMATS[case.act], y, case.k,
        summed if adds else None, scale, normalized,
    )  # fmt: skip
    return (torch.cat([summed.float(), scale, normalized, y.float()], dim=1),)


def _add(case: Case) -> Outputs:
    x_format = "f32" if case.flag == 1 else case.act
    x, y = case.centered(0, case.n).to(DTYPES[x_format]), case.activations(1, case.n)
    out = torch.empty_like(x)
    _core.add(x, FORMATS[x_format], y, FORMATS[case.act], case.n, out)
    return (out,)


def _rope_tables(case: Case, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    half = case.k // 2
    inv_freq = torch.empty(half, dtype=torch.float64)
    cos, sin = torch.empty(count, half), torch.empty(count, half)
    _core.rope_inv_freq(case.real, case.k, inv_freq)
    _core.rope_table(inv_freq, half, case.position, count, cos, sin)
    return inv_freq, cos, sin


def _rope_table(case: Case) -> Outputs:
    inv_freq, cos, sin = _rope_tables(case, 1)
    return inv_freq, cos, sin


def _rope(case: Case) -> Outputs:
    _, cos, sin = _rope_tables(case, case.rows)
    x = case.activations(0, case.rows, case.n, case.k)
    out, positions = torch.empty_like(x), torch.arange(case.rows)
    stride = case.n * case.k
    getattr(_core, case.op)(
        x, FORMATS[case.act], case.rows, case.n, case.k, stride, positions,
        cos, sin, case.rows, out, stride,
    )  # fmt: skip
    return (out,)


def _gated_act(case: Case) -> Outputs:
    gate = case.centered(0, case.n) * case.real
    gate[: len(specials())] = specials()
    gate, up = gate.to(DTYPES[case.act]), case.activations(1, case.n)
    out = torch.empty_like(up)
    getattr(_core, case.op)(
        case.flag, gate, up, 1, case.n, case.n, case.n, FORMATS[case.act],
        out, case.n,
    )  # fmt: skip
    return (out,)


def _stepwise_score(case: Case) -> Outputs:
    x, out = case.centered(0, case.n) * case.real, torch.empty(case.n, dtype=DTYPES[case.act])
    scale = float(np.float32(12**-0.5))
    _core.scale_scores(x, scale, case.n, FORMATS[case.act], out)
    return (out,)


def _softmax(case: Case) -> Outputs:
    x = case.centered(0, case.n) * 20.0
    if case.flag in (1, 2):
        x[:: 3 if case.flag == 1 else 1] = -torch.inf
    if case.flag == 3:
        x[case.n // 2] = torch.nan
    pattern, log_pattern, logsumexp = torch.empty_like(x), torch.empty_like(x), torch.empty(1)
    _core.softmax(x, 1, case.n, pattern)
    _core.log_softmax(x, 1, case.n, log_pattern)
    _core.logsumexp(x, 1, case.n, logsumexp)
    return pattern, log_pattern, logsumexp


def _cross_entropy(case: Case) -> Outputs:
    x = (case.centered(0, case.rows, case.n) * 20.0).to(DTYPES[case.act])
    words = case.stream(1, case.rows) % np.uint64(case.n)
    targets = torch.from_numpy(words.astype(np.int64))
    if case.flag:
        targets[:: case.flag] = -100
    losses, mean = torch.empty(case.rows), torch.empty(1)
    code = FORMATS[case.act]
    _core.cross_entropy(x, code, targets, case.rows, case.n, -100, case.real, losses, mean)
    return losses, mean


def _bits(x: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(words_of(x).view(np.int32))


class _Attention:
    """One sequence whose last query is the case's: `new` queries against `position + 1` keys."""

    def __init__(self, case: Case, new: int) -> None:
        self.case, self.new, self.keys = case, new, case.position + 1
        self.act = FORMATS[case.act]
        self.scale = float(np.float32(1) / np.sqrt(np.float32(case.k)))
        self.cap = case.flag // 2
        past = self.keys - new
        self.past = torch.tensor([past])
        self.starts = torch.tensor([0, new])
        self.q = case.centered(0, new, case.n, case.k, start=past * case.n * case.k) * case.real
        self.q = self.q.to(DTYPES[case.act])
        self._write_pages()

    def _write_pages(self) -> None:
        case, dtype = self.case, DTYPES[self.case.act]
        k, v = (case.activations(s, self.keys, case.rows, case.k) for s in (1, 2))
        first = max(0, case.position - case.window + 1) if case.window else 0
        if case.flag % 2 and self.new == 1:
            k[:first], v[:first] = torch.nan, torch.nan
        self.n_pages = -(-self.keys // PAGE)
        self.table = torch.arange(self.n_pages, dtype=torch.int32)
        # What no key was written to must not matter either.
        self.k_pages = torch.full((self.n_pages, case.rows, case.k, PAGE), torch.nan, dtype=dtype)
        self.v_pages = torch.full((self.n_pages, case.rows, PAGE, case.k), torch.nan, dtype=dtype)
        starts, past = torch.tensor([0, self.keys]), torch.tensor([0])
        stride = case.rows * case.k
        _core.kv_write(
            k, v, self.act, stride, stride, starts,
            past, 1, case.rows, case.k, self.table, self.n_pages,
            self.k_pages, self.v_pages,
        )  # fmt: skip

    def _batch(self) -> tuple[torch.Tensor, torch.Tensor, int, torch.Tensor, int]:
        return self.starts, self.past, 1, self.table, self.n_pages

    def fused(self) -> tuple[torch.Tensor, torch.Tensor]:
        case, stride = self.case, self.case.n * self.case.k
        z, lse = torch.empty_like(self.q), torch.empty(self.new, case.n)
        _core.attention(
            self.q, self.act, stride, case.n, case.rows, case.k, self.scale,
            self.cap, case.window, *self._batch(), self.k_pages, self.v_pages,
            z, stride, lse,
        )  # fmt: skip
        return z, lse

    def scores(self) -> torch.Tensor:
        case = self.case
        rows, out = torch.tensor([self.new - 1]), torch.empty(1, case.n, self.keys)
        _core.attention_scores(
            self.q, self.act, case.n * case.k, case.n, case.rows, case.k, self.scale,
            self.cap, case.window, *self._batch(), self.k_pages, rows, 1,
            self.keys, out,
        )  # fmt: skip
        return out

    def values(self, pattern: torch.Tensor) -> torch.Tensor:
        case = self.case
        z = torch.empty_like(self.q)
        _core.attention_values(
            pattern, self.keys, case.n, case.rows, case.k, self.act, case.window,
            *self._batch(), self.v_pages, z, case.n * case.k,
        )  # fmt: skip
        return z


def _attention(case: Case, new: int = 1) -> Outputs:
    run = _Attention(case, new)
    z, lse = run.fused()
    scores = run.scores()
    pattern = torch.empty_like(scores)
    _core.softmax(scores, case.n, run.keys, pattern)
    if new == 1:
        assert torch.equal(_bits(run.values(pattern)), _bits(z))
    heads = zip(scores[0], pattern[0], z[-1], lse[-1], strict=True)
    return tuple(part for head in heads for part in head)


def _sampling(case: Case) -> Outputs:
    x_max = np.float32(case.real)
    x = case.centered(0, case.n).numpy() * x_max
    ids = np.arange(case.k, case.k + case.n, dtype=np.uint64)
    bits = (x + np.float32(0)).view(np.uint32)
    order = np.where(bits >> 31 != 0, ~bits, bits | np.uint32(0x80000000)).astype(np.uint64)
    keys = order << np.uint64(32) | (~ids & np.uint64(0xFFFFFFFF))
    terms = np.empty((case.n, 3), dtype=np.uint64)
    weights, scores = np.empty(case.n, np.uint64), np.empty(case.n, np.int64)
    seed = int(case.key(1)[0])
    _core.sampling_terms(
        keys, case.n, float(x_max), seed, case.position, case.flag,
        weights, scores,
    )  # fmt: skip
    terms[:, 0], terms[:, 1], terms[:, 2] = keys, weights, scores.view(np.uint64)
    return (torch.from_numpy(terms.reshape(-1).view(np.float64)),)  # raw words


def _typical(case: Case) -> Outputs:
    x = (case.centered(0, case.n) * case.real - case.real + 0.0)[None]  # -0 is +0
    rows = np.zeros(1, dtype=ROW)
    rows["min_weight"] = 1  # x_max is 0
    kept, first = Shard(x, case.k, rows), np.zeros(1, dtype=np.int64)
    centres, _ = centres_and_masses(kept.typical_sums(first)[None])
    ids = np.arange(case.k, case.k + case.n, dtype=np.uint32)
    keys = order_of(x[0].numpy()).astype(np.uint64) << np.uint64(32) | ~ids
    mass, count = TypicalShard(kept, centres).before(first, keys[None])
    words = np.column_stack([mass[0].view(np.uint32).reshape(-1, 2), count[0]]).ravel()
    found = np.concatenate([centres, words.astype(np.uint32)])
    return (torch.from_numpy(found.view(np.float64)),)  # raw words


def _fold(case: Case) -> Outputs:
    """In two calls, the second from the first one's state."""
    rule = Aggregate(KINDS[case.flag], case.window, case.real)
    values = case.centered(0, case.n, case.rows)
    logits = case.centered(1, case.n, case.rows) * 20 if rule.kind == "softmax" else None
    fold = ScoreFold(rule, case.rows, float(case.centered(2, 1)), 1)
    cut = case.n // 3
    return tuple(
        fold.push(
            values[begin:end],
            torch.tensor([0, end - begin]),
            None if logits is None else logits[begin:end],
        )
        for begin, end in ((0, cut), (cut, case.n))
    )


CHECKS: dict[str, Callable[[Case], Outputs]] = {
    "widen": _widen,
    "round": _round,
    "exp": _elementary,
    "log": _elementary,
    "tanh": _elementary,
    "soft_cap": _elementary,
    "linear": _linear,
    "rms_norm": _rms_norm,
    "add": _add,
    "rope_table": _rope_table,
    "rope": _rope,
    "attention": _attention,
    "gated_act": _gated_act,
    "softmax": _softmax,
    "cross_entropy": _cross_entropy,
    "embedding": _embedding,
    "sampling": _sampling,
    "typical": _typical,
    "stepwise_rms_norm": _rms_norm,
    "stepwise_rope": _rope,
    "stepwise_gated_act": _gated_act,
    "stepwise_score": _stepwise_score,
    "fold": _fold,
    **gradients.CHECKS,
    **dictionaries.CHECKS,
    **training.CHECKS,
}


def assert_golden(case: Case, outputs: Outputs) -> None:
    words = words_of(*outputs)
    assert len(words) == case.count
    assert [hex(w) for w in samples(words)] == [hex(w) for w in case.samples]
    assert checksum(words) == case.checksum


def _of(op: str) -> list[Case]:
    return [case for case in load() if case.op == op]


@pytest.mark.parametrize("isa", _core.available_isas())
@pytest.mark.parametrize("op", CHECKS)
def test_kernels_have_the_golden_bits(op: str, isa: str) -> None:
    _core.set_isa(isa)
    assert _core.isa() == isa
    for case in _of(op):
        try:
            assert_golden(case, CHECKS[op](case))
        except AssertionError as error:
            raise AssertionError(f"{isa}, case {case}: {error}") from error


@pytest.mark.parametrize("isa", _core.available_isas())
def test_prefill_has_the_golden_bits_of_decoding(isa: str) -> None:
    _core.set_isa(isa)
    for case in _of("attention"):
        if case.k == 64:
            assert_golden(case, _attention(case, new=case.position + 1))


def test_every_case_is_checked() -> None:
    assert {case.op for case in load()} == CHECKS.keys() | SPEC_ONLY


def test_version_of_the_file_is_the_version_of_the_core() -> None:
    assert FILE.read_text().splitlines()[0] == f"# numerics version {_core.numerics_version}"


@pytest.mark.parametrize("control", sorted(CONTROLS))
def test_another_order_differs(control: str) -> None:
    """Negative control: the same inputs summed in leaves of 128, or bf16 ones in a chain."""
    (other,) = _of(control)
    (same,) = (case for case in _of("linear") if case.seed == other.seed)
    words = words_of(*_linear(same))
    assert checksum(words) == same.checksum
    assert checksum(words) != other.checksum
