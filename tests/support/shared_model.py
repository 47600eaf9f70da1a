"""Uses of one model by many threads, each with the result it has in a thread alone."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from bitlens.model.hooks.registry import HookPoint, same_bits
from bitlens.model.transformer import HookedTransformer

Result = Mapping[str, torch.Tensor]
Use = Callable[[], Result]

_Z = "blocks.1.attn.hook_z"
_RESID = "blocks.1.hook_resid_pre"
_EDITED = "blocks.0.hook_mlp_out"


def _halve(tensor: torch.Tensor, *, hook: HookPoint) -> torch.Tensor:
    return tensor * 0.5


def _zero_head(tensor: torch.Tensor, *, hook: HookPoint) -> None:
    tensor[:, :, 0] = 0


def uses(model: HookedTransformer, tokens: torch.Tensor) -> dict[str, Use]:
    """Readers, editors, gradients and generation, by name; none leaves anything behind."""

    def read() -> Result:
        logits, cache = model.run_with_cache(tokens, lambda name: True)
        return {"logits": logits, **cache}

    def edit_in_a_block() -> Result:
        with model.hooks([(_EDITED, _halve)]):
            return {"logits": model(tokens)}

    def override() -> Result:
        with model.override(
            "blocks.2.mlp.down", lambda fn, *args, **kwargs: fn(*args, **kwargs) * 0.5
        ):
            return {"logits": model(tokens)}

    def gradients() -> Result:
        loss, cache = model.run_with_cache(
            tokens, [_Z, _RESID, "unembed.hook_out"], return_type="loss", incl_bwd=True
        )
        return {"loss": loss, **cache}

    def edited_gradient() -> Result:
        found: dict[str, torch.Tensor] = {}

        def keep(tensor: torch.Tensor, *, hook: HookPoint) -> None:
            found[hook.name] = tensor.clone()

        hooks = [(_RESID, keep), (_Z, _halve), ("hook_embed", keep)]
        loss = model.run_with_hooks(tokens, bwd_hooks=hooks, return_type="loss")
        loss.backward()
        return {"loss": loss, **found}

    def generate(**options: Any) -> Result:
        output = model.generate(
            tokens[:, :5], max_new_tokens=6, capture=["blocks.1.hook_resid_post"], **options
        )
        return {"tokens": output.tokens, **output.captured}

    def edited_generation() -> Result:
        with model.hooks([(_Z, _zero_head)]):
            return generate()

    return {
        "forward": lambda: {"logits": model(tokens)},
        "loss": lambda: {"loss": model(tokens, return_type="loss")},
        "read": read,
        "edit": lambda: {"logits": model.run_with_hooks(tokens, [(_Z, _zero_head)])},
        "edit in a block": edit_in_a_block,
        "override": override,
        "gradients": gradients,
        "edited gradient": edited_gradient,
        "generate": generate,
        "sample": lambda: generate(temperature=1.0, seed=3),
        "edited generation": edited_generation,
    }


def equal(found: Result, expected: Result) -> bool:
    """Whether two results hold the same names and bits."""
    return found.keys() == expected.keys() and all(
        x.shape == expected[name].shape and same_bits(x, expected[name])
        for name, x in found.items()
    )


@dataclass
class Outcome:
    """What threads found: results by use, and those of them that were wrong or raised."""

    results: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)


def run_threads(uses_of_thread: list[dict[str, Use]], seconds: float) -> Outcome:
    """Makes uses of a model, a dict of them in each thread, all at once and in random order.

    Every thread makes each of its uses equally often, at least once.
    """
    expected = [{name: use() for name, use in uses.items()} for uses in uses_of_thread]
    outcome, lock = Outcome(), threading.Lock()
    together = threading.Barrier(len(uses_of_thread))

    def work(index: int) -> None:
        order, uses = random.Random(index), uses_of_thread[index]
        together.wait()
        end = time.monotonic() + seconds
        while True:
            for name in order.sample(list(uses), len(uses)):
                try:
                    good = equal(uses[name](), expected[index][name])
                except Exception as error:
                    good = False
                    with lock:
                        outcome.errors.append(f"{name}: {error!r}")
                with lock:
                    outcome.results[name] += 1
                    outcome.wrong[name] += not good
            if time.monotonic() >= end:
                return

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(uses_of_thread))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcome
