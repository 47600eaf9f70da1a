"""The model "bitlens" of lm-evaluation-harness: the extra `lm-eval`.

    import lm_eval
    from bitlens.audit.harness.lm_eval_model import LmEvalModel
    lm_eval.simple_evaluate(LmEvalModel("smollm2-135m-instruct"), tasks=["arc_easy"])

From the command line: `python -m bitlens.audit.harness --model bitlens --model_args
pretrained=MODEL --device cpu --tasks arc_easy`, with the harness's own arguments.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import Any

import torch

try:
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.registry import register_model
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
    from tqdm import tqdm
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"bitlens.audit.harness.lm_eval_model needs {error.name}: pip install 'bitlens[lm-eval]'",
        name=error.name,
    ) from error

from ...model.load import load
from ...model.serving import Engine, Handle, Request
from ...model.text.prompts import require_tokenizer
from ...model.transformer import HookedTransformer
from .continuations import Continuation, ContinuationScore, ContinuationScorer
from .generation_options import request_options
from .sample_seed import sample_seed

DEFAULT_BATCH = 16
DEFAULT_LENGTH = 256
"""Tokens of an answer whose task names no length, as in the harness's own adapters."""


@register_model("bitlens")
class LmEvalModel(TemplateLM):  # type: ignore[misc]
    """A model of bitlens for lm-evaluation-harness. Neither batch size nor order moves a result."""

    def __init__(
        self,
        pretrained: str | HookedTransformer,
        *,
        dtype: str = "fp32",
        revision: str | None = None,
        device: str | None = None,
        batch_size: int | str = DEFAULT_BATCH,
        max_length: int | None = None,
        truncation: bool = False,
        seed: int | None = None,
        cache_bytes: int | None = None,
    ) -> None:
        """Loads the model.

        Args:
            pretrained: What `bitlens.load` takes, or a model that is loaded.
            dtype, revision, device: As `bitlens.load`.
            batch_size: Sequences that run at a time; "auto" is 16.
            max_length: Tokens of a context and its continuation; None takes the model's.
            truncation: Cuts what is longer from the left, as the harness's "hf" does; otherwise it
                is an error.
            seed: Of sampled answers; None takes the harness's own (`--seed`, for torch).
            cache_bytes: The bound on keys and values that are kept; None as `Engine`.
        """
        super().__init__()
        if isinstance(pretrained, HookedTransformer):
            self.model = pretrained
        else:
            place = device or "cpu"
            self.model = load(pretrained, dtype=dtype, revision=revision, device=place)
        self.tokenizer = require_tokenizer(self.model.tokenizer)
        self.batch_size = DEFAULT_BATCH if batch_size == "auto" else int(batch_size)
        self.max_length = max_length or self.model.config.n_ctx
        self._truncation, self._seed = truncation, seed
        budget = max(512, 2 * self.batch_size)
        self.engine = Engine(
            self.model,
            cache_bytes=cache_bytes,
            max_running=self.batch_size,
            token_budget=budget,
            max_waiting=4 * self.batch_size,
        )
        self._scorer = ContinuationScorer(self.model, self.engine.cache, self.batch_size)

    @property
    def eot_token_id(self) -> int:
        """Returns the token that ends a text. Raises ValueError where the model has none."""
        if not self.tokenizer.eos_ids:
            raise ValueError(f"{self.model.name}: its tokenizer names no token that ends a text")
        return self.tokenizer.eos_ids[0]

    @property
    def prefix_token_id(self) -> int:
        """Returns what stands before a text without a context: BOS, or else the end of a text."""
        return self.eot_token_id if self.tokenizer.bos_id is None else self.tokenizer.bos_id

    @property
    def tokenizer_name(self) -> str:
        """Returns a name for the harness's caches of requests."""
        return f"bitlens {self.model.name}".replace("/", "__")

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        """Returns a text's ids, after BOS if the model was trained so and the text brings none."""
        tokenizer = self.tokenizer
        bos = None if tokenizer.bos_id is None else tokenizer.token(tokenizer.bos_id)
        brings = add_special_tokens is None and bos is not None and string.startswith(bos)
        adds = tokenizer.prepends_bos and add_special_tokens is not False and not brings
        return tokenizer.encode(string, add_bos=adds)

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Returns a conversation as text. Raises ValueError where an answer is begun already."""
        if not add_generation_prompt:
            raise ValueError("gen_prefix: bitlens's chat templates cannot go on in a begun answer")
        return self.tokenizer.apply_chat_template(chat_history)

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[tuple[str, str], list[int], list[int]]],
        disable_tqdm: bool = False,
        **kwargs: Any,
    ) -> list[tuple[float, bool]]:
        pairs = [self._fitted(context, tokens) for _, context, tokens in requests]
        return [(each.total, each.is_greedy) for each in self._scores(pairs, disable_tqdm)]

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[float]:
        """Returns ln p of whole texts, whose tokens are each scored once, in windows."""
        windows = [self._windows(request.args[0]) for request in requests]
        flat = [each for text in windows for each in text]
        scores = iter(self._scores(flat, disable_tqdm))
        return [math.fsum(x for _ in text for x in next(scores).logprobs) for text in windows]

    def _windows(self, text: str) -> list[Continuation]:
        ids = self.tok_encode(text, add_special_tokens=False)
        found = get_rolling_token_windows(ids, self.prefix_token_id, self.max_length, 1)
        return [Continuation(*make_disjoint_window(pair)) for pair in found]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Returns the answer to each request.

        A sample's seed hangs on its task, document and repetition, not on which others are run.
        """
        repetitions: Counter[tuple[Any, ...]] = Counter()
        asked = []
        for request in requests:
            name = (request.task_name, request.doc_id, request.idx)
            context, options = request.args
            asked.append(self._request(context, options, (*name, repetitions[name])))
            repetitions[name] += 1
        with tqdm(total=len(asked), desc="Running generate_until", disable=disable_tqdm) as bar:
            texts = []
            for text in self._answers(asked):
                texts.append(text)
                bar.update()
        return texts

    def _answers(self, asked: Sequence[Request]) -> Iterator[str]:
        """Yields the answers in order, the engine always having others to go on with."""
        handles: deque[Handle] = deque()
        for request in asked:
            if len(handles) == 4 * self.batch_size:
                yield handles.popleft().result().text
            handles.append(self.engine.submit(request))
        while handles:
            yield handles.popleft().result().text

    def _request(self, context: str, asked: dict[str, Any], identity: tuple[Any, ...]) -> Request:
        options = request_options(asked, DEFAULT_LENGTH)
        base = asked.get("seed", self._seed)
        # The harness sets torch's seed to its own before it runs.
        seed = sample_seed(torch.initial_seed() if base is None else base, *identity)
        ids = self.tok_encode(context) if context else [self.prefix_token_id]
        most = self.max_length - options["max_new_tokens"]
        prompt = self._cut(ids, most, f"an answer of {options['max_new_tokens']} tokens")
        return Request(prompt, seed=seed, **options)

    def _fitted(self, context: list[int], tokens: list[int]) -> Continuation:
        # The last token is scored, not read.
        most = self.max_length + 1 - len(tokens)
        return Continuation(self._cut(context, most, f"{len(tokens)} tokens to score"), tokens)

    def _cut(self, context: list[int], most: int, beside: str) -> list[int]:
        """Returns a context of `most` tokens; raises ValueError where none may be cut off."""
        if len(context) <= most:
            return context
        if most < 1 or not self._truncation:
            raise ValueError(
                f"max_length = {self.max_length}: {beside} leave {most} for a context of "
                f"{len(context)}; give fewer examples or a shorter answer (max_gen_toks), or cut "
                "contexts from the left with truncation=True"
            )
        return context[-most:]

    def _scores(
        self, continuations: Sequence[Continuation], disable_tqdm: bool
    ) -> list[ContinuationScore]:
        total = len(continuations)
        with tqdm(total=total, desc="Running loglikelihood", disable=disable_tqdm) as bar:
            return self._scorer.score(continuations, done=bar.update)
