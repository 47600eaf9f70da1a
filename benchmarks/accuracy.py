"""How far logits are from the truth, bitlens's and Hugging Face's, on real prompts.

    python -m bitlens.benchmarks.accuracy [MODEL] [--prompts N] [--skip TOKENS] [--json FILE]

Truth is the fp64 path on the weights that both compute with (docs/accuracy.md). Tensor names:
P positions, V vocabulary.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from bitlens.model.load import load
from bitlens.model.sources import fetch, open_checkpoint
from bitlens.model.weights.checkpoint import Checkpoint, Format, StoredMatrix, TensorReader
from rich.console import Console
from rich.progress import track
from rich.table import Table

from .hugging_face import llama

PROMPTS = Path(__file__).parents[1] / "tests" / "parity" / "prompts.txt"
MARGIN = 1e-3
"""Top-1 must agree wherever the truth's two best logits are further apart than this."""

Logits = Callable[[torch.Tensor], torch.Tensor]
"""Tokens int64 [P] -> logits [P, V]."""


def prompts() -> list[str]:
    """The 64 prompts: prose, code, dialogue and mathematics, in fourteen languages."""
    return PROMPTS.read_text(encoding="utf-8").rstrip("\n").split("\n====\n")


@dataclass
class Error:
    """The difference from the truth, pooled over prompts, positions and vocabulary."""

    squares: float = 0.0
    count: int = 0
    largest: float = 0.0

    def add(self, logits_PV: torch.Tensor, truth_PV: torch.Tensor) -> None:
        difference = logits_PV.double() - truth_PV
        self.squares += float(difference.square().sum())
        self.count += difference.numel()
        self.largest = max(self.largest, float(difference.abs().max()))

    def merge(self, other: Error) -> None:
        self.squares += other.squares
        self.count += other.count
        self.largest = max(self.largest, other.largest)

    @property
    def rms(self) -> float:
        return math.sqrt(self.squares / self.count)


@dataclass(frozen=True)
class Accuracy:
    """One policy's result.

    Attributes:
        rms_rounded: The same with bitlens's fp32 logits rounded to the dtype of Hugging Face's.
        decided: Positions whose fp64 margin exceeds MARGIN.
        disagreements: Those of them where bitlens and Hugging Face have another top-1.
        prompt_ratios: bitlens's RMS error over Hugging Face's, prompt by prompt.
    """

    policy: str
    n_prompts: int
    n_positions: int
    rms: float
    rms_rounded: float
    rms_hugging_face: float
    largest: float
    largest_hugging_face: float
    decided: int
    disagreements: int
    prompt_ratios: tuple[float, ...]

    @property
    def ratio(self) -> float:
        return self.rms / self.rms_hugging_face


@dataclass(frozen=True, eq=False)
class RoundedReader:
    """A checkpoint's tensors, rounded to bf16."""

    reader: TensorReader

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return dict(self.reader.shapes)

    def read(self, name: str) -> StoredMatrix:
        stored = self.reader.read(name)
        data = stored.dequantize().to(torch.bfloat16)
        return StoredMatrix(Format.BF16, stored.n, stored.k, data)


def rounded(checkpoint: Checkpoint, policy: str) -> Checkpoint:
    """The checkpoint with the weights that a policy computes with."""
    if policy == "bf16":
        return replace(checkpoint, reader=RoundedReader(checkpoint.reader))
    return checkpoint


def truth_logits(checkpoint: Checkpoint, policy: str) -> Logits:
    """The fp64 path on the weights of `policy`."""
    model = load(rounded(checkpoint, policy), dtype="fp64", backend="torch")
    return torch.no_grad()(lambda tokens: model(tokens)[0])


def bitlens_logits(checkpoint: Checkpoint, policy: str) -> Logits:
    model = load(checkpoint, dtype=policy)
    return lambda tokens: model(tokens)[0]


def hugging_face_logits(checkpoint: Checkpoint, policy: str) -> Logits:
    model = llama(checkpoint, torch.bfloat16 if policy == "bf16" else torch.float32)
    return torch.no_grad()(lambda tokens: model(tokens[None]).logits[0])


