"""Problems with verifiers as a task of lm-evaluation-harness.

from bitlens.audit.harness.lm_eval_tasks import lm_eval_task
lm_eval.simple_evaluate(model, tasks=[lm_eval_task("formats", 100)])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

try:
    from datasets import Dataset
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"bitlens.audit.harness.lm_eval_tasks needs {error.name}: pip install 'bitlens[lm-eval]'",
        name=error.name,
    ) from error

from ...model.sources.resolve import open_checkpoint
from ...model.thinking import problems_named


def lm_eval_task(
    tasks: str,
    n: int = 24,
    *,
    seed: int = 0,
    tokenizer_of: str | None = None,
    **generation: Any,
) -> dict[str, Any]:
    """Returns the harness's description of n problems, judged as `bitlens think` judges them.

    Args:
        tasks: As `bitlens think --tasks`.
        tokenizer_of: The model whose tokens measure needles' texts.
        generation: Of the harness's `generation_kwargs`; by default greedy, 32 tokens.
    """
    tokenizer = None if tokenizer_of is None else open_checkpoint(tokenizer_of).tokenizer
    asked, read = problems_named(tasks, n, seed=seed, tokenizer=tokenizer, chat=False)
    rows = [
        {"problem": i, "text": str(each.prompt), "truth": each.truth}
        for i, each in enumerate(asked)
    ]

    def judged(row: dict[str, Any], answers: Sequence[str]) -> dict[str, float]:
        return {"right": float(asked[row["problem"]].is_right(read(answers[0])))}

    return {
        "task": f"bitlens_{tasks.replace(':', '_').replace(',', '_')}",
        "custom_dataset": lambda **options: {"test": Dataset.from_list(rows)},
        "test_split": "test",
        "num_fewshot": 0,
        "output_type": "generate_until",
        "doc_to_text": "{{text}}",
        "doc_to_target": "{{truth}}",
        "process_results": judged,
        "generation_kwargs": {"until": [], "max_gen_toks": 32, "do_sample": False} | generation,
        "metric_list": [{"metric": "right", "aggregation": "mean", "higher_is_better": True}],
    }
