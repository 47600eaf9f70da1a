"""One probe on watch: what it watches, and what happens when its score passes the threshold."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Self

from ...model.hooks.widths import hook_width
from ...model.transformer import HookedTransformer
from ..dictionaries import Dictionary, check_fits
from ..probes import Probe, ProbeFileError
from ..probes.aggregate import Aggregate
from .watched import OnAlarm, OnScore
from .watching import Watching


class Monitor:
    """A probe that scores every token of `generate`, the prompt's included.

    Its scores have the bits of `probe.running_scores` over the whole text: not batch mates, cache,
    chunks, threads or the instruction set move them. It sees the hook as edits leave it.
    """

    def __init__(
        self,
        probe: Probe,
        *,
        on_alarm: OnAlarm = "stop",
        window: int | None = None,
        threshold: float | None = None,
        margin: float | None = None,
        name: str | None = None,
        rows: Sequence[int] | None = None,
        dictionary: Dictionary | None = None,
        fp32_model: HookedTransformer | None = None,
        hold: int = 1,
        on_score: OnScore | None = None,
    ) -> None:
        """Makes a monitor; `generate(monitors=[...])` puts it on watch.

        Args:
            on_alarm: "stop" ends the row with finish reason "alarm"; "flag" notes the alarm. A
                function gets the Alarm and goes on, or ends the row by returning True or "stop";
                if it raises, its row ends with finish reason "error", and no other row.
            window: The score is the largest mean of so many tokens in a row, in place of the
                probe's own aggregate.
            threshold: None takes the probe's.
            margin: A score that is no further from the threshold is undecided, unless the model
                computes in fp32. None takes what the probe's metadata say under "margin", or 0.
            name: What scores and alarms are called; None takes the first hook's name.
            rows: Rows of the output to watch; None watches all.
            dictionary: Explains alarms; it must read the probe's hook.
            fp32_model: Scores an undecided sequence once more, which decides.
            hold: Tokens whose text waits until they are scored; 0 streams them at once.
            on_score: Called with row, position, token id and score of each token, before an alarm.

        Raises ValueError naming the argument.
        """
        probe.check_fitted()
        if not (on_alarm in ("stop", "flag") or callable(on_alarm)):
            raise ValueError(f'on_alarm = {on_alarm!r}: expected "stop", "flag" or a function')
        if hold < 0:
            raise ValueError(f"hold = {hold}: expected 0 or more")
        if dictionary is not None and [dictionary.cfg.hook_name] != list(probe.hook_names):
            raise ValueError(
                f"dictionary: reads {dictionary.cfg.hook_name}, the probe {probe.hook_names}"
            )
        if window is not None:
            probe = copy.copy(probe)
            probe.aggregate = Aggregate("rolling", window=window)
        self.probe, self.hold = probe, hold
        self.on_alarm: OnAlarm = on_alarm
        self.threshold = probe.threshold_ if threshold is None else float(threshold)
        self.margin = float(probe.metadata_.get("margin", 0.0) if margin is None else margin)
        if not (self.threshold == self.threshold and self.margin >= 0):
            raise ValueError(
                f"threshold = {self.threshold}, margin = {self.margin}: expected a number, and one "
                "that is 0 or more"
            )
        self.name = probe.hook_names[0] if name is None else name
        self.rows = None if rows is None else frozenset(rows)
        self.dictionary, self.fp32_model = dictionary, fp32_model
        self.on_score = on_score

    @property
    def reads_features(self) -> bool:
        """Whether its probe scores the dictionary's features, not activations."""
        return "dictionary" in self.probe.metadata_

    @classmethod
    def watch(
        cls, monitors: Sequence[Self], model: Any, prompts: Sequence[Sequence[int]]
    ) -> Watching:
        """Begins to watch the sequences of one call.

        Raises:
            ProbeFileError: a probe of another model, or of a hook that the model lacks.
            ValueError: two monitors of one name; a row that is none; a probe of features without
                its dictionary.
        """
        names = [monitor.name for monitor in monitors]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"monitors: two are called {twice!r}; give them names")
        for monitor in monitors:
            monitor.check_fits(model, len(prompts))
        return Watching(monitors, model, prompts)

    def check_fits(self, model: HookedTransformer, n_rows: int) -> None:
        """Raises as `watch` for what does not fit a model and a number of rows."""
        probe = self.probe
        for name in probe.hook_names:
            if name not in model.hook_names:
                raise ProbeFileError(f"monitor {self.name!r}: {name} is no hook of {model.name}")
        width = sum(hook_width(model.config, name) for name in probe.hook_names)
        if self.reads_features:
            if self.dictionary is None:
                raise ValueError(
                    f"monitor {self.name!r}: its probe reads features: give dictionary="
                )
            width = self.dictionary.cfg.d_sae
        if width != probe.coef_.shape[1]:
            raise ProbeFileError(
                f"monitor {self.name!r}: its probe reads {probe.coef_.shape[1]} values, there are "
                f"{width}"
            )
        if self.dictionary is not None:
            check_fits(self.dictionary, model)
        expected = probe.metadata_.get("model_fingerprint")
        if expected is not None and expected != model.fingerprint():
            raise ProbeFileError(
                f"monitor {self.name!r}: its probe was trained on a model with fingerprint "
                f"{str(expected)[:12]}..., {model.name} has {model.fingerprint()[:12]}...: train "
                "it again"
            )
        if self.rows is not None and not self.rows <= set(range(n_rows)):
            raise ValueError(f"monitor {self.name!r}: rows {sorted(self.rows)} of {n_rows}")
