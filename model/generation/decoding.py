"""The passes of a generation: what runs in each, what is shown, and when it is over.

Tensor names: B sequences, b rows of a pass, P columns, V vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from collections.abc import Sequence as Sequences
from typing import Protocol

import torch
import torch.nn.functional as F

from ..batching.batched_model import BatchedModel
from ..cache.kv_cache import KVCache
from ..cache.sequence_pages import PagedModel
from ..hooks.captures import Captures
from ..hooks.generation_step import GenerationStep, at_step
from ..hooks.registry import has_key_axis, masked_value
from ..parallel import Group
from ..sampling.sample import RowSampler
from ..text.prompts import left_pad, padding_id
from ..text.tokenizer import Tokenizer
from .chooser import NOT_NUMBERS, Chooser, choose
from .monitors import GenerationWatch, WatchedPass
from .sequence import Sequence


class Decoder(BatchedModel, PagedModel, Protocol):
    """The part of a model that generation needs."""

    tokenizer: Tokenizer | None
    group: Group | None

    @property
    def hook_names(self) -> list[str]: ...

    @property
    def vocab_start(self) -> int: ...

    @property
    def sampler(self) -> RowSampler | None: ...

    @property
    def is_watched(self) -> bool:
        """Whether functions of the user's run inside the next pass."""

    def new_cache(self, batch_size: int = 1) -> KVCache: ...


