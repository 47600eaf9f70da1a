"""The monitors of one call: scores as tokens come, and alarms.

Shapes: B sequences, b rows of a pass, P its columns, N real tokens of it, K monitors of a scorer.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from ...model.generation.monitors import WatchedPass
from ...model.transformer import HookedTransformer
from ..probes import Probe
from ..probes.linear import LinearProbe
from .alarm import Alarm, DecidedBy, Explanation
from .explain import explain
from .scorers import LinearScorers, ScoredPass, Scorer, StreamScorer, is_score
from .second_look import fp32_score
from .watched import Watched


class _Given(NamedTuple):
    """The scores of a pass, and whose they are."""

    rows: list[int]
    real: torch.Tensor
    column: int
    scored: list[ScoredPass]


class Watching:
    """The state of the monitors in one call of `generate`, returned by `Monitor.watch`.

    Attributes:
        alarms: In the order they were raised.
    """

    def __init__(
        self,
        monitors: Sequence[Watched],
        model: HookedTransformer,
        prompts: Sequence[Sequence[int]],
    ) -> None:
        self.monitors, self.alarms = monitors, list[Alarm]()
        self.hold = max(monitor.hold for monitor in monitors)
        self.hook_names = list(dict.fromkeys(n for m in monitors for n in m.probe.hook_names))
        self._exact = model.ops.policy.name == "fp32"
        self._limits = [m.threshold - (0.0 if self._exact else m.margin) for m in monitors]
        self._n_rows = len(prompts)
        self._scorers = _scorers(monitors, self._limits, self._n_rows)
        self._above: set[tuple[int, int]] = set()
        self._is_told = any(monitor.on_score is not None for monitor in monitors)
        self._given: list[_Given] = []
        self._rows, self._real = list[int](), torch.zeros(0, dtype=torch.bool, device="cpu")
        self._rows_N = torch.zeros(0, dtype=torch.int64, device="cpu")
        self._kept: dict[str, list[list[torch.Tensor]]] = {
            m.probe.hook_name: [[] for _ in prompts] for m in monitors if m.dictionary is not None
        }

    def see(self, seen: WatchedPass) -> Mapping[int, str]:
        """Scores the tokens of a pass; returns why rows must end, by row.

        Raises ValueError for NaN or infinity in an activation.
        """
        self._keep(seen)
        rows_N = self._owners(seen)
        given = [scorer.push(seen, rows_N) for scorer in self._scorers]
        # Not the pass itself: its activations would fill the memory.
        self._given.append(_Given(seen.rows, seen.real, seen.column, given))
        ended: dict[int, str] = {}
        if self._is_told or self._above or any(scored.is_above for scored in given):
            for scored in given:
                self._judge(scored, seen, rows_N, ended)
        return ended

    def scores(self, n_columns: int) -> dict[str, torch.Tensor]:
        """Returns each monitor's scores, fp32 [B, n_columns]; NaN where it gave none."""
        shape = len(self.monitors), self._n_rows, n_columns
        out = torch.full(shape, math.nan, dtype=torch.float32, device="cpu")
        for rows, real, column, given in self._given:
            at = real.nonzero()
            rows_N = torch.tensor(rows, device="cpu")[at[:, 0]]
            for scored in given:
                monitors_K = torch.tensor(scored.monitors, device="cpu")[:, None]
                out[monitors_K, rows_N, column + at[:, 1]] = scored.scores.T
        return {monitor.name: out[i] for i, monitor in enumerate(self.monitors)}

    def _owners(self, seen: WatchedPass) -> torch.Tensor:
        """The sequence of each real token; the same tensor as long as `real` is."""
        if seen.real is not self._real or seen.rows != self._rows:
            self._real, self._rows = seen.real, list(seen.rows)
            rows_b = torch.tensor(seen.rows, dtype=torch.int64, device="cpu")
            self._rows_N = rows_b.repeat_interleave(seen.real.sum(1))
        return self._rows_N

    def _judge(
        self, scored: ScoredPass, seen: WatchedPass, rows_N: torch.Tensor, ended: dict[int, str]
    ) -> None:
        owners, counts = (
            rows_N.tolist(),
            dict(zip(seen.rows, seen.real.sum(1).tolist(), strict=True)),
        )
        for k, index in enumerate(scored.monitors):
            monitor, place = self.monitors[index], dict.fromkeys(seen.rows, 0)
            for row, score in zip(owners, scored.scores[:, k].tolist(), strict=True):
                place[row] += 1
                if not is_score(score) or (monitor.rows is not None and row not in monitor.rows):
                    continue
                behind = counts[row] - place[row]  # tokens of the row after this one
                if monitor.on_score is not None:
                    tokens = seen.step.tokens(row)
                    at = len(tokens) - 1 - behind
                    monitor.on_score(row, at, tokens[at], score)
                if score > self._limits[index] and (index, row) not in self._above:
                    self._raise(index, row, score, behind, seen, ended)
                (self._above.add if score > self._limits[index] else self._above.discard)(
                    (index, row)
                )

    def _raise(
        self,
        index: int,
        row: int,
        score: float,
        behind: int,
        seen: WatchedPass,
        ended: dict[int, str],
    ) -> None:
        monitor = self.monitors[index]
        tokens = seen.step.tokens(row)
        tokens = tokens[: len(tokens) - behind]
        decided_by: DecidedBy = "score"
        if not self._exact and abs(score - monitor.threshold) <= monitor.margin:
            decided_by = "undecided"
            if monitor.fp32_model is not None:
                decided_by, score = "fp32", fp32_score(monitor, tokens)
                if not score > monitor.threshold:
                    return
        explanation = None
        if decided_by != "fp32":  # the activations at hand are the running model's
            explanation = self._explained(monitor, row, len(tokens))
        alarm = Alarm(
            monitor.name, row, len(tokens) - 1, tokens[-1], score, monitor.threshold, decided_by,
            seen.step.index, tuple(tokens), explanation,
        )  # fmt: skip
        self._act(monitor, alarm, ended)

    def _act(self, monitor: Watched, alarm: Alarm, ended: dict[int, str]) -> None:
        if monitor.on_alarm == "stop" and alarm.decided_by != "undecided":
            ended[alarm.row] = "alarm"
        elif callable(monitor.on_alarm):
            try:
                if monitor.on_alarm(alarm) in (True, "stop"):
                    ended.setdefault(alarm.row, "alarm")
            except Exception as error:
                alarm = alarm.with_error(error)
                ended[alarm.row] = "error"
                warnings.warn(
                    f"monitor {monitor.name!r}: its function raised {alarm.error}; row "
                    f"{alarm.row} ends here",
                    RuntimeWarning,
                    stacklevel=2,
                )
        self.alarms.append(alarm)

    def _explained(self, monitor: Watched, row: int, n_tokens: int) -> Explanation | None:
        if monitor.dictionary is None or not isinstance(monitor.probe, LinearProbe):
            return None
        rows = torch.cat(self._kept[monitor.probe.hook_name][row])[:n_tokens]
        return explain(monitor.probe, monitor.dictionary, rows)

    def _keep(self, seen: WatchedPass) -> None:
        for name, kept in self._kept.items():
            for i, row in enumerate(seen.rows):
                kept[row].append(seen.found[name][i][seen.real[i]].flatten(1).float())


def _scorers(monitors: Sequence[Watched], limits: Sequence[float], n_rows: int) -> list[Scorer]:
    """Linear probes of activations share one call a pass; others score by themselves."""
    shared: dict[int, Probe] = {}
    scorers: list[Scorer] = []
    for index, monitor in enumerate(monitors):
        probe = monitor.probe
        is_dense = not monitor.reads_features and len(probe.hook_names) == 1
        if isinstance(probe, LinearProbe) and is_dense:
            shared[index] = probe
        else:
            features = monitor.dictionary if monitor.reads_features else None
            scorers.append(StreamScorer(index, probe, features, n_rows, limits[index]))
    if shared:
        scorers.append(LinearScorers(shared, limits, n_rows))
    return scorers
