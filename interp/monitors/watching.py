"""The monitors of one call: scores as tokens come, and alarms.

Shapes: B sequences, b rows of a pass, P its columns, N tokens scored in it, K probes at one hook,
D width.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence

import torch

from ...model.generation.monitors import WatchedPass
from ...model.transformer import HookedTransformer
from ..probes.linear import LinearProbe
from .alarm import Alarm, DecidedBy, Explanation
from .explain import explain
from .scorers import LinearScorers, Scorer, StreamScorer
from .second_look import fp32_score
from .watched import Watched


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
        self._scorers = _scorers(monitors, len(prompts))
        self._above = [[False] * len(prompts) for _ in monitors]
        self._found: list[list[tuple[int, torch.Tensor]]] = [[] for _ in monitors]
        self._n_rows = len(prompts)
        self._kept: dict[str, list[list[torch.Tensor]]] = {
            m.probe.hook_name: [[] for _ in prompts] for m in monitors if m.dictionary is not None
        }

    def see(self, seen: WatchedPass) -> Mapping[int, str]:
        """Scores the tokens of a pass; returns why rows must end, by row.

        Raises ValueError for NaN or infinity in an activation.
        """
        self._keep(seen)
        ended: dict[int, str] = {}
        for scorer in self._scorers:
            for index, scores_bP in scorer.push(seen):
                self._found[index].append((seen.column, self._spread(scores_bP, seen.rows)))
                for i, row in enumerate(seen.rows):
                    self._judge(index, row, scores_bP[i], seen, ended)
        return ended

    def scores(self, n_columns: int) -> dict[str, torch.Tensor]:
        """Returns each monitor's scores, fp32 [B, n_columns]; NaN where it gave none."""
        found = {}
        for monitor, parts in zip(self.monitors, self._found, strict=True):
            out = torch.full((self._n_rows, n_columns), math.nan)
            for column, part in parts:
                out[:, column : column + part.shape[1]] = part
            found[monitor.name] = out
        return found

    def _judge(
        self, index: int, row: int, scores_P: torch.Tensor, seen: WatchedPass, ended: dict[int, str]
    ) -> None:
        monitor = self.monitors[index]
        if monitor.rows is not None and row not in monitor.rows:
            return
        was_above = self._above[index][row]
        columns = scores_P.tolist()
        scored = [c for c, score in enumerate(columns) if not math.isnan(score)]
        real = [c for c, r in enumerate(seen.real[seen.rows.index(row)].tolist()) if r]
        for c in scored:
            # Tokens behind this one in the pass; the last stands at the end of the sequence.
            behind = len(real) - 1 - real.index(c)
            if monitor.on_score is not None:
                tokens = seen.step.tokens(row)
                at = len(tokens) - 1 - behind
                monitor.on_score(row, at, tokens[at], columns[c])
            is_above = columns[c] > monitor.threshold - (0.0 if self._exact else monitor.margin)
            if is_above and not was_above:
                self._raise(index, row, columns[c], behind, seen, ended)
            was_above = is_above
        self._above[index][row] = was_above

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

    def _spread(self, scores_bP: torch.Tensor, rows: list[int]) -> torch.Tensor:
        if len(rows) == self._n_rows:
            return scores_bP
        out = torch.full((self._n_rows, scores_bP.shape[1]), math.nan)
        out[rows] = scores_bP
        return out


def _scorers(monitors: Sequence[Watched], n_rows: int) -> list[Scorer]:
    """Linear probes of activations share one product a hook; others score by themselves."""
    shared: dict[str, list[int]] = {}
    scorers: list[Scorer] = []
    for index, monitor in enumerate(monitors):
        probe = monitor.probe
        if (
            isinstance(probe, LinearProbe)
            and len(probe.hook_names) == 1
            and not monitor.reads_features
        ):
            shared.setdefault(probe.hook_name, []).append(index)
        else:
            features = monitor.dictionary if monitor.reads_features else None
            scorers.append(StreamScorer(index, probe, features, n_rows))
    for hook_name, indices in shared.items():
        probes = [monitors[i].probe for i in indices]
        scorers.append(LinearScorers(indices, hook_name, probes, n_rows))
    return scorers
