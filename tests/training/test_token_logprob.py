"""The log-probability of a token: the sampler's bits, and a gradient within its bound."""

from __future__ import annotations

import bitlens
import pytest
import torch
from bitlens.model.sampling import SamplingParams, sample
from bitlens.model.training import token_logprob

U = 2.0**-24
LOGITS = torch.randn(64, 1031, generator=torch.Generator().manual_seed(0)) * 5


@pytest.mark.parametrize("temperature", [1.0, 0.7, 1e-6])
def test_it_has_the_bits_that_the_sampler_reports(temperature: float) -> None:
    params = SamplingParams(temperature=temperature, top_p=0.9, logprobs=0, seed=7)
    drawn = sample(LOGITS, params, positions=range(len(LOGITS)))
    assert drawn.logprobs is not None
    found = token_logprob(LOGITS, drawn.tokens, temperature)
    assert torch.equal(found, drawn.logprobs)
    torchs = torch.log_softmax(LOGITS / max(temperature, 0.7), -1).gather(1, drawn.tokens[:, None])
    assert not torch.equal(found, torchs[:, 0])


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_the_gradient_is_within_its_bound_of_fp64(temperature: float) -> None:
    """A probability errs by the roundings of x, of x - max, of exp, of the quotient and of the
    weights in the sum; then a difference, a product and a quotient round. Subnormal numbers err by
    2^-150 each time, divided by a temperature."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, LOGITS.shape[1], (len(LOGITS),), generator=generator)
    g = torch.randn(len(LOGITS), generator=generator)
    logits = LOGITS.clone().requires_grad_()
    token_logprob(logits, ids, temperature).backward(g)
    exact = LOGITS.double().requires_grad_()
    torch.log_softmax(exact / temperature, -1).gather(1, ids[:, None])[:, 0].backward(g.double())
    assert logits.grad is not None
    assert exact.grad is not None
    x = LOGITS.double() / temperature
    p, top = torch.softmax(x, -1), x.amax(-1, keepdim=True)
    hot = torch.nn.functional.one_hot(ids, LOGITS.shape[1])
    of_p = p * (U * (2 * x.abs() + 2 * top.abs() + (x - top).abs() + 8) + x.shape[1] * 2**-45)
    bound = (g.abs() / temperature)[:, None] * (of_p + 3 * U * (hot - p).abs())
    error = (logits.grad.double() - exact.grad).abs()
    tiny = 4 * 2**-150 * (1 + g.abs())[:, None] / temperature
    assert bool((error <= bound * (1 + 2**-20) + tiny).all())
    assert float((error / (bound + tiny)).max()) > 0.01


def test_threads_and_shapes_move_no_bit() -> None:
    ids = torch.arange(64) * 16
    bitlens.set_num_threads(1)
    one = token_logprob(LOGITS, ids)
    bitlens.set_num_threads(2)
    shaped = token_logprob(LOGITS.view(4, 16, -1), ids.view(4, 16))
    assert torch.equal(shaped.flatten(), one)
    assert torch.equal(token_logprob(LOGITS[:1], ids[:1]), one[:1])


def test_a_row_that_cannot_be_sampled_is_nan() -> None:
    logits = LOGITS[:3].clone()
    logits[0, 5], logits[1] = torch.nan, -torch.inf
    found = token_logprob(logits, torch.tensor([1, 2, 3]))
    assert found.isnan().tolist() == [True, True, False]


def test_what_does_not_fit_is_refused() -> None:
    ids = torch.zeros(64, dtype=torch.int64)
    with pytest.raises(TypeError, match="fp32 logits"):
        token_logprob(LOGITS.double(), ids)
    with pytest.raises(ValueError, match="one id for each row"):
        token_logprob(LOGITS, ids[:3])
    with pytest.raises(ValueError, match="the vocabulary is 0 "):
        token_logprob(LOGITS, ids + 1031)
    with pytest.raises(ValueError, match="temperature = -1"):
        token_logprob(LOGITS, ids, -1.0)
