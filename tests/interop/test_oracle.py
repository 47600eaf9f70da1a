"""The oracle: right samplers pass at the stated rate, wrong ones are caught."""

from __future__ import annotations

import math

import pytest
import torch
from bitlens.model.interop import judge
from bitlens.model.interop.chi_squared import chi_squared, survival
from bitlens.model.sampling import SamplingParams, sample

VOCAB = 400


def _logits(rows: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, VOCAB, generator=torch.Generator().manual_seed(seed)) * 2


def _multinomial(
    logits: torch.Tensor, n: int, *, seed: int, top_k: int, top_p: float = 1.0, t: float = 1.0
) -> torch.Tensor:
    """Another sampler: sorted softmax in fp64, top_k then top_p, torch's multinomial."""
    values, ids = (logits.double() / t).sort(dim=1, descending=True)
    values[:, top_k:] = -torch.inf
    probabilities = values.softmax(dim=1)
    probabilities[probabilities.cumsum(dim=1) - probabilities >= top_p] = 0
    generator = torch.Generator().manual_seed(seed)
    drawn = probabilities.multinomial(n, replacement=True, generator=generator)
    return ids.gather(1, drawn)


PARAMS = SamplingParams(top_k=50, top_p=0.9)


def test_a_right_sampler_passes_at_the_stated_rate() -> None:
    """300 verdicts at 5 %: between 3 and 30 false alarms, a right oracle misses that < 1e-4."""
    logits = _logits(3, seed=0)
    reports = [
        judge(logits, PARAMS, _multinomial(logits, 400, seed=s, top_k=50, top_p=0.9))
        for s in range(300)
    ]
    assert not any(report.impossible.any() for report in reports)
    alarms = sum(not report.passes(0.05) for report in reports)
    assert 3 <= alarms <= 30


@pytest.mark.parametrize(
    ("wrong", "impossible"),
    [
        ({"top_k": 51, "top_p": 1.0}, True),
        ({"top_k": 49, "top_p": 1.0}, False),
        ({"top_k": 50, "top_p": 1.0, "t": 1.15}, False),
        ({"top_k": 50, "top_p": 0.97}, False),
    ],
)
def test_wrong_samplers_are_caught(wrong: dict[str, float], impossible: bool) -> None:
    logits = _logits(4, seed=1)
    params = SamplingParams(top_k=50)
    tokens = _multinomial(logits, 20_000, seed=2, **wrong)  # type: ignore[arg-type]
    report = judge(logits, params, tokens)
    assert bool(report.impossible.any()) == impossible
    assert not report.passes()
    right = judge(logits, params, _multinomial(logits, 20_000, seed=2, top_k=50))
    assert right.passes()


def test_exactly_the_impossible_tokens_are_named() -> None:
    logits = torch.tensor([[3.0, 1.0, 3.0, 0.0, 1.0], [0.0, 5.0, 5.0, 5.0, -torch.inf]])
    tokens = torch.arange(5).expand(2, 5)
    report = judge(logits, SamplingParams(top_k=3), tokens)
    # Ties stay by id: 1 before 4; and of three equals all.
    assert report.impossible.tolist() == [
        [False, False, False, True, True],
        [True, False, False, False, True],
    ]
    assert report.kept.tolist() == [3, 3]
    beyond = judge(logits, SamplingParams(top_k=3), torch.tensor([[-1, 5], [1, 2]]))
    assert beyond.impossible.tolist() == [[True, True], [False, False]]


def test_masks_penalties_and_greedy_count() -> None:
    logits = torch.tensor([[2.0, 1.9, 0.0, -1.0]])
    tokens = torch.tensor([[0, 1, 2, 3]])

    def impossible(params: SamplingParams, **ids: list[list[int]]) -> list[bool]:
        found: list[bool] = judge(logits, params, tokens, **ids).impossible[0].tolist()
        return found

    assert impossible(SamplingParams(allowed_token_ids=[1, 3])) == [True, False, True, False]
    assert impossible(SamplingParams(temperature=0)) == [False, True, True, True]
    penalised = SamplingParams(temperature=0, presence_penalty=0.5)
    assert impossible(penalised, output_ids=[[0]]) == [True, False, True, True]
    # Greedy leaves nothing to test, and passes with the right token alone.
    assert judge(logits, SamplingParams(temperature=0), torch.tensor([[0, 0]])).passes()


