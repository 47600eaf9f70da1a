"""Many rows under different monitors that stop, flag, and raise at random: none affects another."""

from __future__ import annotations

import math
import random
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from bitlens.interp.monitors import Alarm, Monitor
from bitlens.model import HookedTransformer
from support.random_models import byte_tokenizer, random_model
from support.random_probes import random_probe

HOOKS = ("blocks.0.hook_resid_post", "blocks.1.mlp.hook_post")
AGGREGATES = ("mean", "last", "max", "rolling:3", "ema:0.25")
ROWS, NEW = 32, 12


@pytest.fixture(scope="module")
def model() -> HookedTransformer:
    return random_model("mistral", tokenizer=byte_tokenizer())


class Round:
    """Random prompts and a monitor for each row; what each must do is known from a free run."""

    def __init__(self, model: HookedTransformer, seed: int) -> None:
        draw = random.Random(seed)
        self.model, self.seed = model, seed
        self.prompts = [
            [draw.randrange(250) for _ in range(draw.randint(1, 9))] for _ in range(ROWS)
        ]
        self.options: Any = {
            "max_new_tokens": NEW, "min_new_tokens": NEW, "temperature": 1.0, "seed": seed,
        }  # fmt: skip
        self.acts = [
            draw.choice(("stop", "flag", "goes on", "ends", "raises")) for _ in range(ROWS)
        ]
        self.probes = [
            random_probe(model, draw.choice(HOOKS), draw.choice(AGGREGATES), draw.randrange(99))
            for _ in range(ROWS)
        ]
        self.free = model.generate(self.prompts, **self.options)
        self.scores = self._whole()
        self.thresholds = [sorted(s)[draw.randrange(len(s) // 2, len(s))] for s in self.scores]

    def _whole(self) -> list[list[float]]:
        """Each row's scores from one pass over all texts as they are without monitors."""
        _, cache = self.model.run_with_cache(
            self.free.tokens, list(HOOKS), attention_mask=self.free.attention_mask
        )
        return [
            probe.running_scores(
                cache[probe.hook_name][row : row + 1].flatten(2),
                self.free.attention_mask[row : row + 1],
            )[0][self.free.attention_mask[row] == 1].tolist()
            for row, probe in enumerate(self.probes)
        ]

    def monitor(self, row: int) -> Monitor:
        def act(alarm: Alarm) -> bool:
            if self.acts[row] == "raises":
                raise RuntimeError(f"row {row}")
            return self.acts[row] == "ends"

        how: Any = self.acts[row] if self.acts[row] in ("stop", "flag") else act
        return Monitor(
            self.probes[row], threshold=self.thresholds[row], on_alarm=how, rows=[row],
            name=f"row {row}",
        )  # fmt: skip

    def check(self) -> Counter[str]:
        """Compares the watched run with what is known; returns how rows ended."""
        monitors = [self.monitor(row) for row in range(ROWS)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            out = self.model.generate(self.prompts, **self.options, monitors=monitors)
        moved = 0
        for row in range(ROWS):
            scores, n = self.scores[row], len(self.prompts[row])
            over = [i for i, score in enumerate(scores) if score > self.thresholds[row]]
            ended = {"stop": "alarm", "ends": "alarm", "raises": "error"}.get(self.acts[row])
            last = len(scores) if ended is None or not over else over[0] + 1
            assert out.finish_reason[row] == ("length" if ended is None or not over else ended)
            assert out.n_new[row] == max(0, last - n)
            kept = out.attention_mask[row] == 1
            free = self.free.tokens[row][self.free.attention_mask[row] == 1]
            assert torch.equal(out.tokens[row][kept], free[: max(last, n)])
            found = out.scores[f"row {row}"][row][kept]
            # A prompt is scored as a whole, also where an alarm is inside it.
            assert bits(found) == bits(torch.tensor(scores[: max(last, n)]))
            moved += bits(found) != bits(torch.tensor(self.scores[row - 1][: len(found)]))
        assert moved >= ROWS - 1  # the control: another row's scores are others
        return Counter(out.finish_reason)


def bits(x: torch.Tensor) -> list[int]:
    return x.contiguous().view(torch.int32).tolist()  # type: ignore[no-any-return]


def resident_mib() -> float:
    """Memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def test_no_row_affects_another(model: HookedTransformer) -> None:
    ended: Counter[str] = Counter()
    for seed in range(4):
        ended += Round(model, seed).check()
    assert min(ended["alarm"], ended["error"], ended["length"]) >= 10


@pytest.mark.nightly
def test_ten_minutes_of_alarms_leave_the_memory_flat(model: HookedTransformer) -> None:
    end = time.monotonic() + 600
    before, seed = math.inf, 1000
    while time.monotonic() < end:
        Round(model, seed).check()
        seed += 1
        if time.monotonic() > end - 540 and math.isinf(before):
            before = resident_mib()
    assert seed > 1100
    assert resident_mib() - before < 16
