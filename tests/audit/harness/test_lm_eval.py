"""The real lm-evaluation-harness, offline, on models of bitlens."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import bitlens
import pytest
import torch
from bitlens.audit.evaluations import read_run
from bitlens.audit.harness import sample_seed
from bitlens.model.transformer import HookedTransformer
from support.harness_tasks import generation, multiple_choice, rolling, write_sums
from support.http_server import serving
from support.speaking_llama import write_speaking_llama

lm_eval = pytest.importorskip("lm_eval", reason="extra lm-eval is not installed")
Answers = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("harness")
    write_sums(folder / "sums.jsonl")
    return write_speaking_llama(folder / "model", max_position_embeddings=160).parent


@pytest.fixture(scope="module")
def model(folder: Path) -> HookedTransformer:
    return bitlens.load(folder / "model")


def adapter(model: HookedTransformer, **options: Any) -> Any:
    from bitlens.audit.harness.lm_eval_model import LmEvalModel

    return LmEvalModel(model, **options)


@pytest.fixture(scope="module")
def answers(model: HookedTransformer) -> Answers:
    """The harness's sample logs of one task, in their order."""
    from lm_eval.tasks import TaskManager

    # Without the thousands of tasks that come with it, which take seconds to list.
    manager = TaskManager(include_defaults=False)

    def run(task: Mapping[str, Any], **options: Any) -> list[dict[str, Any]]:
        its_own = {name: options.pop(name) for name in ("limit", "seeds") if name in options}
        seeds = {"torch_random_seed": its_own.pop("seeds")} if "seeds" in its_own else {}
        found = lm_eval.simple_evaluate(
            adapter(model, **options),
            tasks=[dict(task)],
            task_manager=manager,
            log_samples=True,
            bootstrap_iters=0,
            **its_own,
            **seeds,
        )
        samples: list[dict[str, Any]] = found["samples"][task["task"]]
        return samples

    return run


def logprob(model: HookedTransformer, context: str, text: str) -> float:
    """ln p of a text by one pass over it alone, summed without rounding."""
    ids, n = model.to_tokens(context + text), model.to_tokens(context).shape[1]
    return math.fsum(model.logprobs(ids)[0, n:].tolist())


def instance(kind: str, *arguments: Any, doc_id: int = 0) -> Any:
    from lm_eval.api.instance import Instance

    return Instance(kind, {}, arguments, 0, ("task", doc_id, 1))


def test_choices_are_scored_with_the_bits_of_the_forward_pass(
    model: HookedTransformer, answers: Answers, folder: Path
) -> None:
    samples = answers(multiple_choice(folder / "sums.jsonl"), batch_size=5)
    assert [sample["doc_id"] for sample in samples] == list(range(12))
    for sample in samples:
        context = sample["arguments"][0][0]
        for (found, _), choice in zip(
            sample["filtered_resps"], sample["doc"]["choices"], strict=True
        ):
            assert found == logprob(model, context, " " + choice)
            assert found != logprob(model, context, "  " + choice)  # the control


def test_neither_batches_nor_a_limit_move_an_answer(answers: Answers, folder: Path) -> None:
    path = folder / "sums.jsonl"
    for task in (multiple_choice(path), generation(path, do_sample=True, temperature=1.0)):
        whole = [sample["resps"] for sample in answers(task, batch_size=7)]
        for batch_size in (1, 3, "auto"):
            part = answers(task, batch_size=batch_size, limit=5)
            assert [sample["resps"] for sample in part] == whole[:5]


def test_its_logs_keep_the_ids(answers: Answers, folder: Path, tmp_path: Path) -> None:
    from lm_eval.loggers import EvaluationTracker

    task = multiple_choice(folder / "sums.jsonl")
    samples = answers(task)
    tracker = EvaluationTracker(output_path=str(tmp_path))
    tracker.date_id = "2026-01-01T00-00-00"  # which it takes when it saves the summary
    tracker.save_results_samples(task["task"], samples)
    ((name, items),) = read_run(tmp_path).tasks.items()
    assert name == "sums_choice acc"
    assert {key: item.score for key, item in items.items()} == {
        sample["doc_id"]: sample["acc"] for sample in samples
    }
    assert {item.score for item in items.values()} == {0.0, 1.0}


def test_a_greedy_answer_is_that_of_generate(
    model: HookedTransformer, answers: Answers, folder: Path
) -> None:
    for sample in answers(generation(folder / "sums.jsonl"), batch_size=4):
        context = sample["arguments"][0][0]
        alone = model.generate(context, max_new_tokens=8, stop="\n")
        assert sample["resps"] == [alone.text]


def test_a_sampled_answer_can_be_drawn_again_from_its_ids(
    model: HookedTransformer, answers: Answers, folder: Path
) -> None:
    task = generation(folder / "sums.jsonl", repeats=2, do_sample=True, temperature=1.0)
    for sample in answers(task, seed=11):
        context = sample["arguments"][0][0]
        for repetition, found in enumerate(sample["resps"][0]):
            seed = sample_seed(11, task["task"], sample["doc_id"], 0, repetition)
            options = {"max_new_tokens": 8, "stop": "\n", "temperature": 1.0, "seed": seed}
            assert model.generate(context, **options).text == [found]
        assert sample["resps"][0][0] != sample["resps"][0][1]


def test_the_harnesss_own_seed_decides_where_no_other_is_given(
    answers: Answers, folder: Path
) -> None:
    task = generation(folder / "sums.jsonl", do_sample=True, temperature=1.0)
    first, again, other = (
        [sample["resps"] for sample in answers(task, seeds=seed)] for seed in (3, 3, 4)
    )
    assert first == again
    assert first != other


