"""The real Inspect, offline, on a model of bitlens. Its packages are installed by the nightly."""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bitlens
import pytest
from bitlens.audit.evaluations import read_run
from bitlens.audit.harness import sample_seed
from bitlens.model.transformer import HookedTransformer
from support.harness_tasks import TEMPLATE, write_sums
from support.speaking_llama import write_speaking_llama

pytest.importorskip("inspect_ai", reason="extra inspect is not installed")
pytestmark = pytest.mark.filterwarnings("ignore:the chat template marks turns by plain text")
ROOT = Path(bitlens.__file__).resolve().parent
Run = Callable[..., Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_speaking_llama(tmp_path_factory.mktemp("inspect"), max_position_embeddings=160)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> HookedTransformer:
    return bitlens.load(folder)


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Inspect's log of the sums, which `options` say how to answer."""
    import bitlens.audit.harness.inspect_provider  # noqa: F401  (as the entry point does)
    import inspect_ai
    from inspect_ai.dataset import Sample
    from inspect_ai.scorer import includes
    from inspect_ai.solver import generate

    rows = write_sums(tmp_path_factory.mktemp("sums") / "sums.jsonl", n=6)
    samples = [
        Sample(id=f"sum {row['id']}", input=row["question"], target=row["choices"][0])
        for row in rows
    ]

    def evaluate(logs: Path | None = None, **options: Any) -> Any:
        task = inspect_ai.Task(samples, solver=generate(), scorer=includes(), name="sums")
        where = logs or tmp_path_factory.mktemp("logs")
        (log,) = inspect_ai.eval(
            task,
            model=f"bitlens/{folder}",
            log_dir=str(where),
            log_format="json",
            display="none",
            **({"max_tokens": 8} | options),
        )
        assert log.status == "success", log.error
        return log

    return evaluate


def alone(model: HookedTransformer, sample: Any, **options: Any) -> str:
    messages = [{"role": "user", "content": sample.input}]
    (text,) = model.generate(messages, max_new_tokens=8, **options).text
    return text


def test_a_greedy_answer_is_that_of_generate(model: HookedTransformer, run: Run) -> None:
    log = run(logprobs=True, top_logprobs=2)
    assert [sample.id for sample in log.samples] == [f"sum {i}" for i in range(6)]
    for sample in log.samples:
        messages = [{"role": "user", "content": sample.input}]
        expected = model.generate(messages, max_new_tokens=8, logprobs=2)
        assert sample.output.completion == expected.text[0]
        (choice,) = sample.output.choices
        n = expected.n_new[0]
        assert (
            choice.stop_reason
            == {"stop": "stop", "length": "max_tokens"}[expected.finish_reason[0]]
        )
        assert expected.logprobs is not None
        found = [each.logprob for each in choice.logprobs.content]
        assert found == expected.logprobs[0, :n].tolist()
        assert all(each.top_logprobs[0].logprob == each.logprob for each in choice.logprobs.content)
        assert sample.output.usage.output_tokens == n


def test_a_sampled_answer_can_be_drawn_again_from_its_ids(
    model: HookedTransformer, run: Run
) -> None:
    log = run(temperature=1.0, seed=5, epochs=2)
    assert len(log.samples) == 12
    for sample in log.samples:
        seed = sample_seed(5, sample.id, sample.epoch)
        assert sample.output.metadata == {"seed": seed}
        assert sample.output.completion == alone(model, sample, temperature=1.0, seed=seed)


def test_neither_connections_nor_a_limit_move_an_answer(run: Run) -> None:
    options = {"temperature": 1.0, "seed": 5}
    whole = run(max_connections=6, **options).samples
    for part in (run(max_connections=1, **options).samples, run(limit=2, **options).samples):
        expected = [sample.output.completion for sample in whole[: len(part)]]
        assert [sample.output.completion for sample in part] == expected
    other = run(**options | {"seed": 6}).samples
    assert [x.output.completion for x in other] != [x.output.completion for x in whole]


def test_its_logs_keep_the_ids(run: Run, tmp_path: Path) -> None:
    log = run(tmp_path)
    (task,) = read_run(tmp_path).tasks.values()
    assert list(task) == [f"sum {i}" for i in range(6)]
    prompts = {item.prompt for item in task.values()}
    assert len(prompts) == len({(sample.input, sample.target) for sample in log.samples}) > 1


def asked(folder: Path, messages: Any = None, tools: Any = (), **settings: Any) -> Any:
    """One answer, asked without an evaluation."""
    from bitlens.audit.harness.inspect_model import InspectModel
    from inspect_ai.model import ChatMessageUser, GenerateConfig

    said = messages or [ChatMessageUser(content="1 + 1 =")]
    config = GenerateConfig(**({"max_tokens": 4} | settings))
    provider = InspectModel(str(folder))
    return asyncio.run(provider.generate(said, list(tools), "auto", config))


def test_several_choices_are_samples_of_one_request(folder: Path, model: HookedTransformer) -> None:
    output = asked(folder, num_choices=3, temperature=1.0, seed=9)
    messages = [{"role": "user", "content": "1 + 1 ="}]
    expected = model.generate(messages, max_new_tokens=4, temperature=1.0, seed=9, n=3)
    assert [choice.message.content for choice in output.choices] == expected.text


def test_what_cannot_be_passed_on_is_refused(folder: Path) -> None:
    from inspect_ai.model import ChatMessageTool, ChatMessageUser, ContentImage
    from inspect_ai.tool import ToolInfo

    with pytest.raises(ValueError, match="best_of: bitlens's provider cannot pass this on; known"):
        asked(folder, best_of=2)
    with pytest.raises(ValueError, match="bitlens serve"):
        asked(folder, tools=[ToolInfo(name="add", description="adds")])
    with pytest.raises(ValueError, match="role 'tool'"):
        asked(folder, [ChatMessageTool(content="2")])
    with pytest.raises(ValueError, match="type 'image'"):
        asked(folder, [ChatMessageUser(content=[ContentImage(image="x.png")])])
    with pytest.raises(ValueError, match="context"):
        asked(folder, max_tokens=500)


def test_the_entry_point_names_the_provider() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module = project["entry-points"]["inspect_ai"]["bitlens"]
    assert (ROOT.joinpath(*module.split(".")[1:]).with_suffix(".py")).is_file()
