"""Chooses the next token of each sequence, and ends it."""

from __future__ import annotations

import secrets
from collections.abc import Sequence as Sequences
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Protocol

import torch

from ..parallel import Group, SamplingRanks, from_rank_0
from ..sampling import SamplingParams, greedy, sample
from ..sampling.edits import is_edited
from ..sampling.sample import RowSampler
from ..text.tokenizer import Tokenizer
from .sequence import Sequence
from .stops import StopFunction, Stops

NOT_NUMBERS = "the logits hold NaN or infinity, so there is no token to choose"


class Choosing(Protocol):
    """The part of a model that choosing needs."""

    tokenizer: Tokenizer | None
    group: Group | None

    @property
    def sampler(self) -> RowSampler | None: ...

    @property
    def vocab_start(self) -> int: ...


@dataclass(frozen=True)
class Chooser:
    """The rules by which tokens are chosen and sequences end: the same for every row.

    Attributes:
        no_repeat_ngram_size: No n-gram of this size appears twice in a row, its prompt included; 0
            permits all.
        ranks: Who holds the other slices of the logits, if this rank's begins at `vocab_start`.
        sampler: Draws tokens where the logits are, if that is not the CPU.
        follows_text: A stop or a reader waits for the text; else it is made at the end.
    """

    params: SamplingParams
    stop_ids: list[int]
    stop_functions: list[StopFunction]
    min_new_tokens: int
    no_repeat_ngram_size: int
    ranks: SamplingRanks | None
    vocab_start: int
    sampler: RowSampler | None
    follows_text: bool

    @cached_property
    def is_plain(self) -> bool:
        """Whether the best token on the CPU is all that is asked for, stops apart."""
        params = replace(self.params, min_tokens=0)
        return (
            params.temperature == 0
            and params.logprobs is None
            and self.ranks is None
            and self.sampler is None
            and self.no_repeat_ngram_size == 0
            and not is_edited(params)
        )

    def params_of(self, sequence: Sequence) -> SamplingParams:
        """Returns the sampler's parameters for the next token of a sequence."""
        if not self.no_repeat_ngram_size:
            return self.params
        banned = repeating([*sequence.prompt, *sequence.new], self.no_repeat_ngram_size)
        bias = dict(self.params.logit_bias) | dict.fromkeys(banned, -float("inf"))
        return replace(self.params, logit_bias=bias)

    def advance(self, sequence: Sequence, token: int) -> str:
        """Appends a token; returns the text it releases."""
        sequence.new.append(token)
        if token in self.stop_ids:
            sequence.end("stop")
            return ""
        if sequence.guide is not None:
            sequence.guide.accept(token)
        may_stop = len(sequence.new) >= self.min_new_tokens
        released = ""
        if sequence.stream is not None and self.follows_text:
            released = sequence.stream.push(token, may_stop=may_stop)
            if sequence.stream.stopped:
                sequence.end("stop")
        if may_stop and sequence.ended is None and self.stop_functions:
            text = sequence.stream.text if sequence.stream is not None else ""
            new = list(sequence.new)
            if any(stop(new, text) for stop in self.stop_functions):
                sequence.end("stop")
        return released

    def retract(self, sequence: Sequence, n: int) -> None:
        """Takes back the last n tokens of a sequence that goes on no longer."""
        if n == 0:
            return
        del sequence.new[len(sequence.new) - n :]
        del sequence.logprobs[len(sequence.new) :]
        if sequence.stream is not None and self.follows_text:
            sequence.stream = sequence.stream.emptied()
            for token in sequence.new:  # none of them was a stop, or the others had not come
                sequence.stream.push(token, may_stop=False)

    def finish(self, sequence: Sequence) -> str:
        """Returns the text that is left at a sequence's end."""
        if sequence.stream is None:
            return ""
        if not self.follows_text:
            for token in sequence.new:
                if token not in self.stop_ids:
                    sequence.stream.push(token)
        return sequence.stream.finish()


