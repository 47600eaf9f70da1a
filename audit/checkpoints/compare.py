"""Compares two checkpoints: values bit for bit, and everything that goes with them."""

from __future__ import annotations

from collections.abc import Callable

from ...model.weights.checkpoint import Checkpoint
from .result import CheckpointComparison
from .settings import config_differences, template_differences, tokenizer_differences
from .tensors import compare_tensors

Progress = Callable[[int, int], None]


def compare_checkpoints(
    a: Checkpoint, b: Checkpoint, *, stored_as: str | None = None, progress: Progress | None = None
) -> CheckpointComparison:
    """Compares B with A: tensors, config, tokenizer and chat template.

    Args:
        stored_as: "bf16" where B's own policy keeps weights so: A's values rounded to it count as
            equal. None for values as they are.
        progress: Called with tensors done and tensors in all.
    """
    total = len({*a.names(), *b.names()})
    found = []
    for i, difference in enumerate(compare_tensors(a, b, stored_as), 1):
        found.append(difference)
        if progress is not None:
            progress(i, total)
    differences = tuple(difference for difference in found if difference is not None)
    tokenizer: tuple[str, ...] = ()
    template: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    if a.tokenizer is not None and b.tokenizer is not None:
        tokenizer = tokenizer_differences(a.tokenizer, b.tokenizer)
        template = template_differences(a.tokenizer.chat_template, b.tokenizer.chat_template)
    else:
        absent = ("tokenizer", "chat template")
    return CheckpointComparison(
        tensors=len(found),
        equal=len(found) - len(differences),
        differences=differences,
        config=config_differences(a.config, b.config),
        tokenizer=tokenizer,
        template=template,
        not_compared=absent,
    )