def test_contexts_are_read_once(model: HookedTransformer) -> None:
    lm = adapter(model, batch_size=2)
    question = "Add two numbers, and give the sum alone. " * 3
    requests = [instance("loglikelihood", question, f" {i}") for i in range(8)]
    lm.loglikelihood(requests, disable_tqdm=True)
    n = model.to_tokens(question.rstrip()).shape[1] - 1
    assert lm.engine.cache.stats().hit_tokens >= 8 * n


def test_a_whole_text_is_scored_in_windows(
    model: HookedTransformer, answers: Answers, folder: Path
) -> None:
    """One that fits by one pass; of a longer one, each token once, with a full window before."""
    for sample in answers(rolling(folder / "sums.jsonl")):
        text = sample["arguments"][0][0]
        ids = torch.tensor([[0, *model.to_tokens(text)[0].tolist()]])
        assert sample["resps"] == [[math.fsum(model.logprobs(ids)[0, 1:].tolist())]]
    ids = model.to_tokens("seventeen and twenty-five are forty-two")[0].tolist()
    text, size = model.to_string(ids), 16
    lm = adapter(model, max_length=size)
    (found,) = lm.loglikelihood_rolling([instance("loglikelihood_rolling", text)], True)
    starts = [0, *ids]
    scored: list[float] = []
    for end in [*range(size, len(ids), size), len(ids)]:
        new = len(range(len(scored), end))
        window = torch.tensor([starts[max(0, end - size) : end + 1]])
        scored += model.logprobs(window)[0, -new:].tolist()
    assert len(scored) == len(ids)
    assert found == math.fsum(scored)


def test_what_is_too_long_is_an_error_unless_it_may_be_cut(model: HookedTransformer) -> None:
    question = "1 + 1 = 2, " * 20
    request = instance("loglikelihood", question, "3")
    with pytest.raises(ValueError, match="truncation=True"):
        adapter(model).loglikelihood([request], disable_tqdm=True)
    lm = adapter(model, truncation=True)
    ((found, _),) = lm.loglikelihood([request], disable_tqdm=True)
    whole = model.to_tokens(question + "3")
    n_scored = whole.shape[1] - model.to_tokens(question.rstrip()).shape[1]
    cut = whole[:, -(model.config.n_ctx + 1) :]
    read, last = cut[:, :-1], cut[0, -n_scored:]
    logits = model(read)[0, -n_scored:]
    expected = bitlens.model.training.token_logprob(logits, last)
    assert found == math.fsum(expected.tolist())
    asked = instance("generate_until", "1 + 1", {"max_gen_toks": 200})
    with pytest.raises(ValueError, match="an answer of 200 tokens"):
        lm.generate_until([asked], disable_tqdm=True)


def test_words_that_cannot_be_passed_on_are_refused(model: HookedTransformer) -> None:
    request = instance("generate_until", "1 + 1", {"until": [], "num_beams": 4})
    with pytest.raises(ValueError, match="num_beams cannot be passed on to bitlens; known are"):
        adapter(model).generate_until([request], disable_tqdm=True)
    with pytest.raises(ValueError, match="gen_prefix"):
        adapter(model).apply_chat_template([{"role": "user", "content": "1"}], False)


def test_the_harness_finds_the_model_by_its_name(folder: Path) -> None:
    from bitlens.audit.harness.lm_eval_model import LmEvalModel
    from lm_eval.api.registry import get_model

    found = get_model("bitlens")
    assert found is LmEvalModel
    lm = found.create_from_arg_string(
        f"pretrained={folder / 'model'},dtype=bf16", {"batch_size": "2", "device": None}
    )
    assert (lm.model.ops.policy.name, lm.batch_size) == ("bf16", 2)


def test_the_server_gives_the_adapters_answers(
    model: HookedTransformer, folder: Path, tmp_path: Path
) -> None:
    """lm-evaluation-harness's own client against `bitlens serve`: one sum's rounding apart."""
    from lm_eval.models.openai_completions import LocalCompletionsAPI
    from lm_eval.tasks import TaskManager
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    own = model.tokenizer
    assert own is not None
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(own.definition), eos_token=own.token(own.eos_ids[0])
    ).save_pretrained(tmp_path)

    def samples(lm: Any, task: dict[str, Any]) -> list[Any]:
        found = lm_eval.simple_evaluate(
            lm,
            tasks=[task],
            task_manager=TaskManager(include_defaults=False),
            log_samples=True,
            bootstrap_iters=0,
        )
        return [sample["resps"] for sample in found["samples"][task["task"]]]

    path = folder / "sums.jsonl"
    for server in serving({"only": model}):
        for batch_size in (1, 5):
            client = LocalCompletionsAPI(
                base_url=f"{server.url}/v1/completions",
                model="tiny",
                tokenizer=str(tmp_path),
                tokenizer_backend="huggingface",
                batch_size=batch_size,
                max_length=model.config.n_ctx,
            )
            theirs, ours = (samples(lm, multiple_choice(path)) for lm in (client, adapter(model)))
            for a, b in zip(theirs, ours, strict=True):
                for ((x, greedy),), ((y, also),) in zip(a, b, strict=True):
                    assert x == pytest.approx(y, rel=2**-50)  # a choice has a few tokens
                    assert greedy == also
            written = generation(path)
            assert samples(client, written) == samples(adapter(model), written)