def measure(
    checkpoint: Checkpoint,
    policy: str,
    texts: Sequence[str],
    truth: Logits | None = None,
    skip: int = 0,
) -> Accuracy:
    """Compares bitlens and Hugging Face under `policy` ("fp32" or "bf16") with the truth.

    `skip` drops each prompt's first tokens: another sample of what a prompt's start does.
    """
    assert checkpoint.tokenizer is not None
    truth = truth or truth_logits(checkpoint, policy)
    ours, theirs = bitlens_logits(checkpoint, policy), hugging_face_logits(checkpoint, policy)
    error, error_rounded, error_theirs = Error(), Error(), Error()
    ratios = []
    n_positions = decided = disagreements = 0
    for text in track(texts, f"{policy} prompts", transient=True):
        tokens = torch.tensor(checkpoint.tokenizer.encode(text)[skip:])
        true_PV, ours_PV, theirs_PV = truth(tokens), ours(tokens), theirs(tokens)
        here, here_theirs = Error(), Error()
        here.add(ours_PV, true_PV)
        here_theirs.add(theirs_PV, true_PV)
        ratios.append(here.rms / here_theirs.rms)
        error.merge(here)
        error_theirs.merge(here_theirs)
        error_rounded.add(ours_PV.to(theirs_PV.dtype), true_PV)
        best = true_PV.topk(2).values
        clear_P = best[:, 0] - best[:, 1] > MARGIN
        differ_P = ours_PV.argmax(-1) != theirs_PV.argmax(-1)
        n_positions += len(tokens)
        decided += int(clear_P.sum())
        disagreements += int((clear_P & differ_P).sum())
    return Accuracy(
        policy=policy,
        n_prompts=len(texts),
        n_positions=n_positions,
        rms=error.rms,
        rms_rounded=error_rounded.rms,
        rms_hugging_face=error_theirs.rms,
        largest=error.largest,
        largest_hugging_face=error_theirs.largest,
        decided=decided,
        disagreements=disagreements,
        prompt_ratios=tuple(ratios),
    )


def table(results: Sequence[Accuracy]) -> Table:
    shown = Table(title="logit error against fp64")
    shown.add_column("")
    for r in results:
        shown.add_column(r.policy, justify="right")
    rows: dict[str, Callable[[Accuracy], str]] = {
        "prompts, positions": lambda r: f"{r.n_prompts}, {r.n_positions}",
        "RMS, bitlens": lambda r: f"{r.rms:.4e}",
        "RMS, Hugging Face eager": lambda r: f"{r.rms_hugging_face:.4e}",
        "ratio": lambda r: f"{r.ratio:.3f}",
        "ratio, logits rounded alike": lambda r: f"{r.rms_rounded / r.rms_hugging_face:.3f}",
        "ratio, median prompt": lambda r: f"{statistics.median(r.prompt_ratios):.3f}",
        "prompts below 1": lambda r: f"{sum(ratio < 1 for ratio in r.prompt_ratios)}",
        "largest, bitlens": lambda r: f"{r.largest:.2e}",
        "largest, Hugging Face eager": lambda r: f"{r.largest_hugging_face:.2e}",
        f"fp64 margin > {MARGIN:g}": lambda r: f"{r.decided}",
        "  of them top-1 differs": lambda r: f"{r.disagreements}",
    }
    for name, figure in rows.items():
        shown.add_row(name, *(figure(r) for r in results))
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description="Logit error against fp64, beside Hugging Face")
    parser.add_argument("model", nargs="?", default="smollm2-135m-instruct")
    parser.add_argument("--prompts", type=int, default=64, help="how many of the 64 prompts")
    parser.add_argument("--skip", type=int, default=0, help="drop each prompt's first tokens")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    is_alias = not Path(arguments.model).exists()
    checkpoint = open_checkpoint(fetch(arguments.model) if is_alias else arguments.model)
    texts = prompts()[: arguments.prompts]
    skip = arguments.skip
    results = [measure(checkpoint, policy, texts, skip=skip) for policy in ("fp32", "bf16")]
    Console().print(table(results))
    if arguments.json:
        figures = [asdict(r) | {"ratio": r.ratio} for r in results]
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