def test_bitlens_passes_its_own_oracle_draw_for_draw() -> None:
    logits = _logits(2, seed=3)
    params = [
        SamplingParams(top_k=50, seed=7),
        SamplingParams(top_p=0.8, temperature=1.4, seed=8),
    ]
    n = 2000
    tokens = torch.stack(
        [sample(logits, params, positions=[4, 9], draws=[j, j]).tokens for j in range(n)], dim=1
    )
    report = judge(logits, params, tokens, positions=[4, 9])
    assert report.different is not None
    assert not report.different.any()
    assert report.passes()
    tokens[1, 5] = (tokens[1, 5] + 1) % VOCAB
    changed = judge(logits, params, tokens, positions=[4, 9]).different
    assert changed is not None
    assert changed.nonzero().tolist() == [[1, 5]]


def test_refusals() -> None:
    logits = _logits(2, seed=4)
    few = torch.zeros(2, 3, dtype=torch.int64) + logits.argmax(dim=1, keepdim=True)
    report = judge(logits, SamplingParams(), few)
    assert report.p_value is None
    with pytest.raises(ValueError, match="too few draws"):
        report.passes()
    for bad in (few[:1], few[0], few.float()):
        with pytest.raises(ValueError, match="tokens: expected integers"):
            judge(logits, SamplingParams(), bad)
    with pytest.raises(ValueError, match="needs a seed"):
        judge(logits, SamplingParams(), few, positions=[0, 0])
    logits[1, 7] = torch.nan
    with pytest.raises(ValueError, match="row 1"):
        judge(logits, SamplingParams(), few)


def test_survival_function_against_closed_forms() -> None:
    """Two degrees: exp(-x/2); one: erfc(sqrt(x/2)); four: exp(-x/2) (1 + x/2)."""
    for x in (0.01, 0.5, 3.84, 10.0, 60.0):
        assert survival(x, 2) == pytest.approx(math.exp(-x / 2), rel=1e-12)
        assert survival(x, 1) == pytest.approx(math.erfc(math.sqrt(x / 2)), rel=1e-10)
        assert survival(x, 4) == pytest.approx(math.exp(-x / 2) * (1 + x / 2), rel=1e-12)
    # The tables' 5 % points.
    for degrees, x in ((1, 3.841), (10, 18.307), (100, 124.342)):
        assert survival(x, degrees) == pytest.approx(0.05, abs=2e-5)


def test_small_cells_are_pooled() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.1, 0.06, 0.04], dtype=torch.float64)
    observed = torch.tensor([12, 4, 3, 1, 0])
    # Of 20 draws the cells expect 10, 6 and 2, 1.2, 0.8: the last three go to the second.
    statistic, degrees = chi_squared(observed, probabilities)
    assert degrees == 1
    assert statistic == pytest.approx(4 / 10 + 4 / 10)
    # Of 100: 50, 30, 10, 6 and 4, which goes to the fourth.
    statistic, degrees = chi_squared(observed * 5, probabilities)
    assert degrees == 3
    assert statistic == pytest.approx(100 / 50 + 100 / 30 + 25 / 10 + 25 / 10)
    assert chi_squared(observed // 4, probabilities)[1] == 0


def test_typical_tokens() -> None:
    logits, draws = _logits(3, seed=5), 400
    p = SamplingParams(typical_p=0.6, top_p=0.95, seed=1)
    tokens = torch.stack(
        [sample(logits, p, positions=[0, 1, 2], draws=[i] * 3).tokens for i in range(draws)], dim=1
    )
    report = judge(logits, p, tokens)
    assert report.passes()
    assert not report.impossible.any()
    nucleus = judge(logits, p, _multinomial(logits, draws, seed=1, top_k=VOCAB, top_p=0.95))
    assert nucleus.impossible.any()
