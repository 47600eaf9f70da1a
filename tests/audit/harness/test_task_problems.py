"""Problems with verifiers in both harnesses: judged as `bitlens think` judges them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import bitlens
import pytest
from bitlens.model.thinking import problems_named
from support.harness_tasks import TEMPLATE
from support.speaking_llama import write_speaking_llama

pytestmark = pytest.mark.filterwarnings("ignore:the chat template marks turns by plain text")


def installed(package: str) -> Any:
    there = importlib.util.find_spec(package) is not None
    return pytest.mark.skipif(not there, reason=f"{package} is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_speaking_llama(tmp_path_factory.mktemp("tasks"), max_position_embeddings=320)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


@installed("lm_eval")
@pytest.mark.parametrize("tasks", ["sums", "formats"])
def test_lm_evaluation_harness(tasks: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import lm_eval
    from bitlens.audit.harness.lm_eval_model import LmEvalModel
    from bitlens.audit.harness.lm_eval_tasks import lm_eval_task
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_defaults=False)

    def shares() -> tuple[float, list[dict[str, Any]]]:
        found = lm_eval.simple_evaluate(
            LmEvalModel(bitlens.load(folder)),
            tasks=[lm_eval_task(tasks, 5, until=["\n\n"])],
            task_manager=manager,
            log_samples=True,
            bootstrap_iters=0,
        )
        name = f"bitlens_{tasks}"
        return found["results"][name]["right,none"], found["samples"][name]

    problems, read = problems_named(tasks, 5, chat=False)
    share, rows = shares()
    expected = [p.is_right(read(row["resps"][0][0])) for p, row in zip(problems, rows, strict=True)]
    assert [row["right"] for row in rows] == expected
    assert share == sum(expected) / 5
    truths = [problem.truth for problem in problems]
    monkeypatch.setattr(LmEvalModel, "generate_until", lambda self, requests, **options: truths)
    assert shares()[0] == 1
    wrong = [f"no {i}{i}" for i in range(5)]
    monkeypatch.setattr(LmEvalModel, "generate_until", lambda self, requests, **options: wrong)
    assert shares()[0] == 0


@installed("inspect_ai")
def test_inspect(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import bitlens.audit.harness.inspect_provider  # noqa: F401  (as the entry point does)
    import inspect_ai
    from bitlens.audit.evaluations import read_run
    from bitlens.audit.harness.inspect_model import InspectModel
    from inspect_ai.model import ModelOutput

    def scores() -> list[str]:
        (log,) = inspect_ai.eval(
            "bitlens/problems", task_args={"tasks": "formats", "n": 5}, model=f"bitlens/{folder}",
            log_dir=str(tmp_path), log_format="json", display="none", max_tokens=8,
        )  # fmt: skip
        assert log.status == "success", log.error
        assert [sample.id for sample in log.samples] == [f"formats {i}" for i in range(5)]
        return [sample.scores["verifier"].value for sample in log.samples]

    problems, _ = problems_named("formats", 5, chat=True)
    truths = {problem.prompt[0]["content"]: problem.truth for problem in problems}  # type: ignore[index]

    async def right(self: Any, input: Any, *rest: Any, **options: Any) -> ModelOutput:
        return ModelOutput.from_content("m", truths[input[-1].text])

    assert scores() == ["I"] * 5
    (task,) = read_run(tmp_path).tasks.values()
    assert len(task) == 5
    monkeypatch.setattr(InspectModel, "generate", right)
    assert scores() == ["C"] * 5
