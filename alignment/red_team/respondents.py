"""Respondents: a model, or a model behind a defence."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from ...interp.probes.reading import tokenizer_of
from ...model.text.prompts import prompt_rows
from ...model.transformer import HookedTransformer
from ..revision.targets import as_prompt


@dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes:
        n_tokens: New tokens, the one that ended it included.
        ttft_ms: Milliseconds until its first token could be shown; None where it was not timed.
        token_ms: Milliseconds for each later token.
    """

    text: str = field(repr=False)
    n_tokens: int
    ttft_ms: float | None = None
    token_ms: float | None = None


class Respondent(Protocol):
    """A respondent answers prompts.

    Attributes:
        name: What tables call it.
    """

    @property
    def name(self) -> str: ...

    def digest(self) -> str:
        """Returns a digest of all that decides its answers."""
        ...

    def fits(self, prompt: str, max_new_tokens: int) -> bool:
        """Returns whether prompt and answer fit into its context."""
        ...

    def answers(
        self, prompts: Sequence[str], *, max_new_tokens: int, seed: int, temperature: float
    ) -> list[Answer]:
        """Returns an answer to each prompt; equal arguments give equal texts."""
        ...


class ModelRespondent:
    """A model: in chat form where it has a chat template, otherwise the prompt as it stands."""

    def __init__(self, model: HookedTransformer, name: str | None = None) -> None:
        """Raises ValueError for a model without a tokenizer."""
        self.model, self.name = model, name or model.name
        self._chat = tokenizer_of(model).chat_template is not None

    def digest(self) -> str:
        """Returns the weights' fingerprint with the policy's name."""
        return f"{self.model.fingerprint()}-{self.model.ops.policy.name}"

    def fits(self, prompt: str, max_new_tokens: int) -> bool:
        """Returns whether prompt and answer fit into the model's context."""
        (ids,) = prompt_rows(self.form(prompt), self.model.tokenizer, None, None)
        return 0 < len(ids) <= self.model.config.n_ctx - max_new_tokens

    def answers(
        self, prompts: Sequence[str], *, max_new_tokens: int, seed: int, temperature: float
    ) -> list[Answer]:
        """Returns an answer to each prompt, in one batch."""
        options: dict[str, Any] = {"seed": seed, "temperature": temperature}
        return self.generate(prompts, max_new_tokens=max_new_tokens, **options)

    def generate(self, prompts: Sequence[str], **settings: Any) -> list[Answer]:
        """Returns answers; `settings` are those of `model.generate`."""
        found = self.model.generate([self.form(prompt) for prompt in prompts], **settings)
        return [Answer(text, n) for text, n in zip(found.text, found.n_new, strict=True)]

    def timed(self, prompt: str, *, max_new_tokens: int) -> Answer:
        """Returns the greedy answer to one prompt with its times."""
        began = time.perf_counter()
        moments: list[float] = []

        def note(ids: list[int], text: str) -> bool:
            moments.append(time.perf_counter())
            return False

        (answer,) = self.generate([prompt], max_new_tokens=max_new_tokens, stop=[note])
        first = moments[0] if moments else time.perf_counter()
        later = [b - a for a, b in itertools.pairwise(moments)]
        each = 1e3 * sum(later) / len(later) if later else 0.0
        return replace(answer, ttft_ms=1e3 * (first - began), token_ms=each)

    def form(self, prompt: str) -> Any:
        """Returns a prompt as `generate` takes it."""
        return as_prompt(prompt, self._chat)


def respondent_of(model: HookedTransformer | Respondent, name: str | None = None) -> Respondent:
    """Returns a model as a respondent, under a name; a respondent as it is."""
    return ModelRespondent(model, name) if isinstance(model, HookedTransformer) else model
