"""Generation: prefill once, then a token a pass, with hooks firing in every pass.

Tensor names: B sequences (prompts times n), P prompt columns, N new tokens, V vocabulary.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
import torch.nn.functional as F

from ..precision import notebook
from .config import ModelConfig
from .hooks.captures import Captures
from .hooks.registry import has_key_axis, masked_value, select_names
from .kv_cache import KVCache
from .parallel import Group, SamplingRanks, agreement, from_rank_0
from .sampling import SamplingParams, greedy, sample
from .text.prompts import Prompt, Tokens, left_pad, padding_id, prompt_rows, require_tokenizer
from .text.stream import TextStream
from .text.tokenizer import Tokenizer

Stop = str | int | Sequence[str | int] | None
Stream = Callable[[str], object] | bool | None


class Decoder(Protocol):
    """What generation needs of a model."""

    config: ModelConfig
    tokenizer: Tokenizer | None
    group: Group | None

    @property
    def hook_names(self) -> list[str]: ...

    @property
    def vocab_start(self) -> int: ...

    def new_cache(self, batch_size: int = 1) -> KVCache: ...

    def forward_last_slice(
        self,
        tokens: Tokens,
        attention_mask: torch.Tensor | None = None,
        kv_cache: KVCache | None = None,
        captures: Captures | None = None,
    ) -> torch.Tensor: ...


@dataclass(frozen=True)
class GenerateOutput:
    """What was generated. The samples of one prompt are consecutive rows.

    Attributes:
        tokens: int64 [B, P + N]. Prompts are padded on the left, so new tokens begin in column P;
            a sequence that ended early is padded on the right.
        attention_mask: int64 [B, P + N], 1 at real tokens.
        n_new: New tokens of each row, the one that ended it included.
        text: The new text of each row, without special tokens and up to a stop string; empty
            without a tokenizer.
        captured: Activations by hook name, position by position as the passes computed them:
            [B, P + N - 1, ...] (the last token is never run), scores and patterns
            [B, H, P + N - 1, K]. Zeros (scores: -inf) on padding and after a sequence's end.
    """

    tokens: torch.Tensor
    attention_mask: torch.Tensor
    n_new: list[int]
    text: list[str]
    captured: dict[str, torch.Tensor]

    def _repr_html_(self) -> str:
        """The new texts in a notebook; token ids where there is no tokenizer."""
        n_prompt = self.tokens.shape[1] - max(self.n_new)
        new = [row[n_prompt : n_prompt + n] for row, n in zip(self.tokens, self.n_new, strict=True)]
        texts = self.text or [str(row.tolist()) for row in new]
        rows = [(i, n, text) for i, (n, text) in enumerate(zip(self.n_new, texts, strict=True))]
        columns = ("row", "new tokens", "text")
        return notebook.output(notebook.table(columns, rows, words=(2,)))


@dataclass
class _Sequence:
    """One row under way."""

    prompt: list[int]
    draw: int
    stream: TextStream | None
    new: list[int] = field(default_factory=list)
    done: bool = False


@dataclass(frozen=True)
class _Chooser:
    """How tokens are chosen and when a sequence ends: the same for every row.

    Attributes:
        ranks: Who holds the other slices of the logits, if this rank's begins at `vocab_start`.
        follows_text: A stop string or a reader waits for the text; else it is made at the end.
    """

    params: SamplingParams
    stop_ids: list[int]
    min_new_tokens: int
    ranks: SamplingRanks | None
    vocab_start: int
    follows_text: bool

    def choose(self, sequences: list[_Sequence], logits_BV: torch.Tensor) -> list[int]:
        """The next token of each sequence. Raises ValueError for logits that are not numbers."""
        logits_BV = logits_BV.cpu()
        if self.params.temperature == 0 and self.ranks is None:
            tokens = [
                greedy(row_V, self.stop_ids if len(s.new) < self.min_new_tokens else ())
                for row_V, s in zip(logits_BV.numpy(), sequences, strict=True)
            ]
            return self._checked(tokens)
        chosen = sample(
            logits_BV.float(),  # the sampler's arithmetic is fp32; this rounds under fp64 only
            self.params,
            positions=[len(s.prompt) + len(s.new) for s in sequences],
            draws=[s.draw for s in sequences],
            output_ids=[s.new for s in sequences],
            group=self.ranks,
            vocab_start=self.vocab_start,
        )
        return self._checked(chosen.tokens.tolist())

    def _checked(self, tokens: list[int]) -> list[int]:
        if min(tokens) < 0:
            raise ValueError("the logits hold NaN or infinity, so there is no token to choose")
        return tokens

    def advance(self, sequence: _Sequence, token: int) -> str:
        """Appends a token; returns the text it releases."""
        sequence.new.append(token)
        if token in self.stop_ids:
            sequence.done = True
            return ""
        if sequence.stream is None or not self.follows_text:
            return ""
        may_stop = len(sequence.new) >= self.min_new_tokens
        released = sequence.stream.push(token, may_stop=may_stop)
        sequence.done = sequence.stream.stopped
        return released

    def finish(self, sequence: _Sequence) -> str:
        """The text that is left at a sequence's end."""
        if sequence.stream is None:
            return ""
        if not self.follows_text:
            for token in sequence.new:
                if token not in self.stop_ids:
                    sequence.stream.push(token)
        return sequence.stream.finish()