class Decoding:
    """Sequences under way.

    A prompt that several rows have is read once, and they share its pages. A row that has ended
    leaves the batch, unless hook functions or overrides run: then it goes on as padding, so that
    row b stays row b for them. With a watch, a row stays until its last token was scored.

    Attributes:
        n_passes: Passes that were run.
        captured: By hook name, what each pass captured, [B, ...].
    """

    def __init__(
        self,
        model: Decoder,
        sequences: list[Sequence],
        chooser: Chooser,
        max_new_tokens: int,
        names: Sequences[str],
        emit: Callable[[int, str], object],
        watch: GenerationWatch | None,
    ) -> None:
        self.model, self.sequences, self.chooser = model, sequences, chooser
        self.max_new_tokens, self.watch = max_new_tokens, watch
        self.n_passes = 0
        self.captured: dict[str, list[torch.Tensor]] = {name: [] for name in names}
        self._emit = emit
        self._held: list[deque[str]] = [deque() for _ in sequences]
        self._rows = list(range(len(sequences)))
        self._pad_id = padding_id(model.tokenizer)

    def run(self) -> None:
        """Runs passes until every sequence has ended."""
        readers = self._readers()
        self._rows = list(dict.fromkeys(readers))
        tokens_bP, mask_bP = left_pad(
            [self.sequences[row].prompt for row in self._rows], self._pad_id
        )
        cache = self.model.new_cache(len(self._rows))
        real_bP = mask_bP == 1
        logits_bV = self._pass(tokens_bP, mask_bP, real_bP, 0, cache)
        if len(self._rows) < len(readers):
            places = [self._rows.index(row) for row in readers]
            cache.keep(places)
            logits_bV, self._rows = logits_bV[places], list(range(len(readers)))
        self._choose(logits_bV)
        self._go_on(cache, real_bP)

    def _go_on(self, cache: KVCache, real_bP: torch.Tensor) -> None:
        """Runs passes over a token of each row until every sequence has ended."""
        n_columns = max(len(sequence.prompt) for sequence in self.sequences)
        while wanted := self._wanted():
            self._leave(wanted, cache)
            last = [self._last(row) for row in self._rows]
            tokens_b1 = torch.tensor(last, dtype=torch.int64, device="cpu")[:, None]
            real_bP = self._real([row in wanted for row in self._rows], real_bP)
            logits_bV = self._pass(tokens_b1, None, real_bP, n_columns + self.n_passes - 1, cache)
            self._choose(logits_bV)

    def _wanted(self) -> list[int]:
        """The rows that the next pass needs: to go on, or to score their last token."""
        return [row for row in range(len(self.sequences)) if self._is_wanted(row)]

    def _readers(self) -> list[int]:
        """The row that reads each row's prompt: the first one with the same prompt, unless
        somebody counts on every row's place in the pass."""
        if self.model.is_watched or self.captured or self.watch is not None:
            return list(range(len(self.sequences)))
        first: dict[tuple[int, ...], int] = {}
        return [first.setdefault(tuple(s.prompt), row) for row, s in enumerate(self.sequences)]

    def _real(self, real: list[bool], before_bP: torch.Tensor) -> torch.Tensor:
        """bool [b, 1]; the same tensor as long as nothing changes, which tells monitors so."""
        if before_bP.shape == (len(real), 1) and before_bP[:, 0].tolist() == real:
            return before_bP
        return torch.tensor(real, dtype=torch.bool, device="cpu")[:, None]

    def release(self) -> None:
        """Hands out the text that is left of rows that no alarm ended."""
        for row, sequence in enumerate(self.sequences):
            rest = self.chooser.finish(sequence)
            if sequence.ended not in ("alarm", "error"):
                self._emit(row, "".join(self._held[row]) + rest)

    def _pass(
        self,
        tokens_bP: torch.Tensor,
        mask: torch.Tensor | None,
        real_bP: torch.Tensor,
        column: int,
        cache: KVCache,
    ) -> torch.Tensor:
        hook_names = self.watch.hook_names if self.watch is not None else ()
        captures = Captures(frozenset((*self.captured, *hook_names)))
        step = self._step()
        with at_step(step):
            logits_bV = self.model.forward_last_slice(tokens_bP, mask, cache, captures)
        self.n_passes += 1
        if any(self._goes_on(row) for row in self._rows):
            for name in self.captured:
                self.captured[name].append(self._spread(name, captures.found[name]))
        for sequence in (self.sequences[row] for row in self._rows):
            sequence.n_read = len(sequence.new)
        if self.watch is not None:
            found = {name: captures.found[name].cpu() for name in hook_names}
            seen = WatchedPass(step, self._rows, real_bP, column, found)
            for row, reason in self.watch.see(seen).items():
                self.sequences[row].end(reason)
            self._let_out(self.watch.hold)
        return logits_bV

    def _step(self) -> GenerationStep:
        prompts, new = [s.prompt for s in self.sequences], [s.new for s in self.sequences]
        return GenerationStep(self.n_passes, prompts, new)

    def _choose(self, logits_bV: torch.Tensor) -> None:
        going = [i for i, row in enumerate(self._rows) if self._goes_on(row)]
        if not going:
            return
        if len(going) < len(self._rows):
            logits_bV = logits_bV[going]
        chosen = [self.sequences[self._rows[i]] for i in going]
        tokens = choose([self.chooser] * len(chosen), chosen, logits_bV)
        if min(tokens) < 0:
            raise ValueError(NOT_NUMBERS)
        for i, sequence, token in zip(going, chosen, tokens, strict=True):
            self._held[self._rows[i]].append(self.chooser.advance(sequence, token))
        if self.watch is None or self.watch.hold == 0:
            self._let_out(0)

    def _goes_on(self, row: int) -> bool:
        sequence = self.sequences[row]
        return sequence.ended is None and len(sequence.new) < self.max_new_tokens

    def _is_wanted(self, row: int) -> bool:
        sequence = self.sequences[row]
        unread = sequence.n_read < len(sequence.new) and sequence.ended not in ("alarm", "error")
        return self._goes_on(row) or (self.watch is not None and unread)

    def _last(self, row: int) -> int:
        sequence = self.sequences[row]
        return sequence.new[-1] if sequence.new and self._is_wanted(row) else self._pad_id

    def _leave(self, wanted: list[int], cache: KVCache) -> None:
        """Rows that are over leave the batch, unless somebody counts on their places."""
        if len(wanted) < len(self._rows) and not self.model.is_watched:
            cache.keep([self._rows.index(row) for row in wanted])
            self._rows = wanted

    def _let_out(self, hold: int) -> None:
        for row in self._rows:
            held = self._held[row]
            while len(held) >= max(hold, 1) and self.sequences[row].ended not in ("alarm", "error"):
                self._emit(row, held.popleft())

    def _spread(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """What a pass captured, at its sequences' rows; blank where a sequence had ended."""
        rows = [i for i, row in enumerate(self._rows) if self._goes_on(row)]
        if len(rows) == len(self.sequences):
            return x
        value = masked_value(name)
        out = x.new_full((len(self.sequences), *x.shape[1:]), value if x.is_floating_point() else 0)
        out[[self._rows[i] for i in rows]] = x[rows]
        return out


def joined(name: str, steps: list[torch.Tensor]) -> torch.Tensor:
    """Returns what the passes captured, one after the other along the position axis."""
    if not has_key_axis(name):
        return torch.cat(steps, dim=1)
    n_keys = max(x.shape[-1] for x in steps)
    padded = [F.pad(x, (0, n_keys - x.shape[-1]), value=masked_value(name)) for x in steps]
    return torch.cat(padded, dim=2)
