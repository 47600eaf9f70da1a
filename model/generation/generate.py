"""`generate`: prefill once, then a token a pass.

Tensor names: B sequences (prompts times n), P prompt columns, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Sequences
from typing import Any

import torch

from ..hooks.registry import select_names
from ..parallel import Group, agreement
from ..sampling import SamplingParams
from ..sampling.params import FilterOrder
from ..text.prompts import Prompt, padding_id, prompt_rows, require_tokenizer
from ..text.stream import TextStream
from .chooser import make_chooser
from .decoding import Decoder, Decoding, joined
from .limits import check_counts, check_length, check_token_ids
from .monitors import GenerationMonitor, begin_watch
from .output import GenerateOutput, output_of
from .sequence import Sequence, Stream, emitter
from .stops import Stop, read_stops


@torch.no_grad()
def generate(
    model: Decoder,
    prompt: Prompt,
    *,
    max_new_tokens: int = 64,
    min_new_tokens: int = 0,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    typical_p: float | None = None,
    repetition_penalty: float = 1.0,
    frequency_penalty: float = 0.0,
    presence_penalty: float = 0.0,
    no_repeat_ngram_size: int = 0,
    logit_bias: Mapping[int, float] | None = None,
    allowed_token_ids: Sequences[int] | None = None,
    filter_apply_order: FilterOrder = "top_k_first",
    logprobs: int | None = None,
    seed: int | None = None,
    n: int = 1,
    stop: Stop = None,
    stream: Stream = None,
    capture: Sequences[str] | str = (),
    attention_mask: torch.Tensor | None = None,
    prepend_bos: bool | None = None,
    template_variables: Mapping[str, Any] | None = None,
    monitors: Sequences[GenerationMonitor] = (),
) -> GenerateOutput:
    """Continues each prompt until a token that ends texts, a stop, or `max_new_tokens`.

    Where anything raises on the way, such as a hook function or Ctrl-C, the error carries what
    was written until then as `error.generated`, a GenerateOutput without captures. Hook
    functions find the step, the rows and the tokens so far in `hook.generation`.

    Args:
        prompt: Text, a list of texts, ids [P], a list of lists of ids, a tensor [P] or [B, P]
            (with `attention_mask`, if padded), or a conversation, a list of dicts with role and
            content that goes through the chat template, or a list of conversations.
        min_new_tokens: No end before so many.
        temperature: 0, the default, is greedy. Filters narrow the choice in the order min_p,
            top_k, top_p, typical_p.
        repetition_penalty: Divides positive and multiplies negative logits of tokens in the
            prompt or the new text, as in transformers.
        frequency_penalty, presence_penalty: Subtracted from tokens of the new text, once for
            each time and once, as in OpenAI's API.
        no_repeat_ngram_size: No n-gram of this size appears twice, the prompt's included, as in
            transformers; 0 permits all.
        logit_bias: Added to the logits of these ids.
        allowed_token_ids: All other ids are masked; None allows all.
        filter_apply_order: "top_k_first": top_p is a share of what top_k kept; "joint": of all
            that min_p kept.
        logprobs: Keep the log-probability of each new token, and of the best so many; None
            keeps none.
        seed: Same seed, same tokens, whatever the batch; None takes a fresh one.
        n: Samples a prompt, which is read once; they differ by a draw counter.
        stop: Strings, token ids and functions that end a sequence, besides the tokenizer's
            `eos_ids`. A special token as text is that token. A function is called after every
            token with a row's new ids and its text so far, and ends the row by returning True.
        stream: True prints the text of one sequence as it arrives. A function is called with
            each piece, and with the row before it if there are several.
        capture: Names of hooks whose activations to keep, without another pass.
        prepend_bos: None does as the model was trained; conversations bring their own.
        template_variables: For the chat template, such as {"enable_thinking": False}.
        monitors: Watch the prompts and what is written, and may end rows
            (`bitlens.interp.monitors.Monitor`). Text is streamed once its tokens were scored.

    Raises:
        ValueError: naming the argument, or if prompt and new tokens exceed the context.
        KeyError: a name in `capture` that is no hook, with near matches.
    """
    sampling: dict[str, Any] = {
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "typical_p": typical_p,
        "repetition_penalty": repetition_penalty,
        "frequency_penalty": frequency_penalty,
        "presence_penalty": presence_penalty,
        "logit_bias": dict(logit_bias or {}),
        "allowed_token_ids": allowed_token_ids,
        "filter_apply_order": filter_apply_order,
        "logprobs": logprobs,
        "seed": seed,
    }
    _agree(model.group, sampling, no_repeat_ngram_size, max_new_tokens, min_new_tokens, n, stop)
    check_counts(top_k, n, max_new_tokens, min_new_tokens, no_repeat_ngram_size)
    params = SamplingParams(**sampling)
    check_token_ids(params, model.config.d_vocab)
    prompts = prompt_rows(prompt, model.tokenizer, attention_mask, prepend_bos, template_variables)
    check_length(max(map(len, prompts), default=0), max_new_tokens, model.config.n_ctx)
    stops = read_stops(stop, model.tokenizer)
    if stops.strings:
        require_tokenizer(model.tokenizer)
    sequences = [
        Sequence(row, draw, TextStream(model.tokenizer, stops.strings) if model.tokenizer else None)
        for row in prompts
        for draw in range(n)
    ]
    chooser = make_chooser(
        model,
        params,
        stops,
        min_new_tokens=min_new_tokens,
        no_repeat_ngram_size=no_repeat_ngram_size,
        follows_text=bool(stream),
    )
    emit = emitter(stream, len(sequences))
    names = select_names(capture, model.hook_names) if capture else []
    watch = begin_watch(monitors, model, [sequence.prompt for sequence in sequences])
    # The engine's batch runs what nobody looks into; the torch backend is the reference, in passes
    # of its own.
    in_batch = not (names or watch is not None or model.is_watched or model.ops.differentiable)
    decoding = _passes(in_batch)(model, sequences, chooser, max_new_tokens, names, emit, watch)

    def output(captured: dict[str, torch.Tensor]) -> GenerateOutput:
        pad_id = padding_id(model.tokenizer)
        counts = decoding.n_passes, logprobs, max_new_tokens
        return output_of(sequences, pad_id, captured, *counts, watch)

    try:
        decoding.run()
    except BaseException as error:
        for sequence in sequences:
            chooser.finish(sequence)
        error.generated = output({})  # type: ignore[attr-defined]
        error.add_note("What was written until then is in the error's `generated`.")
        raise
    decoding.release()
    if stream is True:
        emit(0, "\n")
    return output({name: joined(name, steps) for name, steps in decoding.captured.items()})


def _agree(group: Group | None, sampling: Mapping[str, Any], ngram: int, *limits: object) -> None:
    """Raises RankError unless all ranks were given the same."""
    *numbers, stop = limits
    items = stop if isinstance(stop, list | tuple) else [stop]
    # A function has no form that ranks could compare.
    named = [item for item in items if not callable(item)]
    with agreement(group, "generate", "the arguments") as statement:
        statement.say("the arguments", dict(sampling), ngram, *numbers, named)


def _passes(in_batch: bool) -> type[Decoding]:
    """Returns the kind of passes. The first to generate imports the batch, not `import bitlens`."""
    if not in_batch:
        return Decoding
    from .batched_decoding import BatchedDecoding

    return BatchedDecoding