@torch.no_grad()
def generate(
    model: Decoder,
    prompt: Prompt,
    *,
    max_new_tokens: int,
    min_new_tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    seed: int | None,
    n: int,
    stop: Stop,
    stream: Stream,
    capture: Sequence[str] | str,
    attention_mask: torch.Tensor | None,
    prepend_bos: bool | None,
    template_variables: Mapping[str, Any] | None = None,
) -> GenerateOutput:
    """Continues each prompt until a token that ends texts, a stop, or `max_new_tokens`.

    Args:
        prompt: Text, a list of texts, ids [P], a list of lists of ids, a tensor [P] or [B, P] (with
            `attention_mask`, if padded), or a conversation, a list of dicts with role and content
            that goes through the chat template, or a list of conversations.
        min_new_tokens: No end before so many.
        temperature: 0, the default, is greedy. `top_k`, then `top_p` narrow the choice.
        seed: Same seed, same tokens, whatever the batch; None takes a fresh one.
        n: Samples a prompt; they differ by a draw counter.
        stop: Strings and token ids that end a sequence, besides the tokenizer's `eos_ids`. A
            special token as text is that token.
        stream: True prints text as it arrives; a function is called with each piece. One sequence.
        capture: Names of hooks whose activations to keep, without another pass.
        prepend_bos: None does as the model was trained; conversations bring their own.
        template_variables: For the chat template, such as {"enable_thinking": False}.

    Raises:
        ValueError: naming the argument, or if prompt and new tokens exceed the context.
        KeyError: a name in `capture` that is no hook, with near matches.
    """
    with agreement(model.group, "generate", "the arguments") as statement:
        limits = (max_new_tokens, min_new_tokens, n, stop)
        statement.say("the arguments", temperature, top_k, top_p, seed, *limits)
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k = {top_k}: expected at least 1")
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    if n < 1 or max_new_tokens < 1 or not 0 <= min_new_tokens <= max_new_tokens:
        raise ValueError(
            f"n = {n}, max_new_tokens = {max_new_tokens}, min_new_tokens = {min_new_tokens}: "
            "expected n >= 1, max_new_tokens >= 1, 0 <= min_new_tokens <= max_new_tokens"
        )
    prompts = prompt_rows(prompt, model.tokenizer, attention_mask, prepend_bos, template_variables)
    longest = max(map(len, prompts), default=0)
    if longest + max_new_tokens > model.config.n_ctx:
        raise ValueError(
            f"max_new_tokens = {max_new_tokens} after a prompt of {longest} exceeds the context "
            f"of {model.config.n_ctx}"
        )
    strings, ids = _split_stops(stop, model.tokenizer)
    eos_ids = model.tokenizer.eos_ids if model.tokenizer is not None else ()
    if strings:
        require_tokenizer(model.tokenizer)
    sequences = [
        _Sequence(row, draw, TextStream(model.tokenizer, strings) if model.tokenizer else None)
        for row in prompts
        for draw in range(n)
    ]
    stop_ids = sorted({*ids, *eos_ids})
    params = replace(
        params,
        seed=_random_seed(model.group) if seed is None else seed,
        min_tokens=min_new_tokens if stop_ids else 0,
        stop_token_ids=stop_ids,
    )
    ranks = SamplingRanks(model.group) if model.group is not None else None
    chooser = _Chooser(
        params, stop_ids, min_new_tokens, ranks, model.vocab_start, bool(strings or stream)
    )
    emit = _emitter(stream, len(sequences))
    names = select_names(capture, model.hook_names) if capture else []
    steps = _decode(model, sequences, chooser, max_new_tokens, names, emit)
    for sequence in sequences:
        emit(chooser.finish(sequence))
    if stream is True:
        emit("\n")
    return _output(model, sequences, {name: _join(name, steps[name]) for name in names})


