"""The provider "bitlens" of Inspect, and its task "bitlens/problems": the extra `inspect`.

`inspect eval TASK --model bitlens/smollm2-135m-instruct` finds them by the package's entry point
`inspect_ai`.
"""

from __future__ import annotations

try:
    from inspect_ai.model import ModelAPI, modelapi
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"bitlens.audit.harness.inspect_provider needs {error.name}: "
        "pip install 'bitlens[inspect]'",
        name=error.name,
    ) from error

from .inspect_tasks import problems

__all__ = ["bitlens", "problems"]


@modelapi(name="bitlens")  # type: ignore[untyped-decorator]
def bitlens() -> type[ModelAPI]:
    """Returns the provider's class; Inspect asks for it when a model of bitlens is named first."""
    from .inspect_model import InspectModel

    return InspectModel
