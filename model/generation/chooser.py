"""Chooses the next token of each sequence, and ends it."""

from __future__ import annotations

from collections.abc import Sequence as Sequences
from dataclasses import dataclass, replace

import torch

from ..parallel import SamplingRanks
from ..sampling import SamplingParams, greedy, sample
from ..sampling.edits import is_edited
from .sequence import Sequence
from .stops import StopFunction


@dataclass(frozen=True)
class Chooser:
    """The rules by which tokens are chosen and sequences end: the same for every row.

    Attributes:
        no_repeat_ngram_size: No n-gram of this size appears twice in a row, its prompt included; 0
            permits all.
        ranks: Who holds the other slices of the logits, if this rank's begins at `vocab_start`.
        follows_text: A stop or a reader waits for the text; else it is made at the end.
    """

    params: SamplingParams
    stop_ids: list[int]
    stop_functions: list[StopFunction]
    min_new_tokens: int
    no_repeat_ngram_size: int
    ranks: SamplingRanks | None
    vocab_start: int
    follows_text: bool

    def choose(self, sequences: list[Sequence], logits_BV: torch.Tensor) -> list[int]:
        """Returns the next token of each sequence, and notes log-probabilities where asked for.

        Raises ValueError for logits that are not numbers.
        """
        logits_BV = logits_BV.cpu()
        if self._is_plain:
            tokens = [
                greedy(row_V, self.stop_ids if len(s.new) < self.min_new_tokens else ())
                for row_V, s in zip(logits_BV.numpy(), sequences, strict=True)
            ]
            return self._checked(tokens)
        chosen = sample(
            logits_BV.float(),  # the sampler's arithmetic is fp32; this rounds under fp64 only
            [self._params_of(s) for s in sequences] if self.no_repeat_ngram_size else self.params,
            positions=[len(s.prompt) + len(s.new) for s in sequences],
            draws=[s.draw for s in sequences],
            prompt_ids=[s.prompt for s in sequences],
            output_ids=[s.new for s in sequences],
            group=self.ranks,
            vocab_start=self.vocab_start,
        )
        tokens = self._checked(chosen.tokens.tolist())
        if chosen.logprobs is not None:
            for b, sequence in enumerate(sequences):
                best = [] if chosen.top_ids is None else chosen.top_ids[b].tolist()
                best_logprobs = (
                    [] if chosen.top_logprobs is None else chosen.top_logprobs[b].tolist()
                )
                sequence.logprobs.append((float(chosen.logprobs[b]), best, best_logprobs))
        return tokens

    @property
    def _is_plain(self) -> bool:
        """Whether the best token is all that is asked for, stops apart."""
        params = replace(self.params, min_tokens=0)
        return (
            params.temperature == 0
            and params.logprobs is None
            and self.ranks is None
            and self.no_repeat_ngram_size == 0
            and not is_edited(params)
        )

    def _params_of(self, sequence: Sequence) -> SamplingParams:
        banned = repeating([*sequence.prompt, *sequence.new], self.no_repeat_ngram_size)
        bias = dict(self.params.logit_bias) | dict.fromkeys(banned, -float("inf"))
        return replace(self.params, logit_bias=bias)

    def _checked(self, tokens: list[int]) -> list[int]:
        if min(tokens) < 0:
            raise ValueError("the logits hold NaN or infinity, so there is no token to choose")
        return tokens

    def advance(self, sequence: Sequence, token: int) -> str:
        """Appends a token; returns the text it releases."""
        sequence.new.append(token)
        if token in self.stop_ids:
            sequence.end("stop")
            return ""
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

    def finish(self, sequence: Sequence) -> str:
        """Returns the text that is left at a sequence's end."""
        if sequence.stream is None:
            return ""
        if not self.follows_text:
            for token in sequence.new:
                if token not in self.stop_ids:
                    sequence.stream.push(token)
        return sequence.stream.finish()


def repeating(tokens: Sequences[int], n: int) -> set[int]:
    """Returns the tokens that would complete an n-gram that `tokens` hold already."""
    if n == 0 or len(tokens) < n:
        return set()
    last = tuple(tokens[len(tokens) - n + 1 :])
    starts = range(len(tokens) - n + 1)
    return {tokens[i + n - 1] for i in starts if tuple(tokens[i : i + n - 1]) == last}
