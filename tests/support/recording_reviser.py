"""A reviser that writes down what it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bitlens.alignment.revision import Draft


class RecordingReviser:
    """Its texts name the draft that they were made of."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Draft]] = []

    @property
    def identity(self) -> dict[str, Any]:
        return {"reviser": "recording"}

    def answers(self, drafts: Sequence[Draft]) -> list[str]:
        return self._texts("answer", drafts)

    def critiques(self, drafts: Sequence[Draft]) -> list[str]:
        return self._texts("critique", drafts)

    def revisions(self, drafts: Sequence[Draft]) -> list[str]:
        return self._texts("revision", drafts)

    def _texts(self, what: str, drafts: Sequence[Draft]) -> list[str]:
        self.seen += [(what, draft) for draft in drafts]
        return [f"{what} of {draft.prompt}: {draft.seed}" for draft in drafts]
