"""One sample of a request on its way through the engine."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from ..batching.row import FinishReason, Row
from ..generation.decoding import joined
from ..hooks.registry import has_key_axis
from .handle import Handle
from .prompt_scores import HOOK, PromptScores
from .request import Completion, Request, Usage
from .sample_watch import SampleWatch


@dataclass(eq=False, kw_only=True)
class RequestRow(Row):
    """A sample on its way through the engine.

    Attributes:
        n_replayed: Tokens that were in the cache, and ran again for whoever watches them.
        captured: By hook name, what each of its passes captured.
        n_captured: The position up to which it did.
        names: Hooks to capture.
        watched: Its monitors; None without.
        prompt_scores: Where the prompt's log-probabilities go; None where nobody asks.
        waiting: Tokens that wait for their score, with their text.
        n_handed_out, n_characters: Tokens, and characters of their text, that were handed out.
    """

    handle: Handle
    request: Request
    names: frozenset[str]
    watched: SampleWatch | None = None
    prompt_scores: PromptScores | None = None
    n_replayed: int = 0
    captured: dict[str, list[torch.Tensor]] = field(default_factory=dict)
    n_captured: int = field(init=False)
    waiting: deque[tuple[int, str]] = field(default_factory=deque)
    n_handed_out: int = 0
    n_characters: int = 0

    def __post_init__(self) -> None:
        self.n_captured = self.request.observe_from

    @property
    def is_observed(self) -> bool:
        """Whether somebody asked to see it."""
        return bool(self.names) or self.watched is not None or self.prompt_scores is not None

    @property
    def sample(self) -> int:
        return self.sequence.draw

    @property
    def salt(self) -> str:
        """Only requests with the same salt share pages."""
        return self.request.salt

    @property
    def n_unseen(self) -> int:
        """Tokens whose keys and values it holds, and that somebody is still to see."""
        start = self.observed_from if self.is_observed else None
        return 0 if start is None else max(0, self.length - start)

    @property
    def runs_alone(self) -> bool:
        """Whether its passes hold no other row."""
        return bool(self.names) or self.n_unseen > 0

    @property
    def is_written(self) -> bool:
        """Whether it needs no further token."""
        new = self.sequence.new
        return self.sequence.ended is not None or len(new) >= self.request.max_new_tokens

    @property
    def is_over(self) -> bool:
        """Whether it needs no further pass: under watch, the last token runs for its score."""
        unscored = self.watched is not None and self.sequence.ended != "alarm"
        return self.is_written and not (unscored and self.n_unread > 0)

    @property
    def observed_names(self) -> frozenset[str]:
        """Hooks that somebody wants to see."""
        watched = () if self.watched is None else self.watched.hook_names
        return self.names.union(watched, () if self._unscored is None else (HOOK,))

    @property
    def observed_from(self) -> int | None:
        """The first token that somebody wants to see and has not seen yet; None for none."""
        seen = [self.n_captured] if self.names else []
        if self.watched is not None:
            seen.append(self.watched.n_seen)
        if self._unscored is not None:
            seen.append(self._unscored.n_seen)
        return min(seen, default=None)

    @property
    def _unscored(self) -> PromptScores | None:
        """The scores of the prompt while some are missing."""
        scores = self.prompt_scores
        return None if scores is None or scores.is_complete else scores

    def observe(self, start: int, n: int, found: Mapping[str, torch.Tensor]) -> None:
        """Keeps and shows what a pass over n tokens from `start` on found, [1, n, ...] by name.

        Raises as `SampleWatch.see`.
        """
        if self.names:
            self._capture(start, n, found)
        if self._unscored is not None:
            self._unscored.see(start, found[HOOK][0])
        if self.watched is not None:
            self.watched.see(self.sequence, start, n, found)
            if self.sequence.ended != "alarm":
                self._hand_out(self.watched.hold)

    def write(self, token: int, text: str) -> None:
        """Hands a token out, or has it wait for its score."""
        self.waiting.append((token, text))
        if self.watched is None or self.watched.hold == 0:
            self._hand_out(0)

    def finish(self, reason: FinishReason, error: Exception | None = None) -> None:
        """Ends the answer. Text that waits is handed out, unless a monitor or an error ended it;
        tokens that wait and were never scored are none of the answer."""
        sequence, self.is_finished = self.sequence, True
        if self.watched is not None and self.watched.hold > 0:
            n_scored = max(0, self.watched.n_seen - len(sequence.prompt))
            n_lost = max(0, len(sequence.new) - n_scored)
            self.chooser.retract(sequence, n_lost)
            for _ in range(min(n_lost, len(self.waiting))):
                self.waiting.pop()
        self.chooser.finish(sequence)
        if self.watched is None or reason not in ("alarm", "error"):
            self._hand_out(0)
            text = sequence.stream.text if sequence.stream is not None else ""
            self._push(None, text[self.n_characters :])
        self.handle.finish(self.sample, self.completion(reason), error)

    def _hand_out(self, hold: int) -> None:
        while len(self.waiting) >= max(hold, 1):
            self._push(*self.waiting.popleft())

    def _push(self, token: int | None, text: str) -> None:
        self.n_handed_out += token is not None
        self.n_characters += len(text)
        self.handle.push(self.sample, token, text if self.chooser.follows_text else None)

    def _capture(self, start: int, n: int, found: Mapping[str, torch.Tensor]) -> None:
        """Keeps what a pass found, less what comes before `observe_from`, and less the last token
        of an answer, which runs for its score."""
        last = self.is_written and self.n_unread == 0
        begin, end = max(0, self.n_captured - start), n - last
        if begin >= end:
            return
        for name in self.names:
            x = found[name]
            n_keys = x.shape[-1] - last
            kept = x[:, :, begin:end, :n_keys] if has_key_axis(name) else x[:, begin:end]
            self.captured.setdefault(name, []).append(kept)
        self.n_captured = start + end

    def forget_captures(self) -> None:
        """Begins to capture again, since its keys and values are given up."""
        self.captured.clear()
        self.n_captured = self.request.observe_from

    def note_replayed(self, end: int) -> None:
        """Counts what was found in the cache and ran again, up to a position."""
        n = min(end, self.n_cached or 0) - self.request.observe_from
        self.n_replayed = max(self.n_replayed, n)

    def completion(self, reason: FinishReason) -> Completion:
        """Returns the answer so far."""
        sequence, scores = self.sequence, self.prompt_scores
        cached = (self.n_cached or 0) - self.n_replayed
        usage = Usage(len(sequence.prompt), cached, self.n_written, len(sequence.new))
        seed = self.chooser.params.seed
        assert seed is not None
        return Completion(
            prompt_ids=list(sequence.prompt),
            ids=list(sequence.new),
            text=sequence.stream.text if sequence.stream is not None else "",
            logprobs=list(sequence.logprobs) if self.request.logprobs is not None else None,
            finish_reason=reason,
            seed=seed,
            usage=usage,
            prompt_logprobs=None if scores is None else scores.listed,
            stopped_by=sequence.stream.stopped_by if sequence.stream is not None else None,
            captured={name: joined(name, steps) for name, steps in self.captured.items()},
            scores=self._scores(),
            alarms=self.watched.alarms if self.watched is not None else [],
            n_handed_out=self.n_handed_out,
        )

    def _scores(self) -> dict[str, torch.Tensor]:
        if self.watched is None:
            return {}
        longest = len(self.sequence.prompt) + self.request.max_new_tokens
        return self.watched.scores(self.n_tokens, longest)
