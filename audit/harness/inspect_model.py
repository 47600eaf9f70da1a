"""A model of bitlens as Inspect calls it. Imported where Inspect is."""

from __future__ import annotations

import anyio
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    ContentReasoning,
    ContentText,
    GenerateConfig,
    Logprob,
    Logprobs,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    TopLogprob,
)
from inspect_ai.solver._task_state import sample_state
from inspect_ai.tool import ToolChoice, ToolInfo

from ...model.load import load
from ...model.serving import Completion, Engine, Request
from ...model.text.prompts import require_tokenizer
from .sample_seed import sample_seed

DEFAULT_LENGTH = 2048
"""Tokens of an answer whose task names no length, or what the context has left of them."""

PASSED = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "logit_bias": "logit_bias",
    "stop_seqs": "stop",
    "num_choices": "n",
}
"""Inspect's words that mean the same in a request, with those of the request."""

READ = ("max_tokens", "seed", "logprobs", "top_logprobs")

INSPECTS_OWN = (
    "max_retries",
    "timeout",
    "attempt_timeout",
    "stream_idle_timeout",
    "max_connections",
    "adaptive_connections",
    "system_message",
    "max_tool_output",
    "internal_tools",
    "parallel_tool_calls",
    "reasoning_history",
    "fail_on_refusal",
    "cache",
    "cache_prompt",
    "extra_headers",
)
"""Words that move no token of an answer: Inspect sees to them, or they are about tools."""

STOPS = {"stop": "stop", "length": "max_tokens"}


class InspectModel(ModelAPI):  # type: ignore[misc]
    """A model of bitlens for Inspect. The answers do not hang on how many are asked at a time."""

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig | None = None,
        *,
        dtype: str = "fp32",
        revision: str | None = None,
        device: str = "cpu",
        max_running: int = 16,
        cache_bytes: int | None = None,
    ) -> None:
        """Loads the model; `-M dtype=bf16` and so on set the arguments from `dtype` on.

        Args:
            model_name: What `bitlens.load` takes, after "bitlens/".
            dtype, revision, device: As `bitlens.load`.
            max_running, cache_bytes: As `Engine`.
        """
        super().__init__(model_name, base_url, api_key, [], config or GenerateConfig())
        self.model = load(model_name, dtype=dtype, revision=revision, device=device)
        self._tokenizer = require_tokenizer(self.model.tokenizer)
        self._max_running = max_running
        self.engine = Engine(self.model, max_running=max_running, cache_bytes=cache_bytes)

    def max_connections(self) -> int:
        """Returns how many answers are written at a time."""
        return self._max_running

    def close(self) -> None:
        """Gives up what the engine keeps."""
        self.engine.close()

    async def generate(
        self,
        input: list[ChatMessage],
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        """Returns the answer to a conversation.

        Raises ValueError for tools, for content that is no text and for settings that a request
        has no word for.
        """
        if tools:
            raise ValueError(
                "tools: the provider passes none on; `bitlens serve` does, through Inspect's "
                "openai-api provider"
            )
        messages = [{"role": each.role, "content": _text(each)} for each in input]
        prompt = self._tokenizer.encode_chat(messages)
        handle = self.engine.submit(self._request(prompt, config))
        try:
            completions = await anyio.to_thread.run_sync(handle.results, abandon_on_cancel=True)
        except BaseException:
            handle.cancel()
            raise
        return self._output(completions, config)

    def _request(self, prompt: list[int], config: GenerateConfig) -> Request:
        given = config.model_dump(exclude_none=True)
        if refused := sorted(set(given) - {*PASSED, *READ, *INSPECTS_OWN}):
            raise ValueError(
                f"{', '.join(refused)}: bitlens's provider cannot pass this on; known are "
                f"{', '.join((*PASSED, *READ))}"
            )
        options = {PASSED[name]: value for name, value in given.items() if name in PASSED}
        left = max(1, self.model.config.n_ctx - len(prompt))
        return Request(
            prompt,
            max_new_tokens=config.max_tokens or min(DEFAULT_LENGTH, left),
            seed=None if config.seed is None else _seed(config.seed),
            logprobs=(config.top_logprobs or 0) if config.logprobs else None,
            **options,
        )

    def _output(self, completions: list[Completion], config: GenerateConfig) -> ModelOutput:
        first = completions[0]
        n_prompt, n_new = first.usage.prompt, sum(each.usage.output for each in completions)
        return ModelOutput(
            model=self.model_name,
            choices=[self._choice(each) for each in completions],
            usage=ModelUsage(
                input_tokens=n_prompt,
                output_tokens=n_new,
                total_tokens=n_prompt + n_new,
                input_tokens_cache_read=first.usage.cached,
            ),
            metadata={"seed": first.seed},
        )

    def _choice(self, completion: Completion) -> ChatCompletionChoice:
        message = ChatMessageAssistant(
            content=completion.text, model=self.model_name, source="generate"
        )
        logprobs = None
        if completion.logprobs is not None:
            pairs = zip(completion.ids, completion.logprobs, strict=True)
            logprobs = Logprobs(content=[self._logprob(token, *found) for token, found in pairs])
        reason = STOPS.get(completion.finish_reason, "unknown")
        return ChatCompletionChoice(message=message, stop_reason=reason, logprobs=logprobs)

    def _logprob(
        self, token: int, logprob: float, ids: list[int], logprobs: list[float]
    ) -> Logprob:
        best = [
            TopLogprob(token=self._spelled(i), logprob=x)
            for i, x in zip(ids, logprobs, strict=True)
        ]
        return Logprob(token=self._spelled(token), logprob=logprob, top_logprobs=best or None)

    def _spelled(self, token: int) -> str:
        return self._tokenizer.token_strings([token])[0]


def _seed(seed: int) -> int:
    """Returns the seed of the sample that asks, or `seed` itself outside of an evaluation."""
    state = sample_state()
    return seed if state is None else sample_seed(seed, state.sample_id, state.epoch)


def _text(message: ChatMessage) -> str:
    if message.role not in ("system", "user", "assistant"):
        raise ValueError(f"a message of role {message.role!r}: the provider passes no tools on")
    if isinstance(message.content, str):
        return message.content
    texts = []
    for part in message.content:
        if isinstance(part, ContentReasoning):
            continue  # thinking is no part of what is read again
        if not isinstance(part, ContentText):
            raise ValueError(f"content of type {part.type!r}: the model reads text alone")
        texts.append(part.text)
    return "\n".join(texts)
