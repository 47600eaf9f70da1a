"""Turns a request into the rows that the engine runs, or refuses it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Protocol

from ..cache.page_pool import pages_of
from ..cache.prefix_cache import CacheableModel
from ..generation import sequence as generation
from ..generation.chooser import make_chooser
from ..generation.decoding import Decoder
from ..generation.guide import Guide, GuideMaker
from ..generation.limits import check_counts, check_length, check_token_ids
from ..generation.monitors import begin_watch
from ..generation.stops import read_stops
from ..hooks.registry import select_names
from ..parallel import agreement
from ..text.prompts import check_ids, prompt_rows, require_tokenizer
from ..text.stream import TextStream
from ..text.tokenizer import Tokenizer
from .handle import Handle, Stepping
from .prompt_scores import PromptScores, ScoringModel
from .request import Request
from .row import RequestRow
from .sample_watch import SampleWatch


class ServedModel(Decoder, CacheableModel, ScoringModel, Protocol):
    """The part of a model that an engine needs."""


def prompt_ids(request: Request, tokenizer: Tokenizer | None) -> list[int]:
    """Returns the tokens of a request's prompt. Raises ValueError unless there is one prompt."""
    prompts = prompt_rows(
        request.prompt, tokenizer, None, request.prepend_bos, request.template_variables
    )
    if len(prompts) != 1 or not prompts[0]:
        raise ValueError(f"prompt: expected one that is not empty, got {len(prompts)}")
    return prompts[0]


class Intake:
    """Reads requests for an engine."""

    def __init__(
        self,
        engine: Stepping,
        model: ServedModel,
        now: Callable[[], float],
        capacity: int | None,
    ) -> None:
        """`capacity`: pages of the engine's pool; None bounds nothing."""
        self._engine, self._model, self._now, self._capacity = engine, model, now, capacity
        self._numbers, self._places = count(1), count()
        self._guides = GuideMaker(model.tokenizer, model.config.d_vocab)

    def rows(
        self, request: Request, listener: Callable[[], None] | None = None
    ) -> list[RequestRow]:
        """Returns the samples of a request; raises ValueError naming what is wrong with it."""
        model, params = self._model, request.sampling()
        stops = read_stops(request.stop, model.tokenizer)
        if stops.strings:
            require_tokenizer(model.tokenizer)
        prompt = prompt_ids(request, model.tokenizer)
        check_token_ids(params, model.config.d_vocab)
        self._check(request, prompt)
        with agreement(model.group, "a request", "the request") as statement:
            watch = begin_watch(request.monitors, model, [prompt] * request.n)
            functions = len(stops.functions)
            named = params, stops.strings, stops.ids, functions, request.n, request.max_new_tokens
            rules = request.schema, request.grammar
            statement.say("the request", prompt, request.salt, request.deadline, *named, *rules)
            statement.say("the request", list(watch.hook_names) if watch is not None else [])
        chooser = make_chooser(
            model,
            params,
            stops,
            min_new_tokens=request.min_new_tokens,
            no_repeat_ngram_size=request.no_repeat_ngram_size,
            follows_text=False,
        )
        guides = self._guides_of(request)
        names = select_names(request.capture, model.hook_names) if request.capture else []
        scores = self._prompt_scores(request, prompt)
        number, tokenizer = next(self._numbers), model.tokenizer
        handle = Handle(self._engine, number, request.n, tokenizer, chooser.stop_ids, listener)
        return [
            RequestRow(
                sequence=generation.Sequence(
                    prompt,
                    draw,
                    TextStream(tokenizer, stops.strings) if tokenizer else None,
                    guide=guides[draw],
                ),
                chooser=chooser,
                place=next(self._places),
                handle=handle,
                request=request,
                names=frozenset(names),
                watched=None if watch is None else SampleWatch(watch, draw, request.n),
                prompt_scores=scores if draw == 0 else None,
            )
            for draw in range(request.n)
        ]

    def _prompt_scores(self, request: Request, prompt: list[int]) -> PromptScores | None:
        """Returns where the prompt's log-probabilities go, if they are asked for."""
        n_best = request.prompt_logprobs
        if n_best is None:
            return None
        if not 0 <= n_best <= 1024:
            raise ValueError(f"prompt_logprobs = {n_best}: expected 0 to 1024, or None")
        if self._model.group is not None:
            raise ValueError(
                "prompt_logprobs: not over ranks, each of which has a part of the logits: use "
                "model.logprobs"
            )
        first = request.observe_from
        return PromptScores(self._model, prompt, n_best, request.temperature, first)

    def _guides_of(self, request: Request) -> list[Guide] | list[None]:
        """Each sample's guide. Raises ValueError for what could leave it without a token."""
        if request.schema is None and request.grammar is None:
            return [None] * request.n
        if request.schema is not None and request.grammar is not None:
            raise ValueError("schema, grammar: one of them describes the answer")
        for name in ("min_new_tokens", "no_repeat_ngram_size", "allowed_token_ids"):
            if getattr(request, name) not in (0, None):
                raise ValueError(f"{name}: may ban the only token that the schema leaves")
        grammar = request.grammar
        if grammar is None:
            assert request.schema is not None
            grammar = self._guides.grammar(request.schema)
        return self._guides.make(grammar, request.n)

    def _check(self, request: Request, prompt: Sequence[int]) -> None:
        config, most = self._model.config, request.max_new_tokens
        check_counts(
            request.top_k, request.n, most, request.min_new_tokens, request.no_repeat_ngram_size
        )
        check_ids(prompt, config.d_vocab, "prompt")
        if not 0 <= request.observe_from <= len(prompt):
            raise ValueError(
                f"observe_from = {request.observe_from}: expected 0 to {len(prompt)}, the tokens "
                "of the prompt"
            )
        if request.observe_from > 0 and request.monitors:
            raise ValueError(
                f"observe_from = {request.observe_from}: a monitor's probe scores a text from its "
                "first token on; leave it at 0 beside monitors"
            )
        check_length(len(prompt), most, config.n_ctx)
        longest = len(prompt) + most
        needed, capacity = pages_of(longest), self._capacity
        # A page more, for the copy of a partly filled one.
        if capacity is not None and needed + 1 > capacity:
            raise ValueError(
                f"prompt: {longest} tokens with its answer need {needed + 1} pages, the cache has "
                f"{capacity}: give the engine more cache_bytes"
            )
        if request.deadline is not None and request.deadline <= self._now():
            raise ValueError(f"deadline = {request.deadline}: it has passed already")
