"""What `judge` says of samplers with one mistake, and how many draws it said that takes."""

from __future__ import annotations

import pytest
import torch
from bitlens.model.interop import OracleReport, draws_needed, judge
from bitlens.model.sampling import SamplingParams

VOCAB = 400
PARAMS = SamplingParams(temperature=0.8, top_p=0.9)
UNFILTERED = SamplingParams(temperature=0.8)
LOGITS = torch.randn(4, VOCAB, generator=torch.Generator().manual_seed(1)) * 2


def _probabilities(
    *, t: float | None = None, boundary: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sorted, with their ids; fp64. Of all tokens where a temperature is given."""
    values, ids = (LOGITS.double() / (t or 0.8)).sort(dim=1, descending=True)
    p = values.softmax(1)
    if t is not None:
        return p, ids
    before = p.cumsum(1) - p
    kept = before < 0.9
    if not boundary:  # as rasbt/LLMs-from-scratch#164: only tokens within the mass
        kept = p.cumsum(1) < 0.9
    p = p.masked_fill(~kept, 0.0)
    return p / p.sum(1, keepdim=True), ids


def _drawn(
    n: int, seed: int, *, t: float | None = None, boundary: bool = True, shared: bool = False
) -> torch.Tensor:
    """By inverse cumulative sums, in the order of probability."""
    p, ids = _probabilities(t=t, boundary=boundary)
    generator = torch.Generator().manual_seed(seed)
    rows = 1 if shared else len(p)
    uniforms = torch.rand(rows, n, generator=generator, dtype=torch.float64).expand(len(p), -1)
    at = torch.searchsorted(p.cumsum(1), uniforms.contiguous(), right=True)
    return ids.gather(1, at.clamp(max=VOCAB - 1))


def _judged(n: int, seed: int, **mistake: object) -> OracleReport:
    params = UNFILTERED if "t" in mistake else PARAMS
    return judge(LOGITS, params, _drawn(n, seed, **mistake))  # type: ignore[arg-type]


def test_a_temperature_off_by_one_percent() -> None:
    needed = draws_needed(LOGITS, UNFILTERED, "temperature", size=0.01)
    assert 3_000 < needed < 100_000
    caught = [not _judged(needed, s, t=0.8 * 1.01).passes() for s in range(10)]
    assert sum(caught) >= 7
    assert all(_judged(needed, s, t=0.8).passes() for s in range(10))
    report = _judged(needed, 0, t=0.8 * 1.01)
    assert report.draws == needed
    assert report.temperature is not None
    assert report.p_value is not None
    assert report.temperature < report.p_value  # the frequencies alone would not have shown it


def test_top_p_without_its_boundary_token() -> None:
    needed = draws_needed(LOGITS, PARAMS, "boundary")
    assert needed < 20_000
    assert not any(_judged(needed, s, boundary=False).passes() for s in range(5))
    assert all(_judged(needed, s).passes() for s in range(5))
    report = _judged(needed, 0, boundary=False)
    assert report.boundary is not None
    assert report.boundary <= 1e-3 / 4
    assert report.p_value is not None
    assert report.p_value > 1e-3 / 4


def test_one_uniform_for_all_rows() -> None:
    needed = draws_needed(LOGITS, PARAMS, "shared_noise")
    assert needed < 200
    caught = [not _judged(max(needed, 100), s, shared=True).passes() for s in range(5)]
    assert all(caught)
    assert all(_judged(max(needed, 100), s).passes() for s in range(5))
    by_frequency = _judged(max(needed, 100), 0, shared=True).p_value
    assert by_frequency is None or by_frequency > 1e-3  # each row by itself is right


def test_noise_of_each_id_that_rows_share() -> None:
    """Gumbel noise drawn once for all rows: the same token wins too often."""
    p, ids = _probabilities()
    in_order = torch.zeros_like(p).scatter(1, ids, p)
    noise = torch.rand(300, VOCAB, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tokens = (in_order.log()[:, None] - (-noise.log()).log()).argmax(-1)
    report = judge(LOGITS[[0, 0]], PARAMS, tokens[[0, 0]])
    assert report.shared_noise is not None
    assert report.shared_noise < 1e-6
    assert not report.passes()


def test_right_samplers_are_accused_at_the_stated_rate() -> None:
    """200 verdicts at 5 %, by four tests at a quarter of that."""
    alarms = sum(not _judged(200, 1000 + s).passes(0.05) for s in range(200))
    assert alarms <= 22


def test_what_cannot_be_planned_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing is left to chance"):
        draws_needed(LOGITS, SamplingParams(temperature=0), "temperature")
    with pytest.raises(ValueError, match="nothing is left to chance"):
        draws_needed(LOGITS[:1], PARAMS, "shared_noise")
    with pytest.raises(ValueError, match="mistake='drift'"):
        draws_needed(LOGITS, PARAMS, "drift")  # type: ignore[arg-type]
