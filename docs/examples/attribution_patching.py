"""Which position and layer carries the answer, estimated from one backward pass and shown beside
what patching measures.

Attribution patching (Nanda 2023; Syed et al. 2023): to first order, putting a clean activation into
the corrupted run moves the metric by (clean - corrupted) . gradient. Two forward passes and one
backward pass estimate what patching would take a forward pass each to measure.

    python docs/examples/attribution_patching.py smollm2-135m-instruct
"""

from __future__ import annotations

import argparse

import bitlens
import torch
from rich.console import Console
from rich.table import Table

CLEAN, CORRUPTED = "Paris is the capital of", "Rome is the capital of"
ANSWER, WRONG = " France", " Italy"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="smollm2-135m-instruct")
    parser.add_argument("--layers", type=int, nargs="+", default=[0, 15, 22, 28])
    arguments = parser.parse_args()
    model = bitlens.load(arguments.model)
    answer, wrong = model.to_single_token(ANSWER), model.to_single_token(WRONG)
    clean, corrupted = model.to_tokens(CLEAN), model.to_tokens(CORRUPTED)
    names = [f"blocks.{layer}.hook_resid_pre" for layer in arguments.layers]

    def metric(logits: torch.Tensor) -> torch.Tensor:
        return logits[0, -1, answer] - logits[0, -1, wrong]

    gradients: dict[str, torch.Tensor] = {}

    def keep(grad: torch.Tensor, hook: bitlens.model.HookPoint) -> None:
        gradients[hook.name] = grad.clone()

    _, clean_cache = model.run_with_cache(clean, names)
    _, cache = model.run_with_cache(corrupted, names)
    before = metric(model.run_with_hooks(corrupted, bwd_hooks=[(name, keep) for name in names]))
    before.backward()

    def measured(name: str, position: int) -> float:
        def patch(resid: torch.Tensor, hook: object) -> None:
            resid[:, position] = clean_cache[name][:, position]

        after = metric(model.run_with_hooks(corrupted, fwd_hooks=[(name, patch)]))
        return float(after - before.detach())

    table = Table(title=f"{ANSWER!r} over {WRONG!r}: estimated / measured")
    for column in ("token", *(f"layer {layer}" for layer in arguments.layers)):
        table.add_column(column, justify="right")
    for position, token in enumerate(model.to_str_tokens(corrupted)):
        cells = []
        for name in names:
            step = clean_cache[name][0, position] - cache[name][0, position]
            estimated = float(step @ gradients[name][0, position])
            cells.append(f"{estimated:+.2f} / {measured(name, position):+.2f}")
        table.add_row(repr(token), *cells)
    Console().print(table)


if __name__ == "__main__":
    main()