def make_chooser(
    model: Choosing,
    params: SamplingParams,
    stops: Stops,
    *,
    min_new_tokens: int,
    no_repeat_ngram_size: int,
    follows_text: bool,
) -> Chooser:
    """Returns the rules of one request. The tokenizer's `eos_ids` end sequences, too.

    A seed of None becomes a fresh one, the same on every rank.
    """
    eos_ids = model.tokenizer.eos_ids if model.tokenizer is not None else ()
    stop_ids = sorted({*stops.ids, *eos_ids})
    seed = _random_seed(model.group) if params.seed is None else params.seed
    least = min_new_tokens if stop_ids else 0
    return Chooser(
        params=replace(params, seed=seed, min_tokens=least, stop_token_ids=stop_ids),
        stop_ids=stop_ids,
        stop_functions=stops.functions,
        min_new_tokens=min_new_tokens,
        no_repeat_ngram_size=no_repeat_ngram_size,
        ranks=SamplingRanks(model.group) if model.group is not None else None,
        vocab_start=model.vocab_start,
        sampler=model.sampler,
        follows_text=follows_text or bool(stops.strings or stops.functions),
    )


def choose(
    choosers: Sequences[Chooser], sequences: Sequences[Sequence], logits_BV: torch.Tensor
) -> list[int]:
    """Returns the next token of each sequence, each by its own rules, -1 where the logits are not
    numbers; notes log-probabilities where they are asked for."""
    if choosers[0].sampler is None:
        logits_BV = logits_BV.cpu()
    guided = [b for b, sequence in enumerate(sequences) if sequence.guide is not None]
    if guided:
        logits_BV = logits_BV.clone()
    for b in guided:
        guide = sequences[b].guide
        assert guide is not None
        logits_BV[b] = guide.mask(logits_BV[b].cpu(), choosers[b].vocab_start)
    tokens = [-1] * len(sequences)
    drawn = []
    for b, (chooser, sequence) in enumerate(zip(choosers, sequences, strict=True)):
        if chooser.is_plain:
            banned = chooser.stop_ids if len(sequence.new) < chooser.min_new_tokens else ()
            tokens[b] = greedy(logits_BV[b].numpy(), banned)
        else:
            drawn.append(b)
    if drawn:
        rows = logits_BV if len(drawn) == len(sequences) else logits_BV[drawn]
        found = _draw([choosers[b] for b in drawn], [sequences[b] for b in drawn], rows)
        for b, token in zip(drawn, found, strict=True):
            tokens[b] = token
    return tokens


def _draw(choosers: list[Chooser], sequences: list[Sequence], logits_BV: torch.Tensor) -> list[int]:
    first = choosers[0]
    alike = all(chooser is first for chooser in choosers) and not first.no_repeat_ngram_size
    each = zip(choosers, sequences, strict=True)
    by_ranks = partial(sample, group=first.ranks, vocab_start=first.vocab_start)
    chosen = (first.sampler or by_ranks)(
        logits_BV.float(),  # the sampler's arithmetic is fp32; this rounds under fp64 only
        first.params if alike else [chooser.params_of(sequence) for chooser, sequence in each],
        positions=[len(s.prompt) + len(s.new) for s in sequences],
        draws=[s.draw for s in sequences],
        prompt_ids=[s.prompt for s in sequences],
        output_ids=[s.new for s in sequences],
    )
    if chosen.logprobs is not None:
        for b, (chooser, sequence) in enumerate(zip(choosers, sequences, strict=True)):
            n = chooser.params.logprobs
            if n is None:
                continue
            sequence.logprobs.append((float(chosen.logprobs[b]), *chosen.best(b, n)))
    tokens: list[int] = chosen.tokens.tolist()
    return tokens


def _random_seed(group: Group | None) -> int:
    return int.from_bytes(from_rank_0(group, secrets.token_bytes(8)))


def repeating(tokens: Sequences[int], n: int) -> set[int]:
    """Returns the tokens that would complete an n-gram that `tokens` hold already."""
    if n == 0 or len(tokens) < n:
        return set()
    last = tuple(tokens[len(tokens) - n + 1 :])
    starts = range(len(tokens) - n + 1)
    return {tokens[i + n - 1] for i in starts if tuple(tokens[i : i + n - 1]) == last}
