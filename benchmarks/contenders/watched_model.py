"""bitlens with monitors: their own time in each step, and the whole run with and without them."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ...interp.dictionaries import load_dictionary
from ...interp.monitors import Monitor
from ...interp.monitors.explain import explain
from ...interp.monitors.watching import Watching
from ...interp.probes import LogisticProbe
from ...interp.probes.linear import LinearProbe
from ...model.generation.monitors import WatchedPass
from .bitlens_model import BitlensModel
from .timing import prompt, seconds

LAYERS = (10, 15, 20)
AGGREGATES = ("mean", "ema:0.2", "rolling:8", "max", "last", "mean", "ema:0.1", "rolling:16")
DICTIONARY = "smollm2-135m-instruct/blocks.15.hook_resid_post"


class WatchedModel(BitlensModel):
    """Eight probes on three hooks; every task runs under no_grad."""

    def generate(self, batch: int, n_prompt: int, n_new: int, watched: bool) -> dict[str, float]:
        """Seconds a step of a greedy run, and the median of the monitors' own in it."""
        tokens_BP = prompt(self.model.config.d_vocab, n_prompt, batch)
        monitors: list[_Timed] = [_Timed(p, name=n) for n, p in self._probes()] if watched else []
        _Timed.seconds.clear()
        whole = seconds(
            lambda: self.model.generate(
                tokens_BP, max_new_tokens=n_new, min_new_tokens=n_new, monitors=monitors
            )
        )
        own = statistics.median(_Timed.seconds[1:]) if watched else 0.0
        return {"step": whole / n_new, "own": own}

    def explained(self, n_tokens: int) -> dict[str, float]:
        """Seconds of explaining the alarm of a probe that counts every token."""
        dictionary = load_dictionary(DICTIONARY, model=self.model)
        hook = dictionary.cfg.hook_name
        probe = self._probe(hook, "mean", 0)
        tokens = prompt(self.model.config.d_vocab, n_tokens)
        x_SD = self.model.run_with_cache(tokens, hook)[1][hook][0].float()
        return {"seconds": seconds(lambda: explain(probe, dictionary, x_SD))}

    def _probes(self) -> list[tuple[str, LinearProbe]]:
        return [
            (f"probe {i}", self._probe(f"blocks.{LAYERS[i % 3]}.hook_resid_post", aggregate, i))
            for i, aggregate in enumerate(AGGREGATES)
        ]

    def _probe(self, hook: str, aggregate: str, seed: int) -> LinearProbe:
        probe = LogisticProbe(hook, aggregate=aggregate)
        generator = torch.Generator().manual_seed(seed)
        probe.coef_ = torch.randn(1, self.model.config.d_model, generator=generator)
        probe.intercept_ = torch.zeros(1)
        probe.threshold_ = math.inf
        return probe


class _Timed(Monitor):
    """A monitor whose watch keeps the seconds of each pass."""

    seconds: list[float] = []  # noqa: RUF012

    @classmethod
    def watch(cls, monitors: Sequence[Any], model: Any, prompts: Sequence[Sequence[int]]) -> Any:
        return _TimedWatching(monitors, model, prompts)


class _TimedWatching(Watching):
    def see(self, seen: WatchedPass) -> Mapping[int, str]:
        started = time.perf_counter()
        ended = super().see(seen)
        _Timed.seconds.append(time.perf_counter() - started)
        return ended
