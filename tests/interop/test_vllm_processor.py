"""Behind vLLM's interface: one finite token a row, the one that `sample` chooses."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from bitlens.model.interop import vllm_processor
from bitlens.model.sampling import SamplingParams, sample
from support import vllm_interface
from support.vllm_interface import BatchUpdate, MoveDirectionality, VllmSamplingParams

VOCAB = 97


@pytest.fixture
def processor() -> Any:
    """As vLLM makes one: a subclass of its interface, from the engine's configuration."""
    with vllm_interface.installed():
        module = importlib.reload(vllm_processor)
    cls = module.ExactLogitsProcessor
    assert issubclass(cls, vllm_interface.LogitsProcessor)
    yield cls(vllm_config=object(), device=torch.device("cpu"), is_pin_memory=False)
    importlib.reload(vllm_processor)


PARAMS = [
    VllmSamplingParams(seed=11, temperature=0.7, top_k=20, top_p=0.9),
    VllmSamplingParams(seed=12, top_p=0.95, min_p=0.05),
    VllmSamplingParams(temperature=0.0),
    VllmSamplingParams(
        seed=-3, repetition_penalty=1.3, frequency_penalty=0.4, presence_penalty=0.2
    ),
    VllmSamplingParams(seed=14, temperature=1.5, top_k=-1),
]
PROMPTS = [[3, 4, 5], [6], [7, 8], [9, 9, 10, 11], [12, 13]]


def _expected(logits_V: torch.Tensor, i: int, output: list[int]) -> int:
    p = PARAMS[i]
    params = SamplingParams(
        temperature=p.temperature,
        top_k=p.top_k,
        top_p=p.top_p,
        min_p=p.min_p,
        repetition_penalty=p.repetition_penalty,
        frequency_penalty=p.frequency_penalty,
        presence_penalty=p.presence_penalty,
        seed=(p.seed or 0) % 2**64,
    )
    found = sample(
        logits_V[None],
        params,
        positions=[len(PROMPTS[i]) + len(output)],
        prompt_ids=[PROMPTS[i]],
        output_ids=[output],
    )
    return int(found.tokens[0])


def test_a_changing_batch_samples_each_request_as_if_alone(processor: Any) -> None:
    """Requests come, go and move between rows; vLLM grows their lists of output ids itself."""
    torch.manual_seed(0)
    logits_of = torch.randn(len(PARAMS), 8, VOCAB) * 3  # [request, step, vocabulary]
    outputs: list[list[int]] = [[] for _ in PARAMS]
    swap, one_way = MoveDirectionality.SWAP, MoveDirectionality.UNIDIRECTIONAL
    added = [(row, PARAMS[row], PROMPTS[row], outputs[row]) for row in range(5)]
    updates: list[tuple[list[int], BatchUpdate | None]] = [
        ([0, 1, 2], BatchUpdate(3, added=added[:3])),
        ([0, 1, 2], None),
        ([1, 0, 2], BatchUpdate(3, moved=[(0, 1, swap)])),
        ([1, 3, 2], BatchUpdate(3, removed=[1], added=[(1, *added[3][1:])])),
        ([2, 3], BatchUpdate(2, removed=[0], moved=[(2, 0, one_way)])),
        ([2, 4], BatchUpdate(2, added=[(1, *added[4][1:])])),
        ([4], BatchUpdate(1, removed=[0], moved=[(1, 0, one_way)])),
    ]
    for requests, update in updates:
        processor.update_state(update)
        logits = torch.stack([logits_of[i, len(outputs[i])] for i in requests])
        expected = [_expected(logits[row], i, outputs[i]) for row, i in enumerate(requests)]
        masked = processor.apply(logits)
        assert masked.data_ptr() == logits.data_ptr()
        assert masked.isfinite().sum(dim=1).tolist() == [1] * len(requests)
        taken = vllm_interface.what_vllm_does_next(masked, [PARAMS[i] for i in requests])
        assert taken.tolist() == expected
        for i, token in zip(requests, expected, strict=True):
            outputs[i].append(token)
    assert [len(output) for output in outputs] == [3, 4, 6, 2, 2]


def test_it_runs_where_vllm_runs_what_can_change_the_argmax(processor: Any) -> None:
    assert processor.is_argmax_invariant() is False


def test_bf16_logits_and_fresh_seeds(processor: Any) -> None:
    rows = [(row, VllmSamplingParams(), None, []) for row in range(64)]
    processor.update_state(BatchUpdate(64, added=rows))
    masked = processor.apply(torch.zeros(64, VOCAB, dtype=torch.bfloat16))
    assert masked.dtype == torch.bfloat16
    assert len(set(masked.argmax(dim=1).tolist())) > 16


def test_refusals(processor: Any) -> None:
    for bad in (VllmSamplingParams(top_p=7.0), VllmSamplingParams(temperature=-1.0)):
        with pytest.raises(ValueError, match="expected"):
            processor.validate_params(bad)
    processor.validate_params(PARAMS[0])
    processor.update_state(BatchUpdate(1, added=[(0, PARAMS[0], [1], [])]))
    with pytest.raises(RuntimeError, match="2 rows of logits for requests in rows"):
        processor.apply(torch.zeros(2, VOCAB))
    with pytest.raises(ValueError, match="row 0"):
        processor.apply(torch.full((1, VOCAB), torch.nan))


def test_importable_without_vllm() -> None:
    assert vllm_processor.ExactLogitsProcessor.__mro__[1] is object