def _decode(
    model: Decoder,
    sequences: list[_Sequence],
    chooser: _Chooser,
    max_new_tokens: int,
    names: list[str],
    emit: Callable[[str], object],
) -> dict[str, list[torch.Tensor]]:
    """Runs passes until every sequence has ended; returns what each pass captured."""
    pad_id = padding_id(model.tokenizer)
    tokens_BP, mask_BP = left_pad([sequence.prompt for sequence in sequences], pad_id)
    mask: torch.Tensor | None = mask_BP
    cache = model.new_cache(len(sequences))
    steps: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    while True:
        captures = Captures(frozenset(names))
        ended = [b for b, sequence in enumerate(sequences) if sequence.done]
        logits_BV = model.forward_last_slice(tokens_BP, mask, cache, captures)
        for name, x in captures.found.items():
            steps[name].append(_blanked(name, x, ended))
        going = [b for b, sequence in enumerate(sequences) if not sequence.done]
        rows = [sequences[b] for b in going]
        if len(going) < len(sequences):
            logits_BV = logits_BV[going]
        for sequence, token in zip(rows, chooser.choose(rows, logits_BV), strict=True):
            emit(chooser.advance(sequence, token))
        n_new = max(len(sequence.new) for sequence in sequences)
        if n_new == max_new_tokens or all(sequence.done for sequence in sequences):
            return steps
        # Rows that have ended run on as padding; nothing of theirs is shown.
        last = [pad_id if sequence.done else sequence.new[-1] for sequence in sequences]
        tokens_BP, mask = torch.tensor(last, dtype=torch.int64)[:, None], None


def _output(
    model: Decoder, sequences: list[_Sequence], captured: dict[str, torch.Tensor]
) -> GenerateOutput:
    n_new = [len(sequence.new) for sequence in sequences]
    pad_id = padding_id(model.tokenizer)
    prompt_BP, mask_BP = left_pad([sequence.prompt for sequence in sequences], pad_id)
    new_BN = torch.full((len(sequences), max(n_new)), pad_id, dtype=torch.int64)
    for b, sequence in enumerate(sequences):
        new_BN[b, : n_new[b]] = torch.tensor(sequence.new, dtype=torch.int64)
    real_BN = torch.arange(max(n_new)) < torch.tensor(n_new)[:, None]
    return GenerateOutput(
        tokens=torch.cat([prompt_BP, new_BN], dim=1),
        attention_mask=torch.cat([mask_BP, real_BN.long()], dim=1),
        n_new=n_new,
        text=[sequence.stream.text for sequence in sequences if sequence.stream],
        captured=captured,
    )


def _random_seed(group: Group | None) -> int:
    return int.from_bytes(from_rank_0(group, secrets.token_bytes(8)))


def _blanked(name: str, x: torch.Tensor, rows: list[int]) -> torch.Tensor:
    """x without the rows whose sequences have ended."""
    if not rows:
        return x
    x = x.clone()
    x[rows] = int(masked_value(name)) if not x.is_floating_point() else masked_value(name)
    return x


def _join(name: str, steps: list[torch.Tensor]) -> torch.Tensor:
    """The passes one after the other along the position axis."""
    if not has_key_axis(name):
        return torch.cat(steps, dim=1)
    n_keys = max(x.shape[-1] for x in steps)
    padded = [F.pad(x, (0, n_keys - x.shape[-1]), value=masked_value(name)) for x in steps]
    return torch.cat(padded, dim=2)


def _split_stops(stop: Stop, tokenizer: Tokenizer | None) -> tuple[list[str], list[int]]:
    """Returns stop strings and stop ids.

    Special tokens never come out as text, so one that is a stop is an id.

    Raises ValueError for "" and for a special token inside other text, TypeError for other things.
    """
    items: list[str | int]
    if stop is None:
        items = []
    elif isinstance(stop, str) or not isinstance(stop, Sequence):
        items = [stop]
    else:
        items = list(stop)
    for item in items:
        if isinstance(item, bool) or not isinstance(item, str | int):
            raise TypeError(f"stop: expected strings and token ids, got {item!r}")
        if item == "":
            raise ValueError("stop: an empty string stops nothing")
    special = tokenizer.special_ids if tokenizer is not None else {}
    strings = [s for s in items if isinstance(s, str) and s not in special]
    for string in strings:
        inside = next((token for token in special if token in string), None)
        if inside is not None:
            raise ValueError(
                f"stop: {string!r} holds the special token {inside!r}, which never comes out as "
                "text; stop at the token alone or at the text beside it"
            )
    ids = [i if isinstance(i, int) else special[i] for i in items if i not in strings]
    return strings, ids


def _emitter(stream: Stream, n_sequences: int) -> Callable[[str], object]:
    if stream is None or stream is False:
        return lambda piece: None
    if n_sequences > 1:
        raise ValueError(f"stream: follows one sequence, this request has {n_sequences}")
    write = _print_piece if stream is True else stream
    return lambda piece: write(piece) if piece else None


def _print_piece(piece: str) -> None:
    sys.stdout.write(piece)
    sys.stdout.flush()
