"""first_divergence on models small enough to know the answer."""

from __future__ import annotations

import json
import math
import threading
from typing import Any

import pytest
import torch
from bitlens.precision.divergence import difference, first_divergence
from hypothesis import given
from hypothesis import strategies as st
from support.addressed_toy import ORDER, Toy

TOKENS = torch.arange(9)


def _bump(original: Any, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    y: torch.Tensor = original(x, w)
    y = y.clone()
    y[-1, 0] += 0.5
    return y


def _wrong_token(original: Any, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return -original(x, w)  # type: ignore[no-any-return]


def test_equal_models_do_not_diverge() -> None:
    for mode in ("free", "lockstep"):
        found = first_divergence(Toy(), Toy(), TOKENS, mode)  # type: ignore[arg-type]
        assert found.first is None
        assert [row.address for row in found.table] == list(ORDER)
        assert all(row.judge == "bits" for row in found.table)
        assert "no operation of 4 differs" in str(found)


@pytest.mark.parametrize("at", ORDER)
def test_lockstep_names_the_operation_and_swap_heals_it(at: str) -> None:
    a, b = Toy(), Toy()
    with b.override(at, _wrong_token):
        free = first_divergence(a, b, TOKENS)
        lockstep = first_divergence(a, b, TOKENS, "lockstep")
        swap = first_divergence(a, b, TOKENS, "swap")
        upcast = first_divergence(a, b, TOKENS, "swap", replacement="upcast")
    assert free.first == at
    assert lockstep.created == (at,)
    assert swap.token_a != swap.token_b
    assert swap.restores == (at,)
    assert upcast.restores[0] == at
    assert at in str(lockstep)
    assert at in str(swap)


def test_one_model_may_be_both_sides() -> None:
    model = Toy()
    assert first_divergence(model, model, TOKENS, "lockstep").first is None
    assert not any(model.installed.values())


def test_alignment_is_by_address_not_by_order() -> None:
    swapped = ("embed", "right", "left", "unembed")
    b = Toy(order=swapped)
    with b.override("left", _bump):
        found = first_divergence(Toy(), b, TOKENS, "lockstep")
    assert [row.address for row in found.table] == list(swapped)
    assert found.created == ("left",)
    assert found.row("left").at == (8, 0)


def test_what_only_one_model_has_is_listed() -> None:
    class Fewer(Toy):
        @property
        def op_addresses(self) -> list[str]:
            return [name for name in self.order if name != "left"]

    found = first_divergence(Toy(), Fewer(), TOKENS, "lockstep")
    assert (found.only_a, found.only_b) == (("left",), ())
    # The difference made at "left" is then created by the stretch that ends at "unembed".
    fewer = Fewer()
    with fewer.override("left", _bump):
        assert first_divergence(Toy(), fewer, TOKENS, "lockstep").created == ("unembed",)


def test_across_dtypes_rounding_is_no_divergence_and_a_fault_is() -> None:
    a, b = Toy(), Toy(torch.bfloat16)
    found = first_divergence(a, b, TOKENS, "lockstep")
    assert found.created == ()
    assert all(row.judge == "relative" for row in found.table)
    free = found.row("unembed").free
    assert free is not None
    assert 0 < free.error < 0.05
    with b.override("right", _bump):
        assert first_divergence(a, b, TOKENS, "lockstep").created == ("right",)


def test_judged_by_contract_only_a_proven_violation_counts() -> None:
    a, b = Toy(), Toy()

    def other_order(original: Any, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return original(x.flip(-1), w.flip(0))  # type: ignore[no-any-return]

    with b.override("right", other_order):
        assert first_divergence(a, b, TOKENS, "lockstep").created == ("right",)
        by_contract = first_divergence(a, b, TOKENS, "lockstep", judge="contract")
        assert by_contract.created == ()
    with b.override("right", _bump):
        by_contract = first_divergence(a, b, TOKENS, "lockstep", judge="contract")
    assert by_contract.created == ("right",)
    assert "matmul[8, 0]" in str(by_contract.row("right").violation)


def test_amplification_counts_what_entered() -> None:
    a, b = Toy(), Toy()

    def nudged(original: Any, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return original(x, w) * (1 + 2**-10)  # type: ignore[no-any-return]

    def tenfold(original: Any, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        # Both models run it: an operation ten times as sensitive as it looks.
        y: torch.Tensor = original(x, w)
        return y + 9 * (y - clean)

    clean = a._op("right", a._op("embed", torch.nn.functional.one_hot(TOKENS, 11).float()))
    with a.override("right", tenfold), b.override("right", tenfold), b.override("embed", nudged):
        found = first_divergence(a, b, TOKENS, "lockstep")
    assert found.created == ("embed",)
    assert found.row("left").amplification == pytest.approx(1, abs=0.02)
    assert found.row("right").amplification == pytest.approx(10, rel=0.05)
    assert found.amplified[0] == "right"


def test_a_failing_model_fails_the_comparison_and_leaves_nothing_behind() -> None:
    a, b = Toy(), Toy()

    def broken(original: Any, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        raise FloatingPointError("broken here")

    threads = threading.active_count()
    for model in (a, b):
        for mode in ("free", "lockstep", "swap"):
            with (
                model.override("right", broken),
                pytest.raises(FloatingPointError, match="broken here"),
            ):
                first_divergence(a, b, TOKENS, mode)  # type: ignore[arg-type]
    assert not any([*a.installed.values(), *b.installed.values()])
    assert threading.active_count() == threads


def test_swap_tries_what_was_asked_and_nothing_where_the_tokens_agree() -> None:
    a, b = Toy(), Toy()
    assert first_divergence(a, b, TOKENS, "swap").table == ()
    with b.override("left", _wrong_token), b.override("unembed", _bump):
        found = first_divergence(a, b, TOKENS, "swap", addresses=["left"])
    assert [row.address for row in found.table] == ["left"]


def test_bad_arguments_are_named() -> None:
    a = Toy()
    for arguments, message in (
        ({"mode": "fast"}, "mode = 'fast'"),
        ({"judge": "eye"}, "judge = 'eye'"),
        ({"mode": "swap", "replacement": "c"}, "replacement = 'c'"),
        ({"tokens": [1, 2]}, "int64 tensor"),
        ({"tokens": torch.zeros(3)}, "int64 tensor"),
        ({"tokens": torch.zeros(0, dtype=torch.int64)}, "shape"),
        ({"mode": "swap", "tokens": torch.zeros(2, 3, dtype=torch.int64)}, "one sequence"),
        ({"mode": "swap", "addresses": ["up"]}, "'up' is no operation"),
        ({"model_b": Toy(width=8)}, "at embed cannot be compared"),
    ):
        call: dict[str, Any] = {"model_a": a, "model_b": Toy(), "tokens": TOKENS, **arguments}
        with pytest.raises(ValueError, match=message):
            first_divergence(**call)


def test_json_holds_every_row_and_is_json() -> None:
    b = Toy()
    with b.override("left", _bump):
        found = first_divergence(Toy(), b, TOKENS, "lockstep")
    read = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert read["first"] == "left"
    assert read["created"] == ["left"]
    assert [row["address"] for row in read["table"]] == list(ORDER)


values = st.floats(width=32, allow_nan=True, allow_infinity=True)


@given(st.lists(st.tuples(values, values), min_size=1, max_size=8))
def test_difference_is_the_definition(pairs: list[tuple[float, float]]) -> None:
    a, b = (torch.tensor(column) for column in zip(*pairs, strict=True))
    found = difference(a, b)
    same = [x == y or (math.isnan(x) and math.isnan(y)) for x, y in pairs]
    finite = [math.isfinite(x) and math.isfinite(y) for x, y in pairs]
    if not all(s or f for s, f in zip(same, finite, strict=True)):
        assert found.error == found.largest == math.inf
        return
    gaps = [0.0 if s else abs(y - x) for s, (x, y) in zip(same, pairs, strict=True)]
    assert found.largest == pytest.approx(max(gaps), rel=1e-6)
    base = math.hypot(*(x for x, _ in pairs if math.isfinite(x)))
    if base > 0:
        assert found.error == pytest.approx(math.hypot(*gaps) / base, rel=1e-4)
    assert found.identical == (max(gaps) == 0 and _bits(a) == _bits(b))


def test_a_zero_of_the_other_sign_is_seen() -> None:
    assert not difference(torch.tensor([0.0, 1.0]), torch.tensor([-0.0, 1.0])).identical


def _bits(x: torch.Tensor) -> list[int]:
    return x.masked_fill(x.isnan(), math.nan).view(torch.int32).tolist()
