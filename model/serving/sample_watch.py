"""The monitors of one sample: what they have seen of it, and when to end it."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Sequences
from dataclasses import dataclass

import torch

from ..generation.monitors import GenerationAlarm, GenerationWatch, WatchedPass
from ..generation.sequence import Sequence
from ..hooks.generation_step import GenerationStep
from .request import MonitorFailed

_ONE = torch.ones(1, 1, dtype=torch.bool, device="cpu")


@dataclass(eq=False)
class SampleWatch:
    """A sample under watch. Its state outlives preemption: no token is shown to it twice.

    Attributes:
        watch: The monitors of the request, whose rows are its samples.
        n_seen: Tokens that were scored, the prompt's included.
    """

    watch: GenerationWatch
    sample: int
    n_samples: int
    n_seen: int = 0

    @property
    def hook_names(self) -> Sequences[str]:
        """Hooks to show it."""
        return self.watch.hook_names

    @property
    def hold(self) -> int:
        """Tokens that wait, as `GenerationWatch.hold` says."""
        return self.watch.hold

    @property
    def alarms(self) -> list[GenerationAlarm]:
        """The sample's own."""
        return [alarm for alarm in self.watch.alarms if alarm.row == self.sample]

    def see(
        self, sequence: Sequence, start: int, n: int, found: Mapping[str, torch.Tensor]
    ) -> None:
        """Scores what is new among the n tokens from `start` on, and ends the sequence by an alarm.

        `found`: activations [1, n, ...] by hook name.

        Raises:
            MonitorFailed: what a monitor's function raised on an alarm.
            Exception: NaN in an activation, or what a function raised that is told of scores.
        """
        end, skip = start + n, max(0, self.n_seen - start)
        if skip >= n:
            return
        n_new = max(0, end - len(sequence.prompt))
        prompt, new = _first(sequence.prompt, end), _first(sequence.new, n_new)
        step = GenerationStep(n_new, [prompt] * self.n_samples, [new] * self.n_samples)
        real = _ONE if n - skip == 1 else torch.ones(1, n - skip, dtype=torch.bool, device="cpu")
        shown = {name: found[name][:, skip:] for name in self.watch.hook_names}
        ended = self.watch.see(WatchedPass(step, [self.sample], real, start + skip, shown))
        self.n_seen = end
        if (reason := ended.get(self.sample)) is not None:
            sequence.end(reason)
        if reason == "error":
            raise MonitorFailed(self._failure())

    def scores(self, n_tokens: int, longest: int) -> dict[str, torch.Tensor]:
        """Returns the scores of the first `n_tokens`, fp32 [n_tokens] by monitor; `longest` is the
        most that any sample of the request can have."""
        found = self.watch.scores(longest)
        return {name: x[self.sample, :n_tokens].clone() for name, x in found.items()}

    def _failure(self) -> str:
        failed = next((alarm for alarm in reversed(self.alarms) if alarm.error is not None), None)
        if failed is None:
            return "a monitor ended the answer by an error of which it says nothing"
        return (
            f"monitor {failed.monitor!r}: its function raised {failed.error} at the alarm of token "
            f"{failed.position}, so the answer ends there"
        )


def _first(tokens: list[int], n: int) -> list[int]:
    """The first n tokens; no copy where that is all."""
    return tokens if n >= len(tokens) else tokens[:n]
