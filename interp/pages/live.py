"""The questions of a live page to Python: one request at a time, answered by events.

Requests are JSON objects with a `kind`:

    prompt   {prompt}                        -> {kind: "prompt", data}: a prompt page's data
    card     {dictionary, feature}           -> {kind: "card", card}
    steer    {prompt, edits, max_new_tokens, temperature, seed}
             -> {kind: "text", which, text} as it is written, {kind: "done", which, tokens}
    save     {graph}                         -> {kind: "saved", path}
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ...model.transformer import HookedTransformer
from ...model.weights.atomic import write_atomically
from ..dictionaries import Dictionary
from ..examples import Examples
from ..lenses import JacobianLens
from ..splicing import Edit, splice
from .cards import CardMaker
from .graph_page import read_graph
from .labels import Labels
from .prompt_page import prompt_data

Event = dict[str, Any]
Emit = Callable[[Event], object]
"""Tells the page an event; what it raises ends the request."""

MOST_TOKENS = 1024


class Live(Protocol):
    """The Python side of a live page."""

    def answer(self, request: Mapping[str, Any], emit: Emit) -> None:
        """Answers a request by events. Raises ValueError or KeyError for one that is wrong."""
        ...


@dataclass(eq=False)
class LivePrompt:
    """Behind the page of a prompt: other prompts, cards of any feature, and steering."""

    model: HookedTransformer
    dictionaries: Mapping[str, Dictionary]
    examples: Mapping[str, Examples | None]
    against: HookedTransformer | None = None
    labels: Labels = None
    jacobian_lens: JacobianLens | None = None
    setup: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _plain: tuple[tuple[Any, ...], str, list[int]] | None = field(default=None, repr=False)

    def answer(self, request: Mapping[str, Any], emit: Emit) -> None:
        """See `Live`. Requests wait for one another: edits are the model's while it writes."""
        answers = {"prompt": self._prompt, "card": self._card, "steer": self._steer}
        kind = request.get("kind")
        if kind not in answers:
            raise ValueError(f"kind = {kind!r}: expected one of {', '.join(answers)}")
        with self._lock:
            answers[kind](request, emit)

    def _prompt(self, request: Mapping[str, Any], emit: Emit) -> None:
        data, shards = prompt_data(
            self.model,
            str(request["prompt"]),
            self.dictionaries,
            examples=self.examples,
            against=self.against,
            labels=self.labels,
            lens=True,
            jacobian_lens=self.jacobian_lens,
            setup=self.setup,
        )
        emit({"kind": "prompt", "data": data, "shards": shards})

    def _card(self, request: Mapping[str, Any], emit: Emit) -> None:
        hook = list(self.dictionaries)[int(request["dictionary"])]
        dictionary, feature = self.dictionaries[hook], int(request["feature"])
        if not 0 <= feature < dictionary.cfg.d_sae:
            raise ValueError(f"feature {feature} of {dictionary.cfg.d_sae}")
        (card,) = CardMaker(self.model, dictionary, self.examples.get(hook)).cards([feature])
        emit({"kind": "card", "card": card})

    def _steer(self, request: Mapping[str, Any], emit: Emit) -> None:
        """Writes what the model says by itself, once for each setting, then what it says edited."""
        edits = [
            Edit(int(e["feature"]), e["op"], e["value"], hook_name=e["hook_name"])
            for e in request["edits"]
        ]
        options = {
            "max_new_tokens": min(int(request["max_new_tokens"]), MOST_TOKENS),
            "temperature": float(request["temperature"]),
            "seed": int(request["seed"]),
        }
        prompt = str(request["prompt"])
        setting = (prompt, *options.values())
        if self._plain is None or self._plain[0] != setting:
            self._plain = (setting, *self._write(prompt, options, emit, "plain"))
        else:
            emit({"kind": "text", "which": "plain", "text": self._plain[1]})
        emit({"kind": "done", "which": "plain", "tokens": self._plain[2]})
        with splice(self.model, list(self.dictionaries.values()), edits=edits):
            _, tokens = self._write(prompt, options, emit, "steered")
        emit({"kind": "done", "which": "steered", "tokens": tokens})

    def _write(
        self, prompt: str, options: dict[str, Any], emit: Emit, which: str
    ) -> tuple[str, list[int]]:
        """Generates, piece by piece; returns the text and the new tokens."""

        def tell(piece: str) -> None:
            emit({"kind": "text", "which": which, "text": piece})

        found = self.model.generate(prompt, stream=tell, **options)
        n_prompt = found.tokens.shape[1] - max(found.n_new)
        return found.text[0], found.tokens[0, n_prompt : n_prompt + found.n_new[0]].tolist()


@dataclass(frozen=True)
class LiveGraph:
    """Behind the page of a graph: saves it, with pins, groups and labels, in its file.

    Attributes:
        path: The file.
    """

    path: Path

    def answer(self, request: Mapping[str, Any], emit: Emit) -> None:
        """See `Live`."""
        if request.get("kind") != "save":
            raise ValueError(f"kind = {request.get('kind')!r}: expected save")
        graph = read_graph(request["graph"])
        with write_atomically(self.path) as scratch:
            scratch.write_text(json.dumps(graph, ensure_ascii=False), "utf-8")
        emit({"kind": "saved", "path": self.path.name})
