"""Trains a small model to add chains of digits on a scratchpad, and measures what thinking buys it.

A problem is five digits; the answer is the last digit of their sum. The scratchpad holds the
running sums, a digit a token. The model is also asked for its answer after a scratchpad that was
cut, so that it says what it can with less. Needs transformers, for the files of a random model.

    python docs/examples/scratchpad.py
"""

from __future__ import annotations

import random
import tempfile
from itertools import accumulate
from pathlib import Path

import bitlens
import torch
from bitlens.model.thinking import Curve, Problem, ThinkingLayout, measure
from bitlens.model.training import TrainConfig, train

DIGITS = 5
LAYOUT = ThinkingLayout(start="<", end=">", wait="?")
Row = dict[str, str]


def problem(draws: random.Random) -> tuple[str, str, str]:
    """Returns five digits, their running sums but the first, and the answer."""
    digits = [draws.randrange(10) for _ in range(DIGITS)]
    sums = "".join(str(total % 10) for total in accumulate(digits))
    return "".join(map(str, digits)), sums[1:], sums[-1]


def training_rows(n: int) -> list[Row]:
    """Returns whole scratchpads to write, and cut ones to answer after."""
    draws, rows = random.Random(0), []
    for i in range(n):
        asked, sums, answer = problem(draws)
        if i % 2:
            rows.append({"prompt": f"{asked}<", "completion": f"{sums}>{answer}"})
        else:
            cut = sums[: draws.randrange(DIGITS - 1)]
            rows.append({"prompt": f"{asked}<{cut}>", "completion": answer})
    return rows


def write_model(folder: Path) -> Path:
    """Writes a Llama of two layers with random weights, a token a byte."""
    import tokenizers
    import transformers
    from tokenizers import decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = tokenizers.Tokenizer(models.BPE({s: i for i, s in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(alphabet), hidden_size=64, intermediate_size=192, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=64, bos_token_id=None, eos_token_id=0,
        initializer_range=0.1,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def thinking_curve(folder: Path, steps: int = 1200, problems: int = 200) -> Curve:
    """Returns the accuracy on problems that training did not see, by tokens of thinking."""
    model = bitlens.load(write_model(folder / "model"), trainable="full")
    config = TrainConfig(method="sft", steps=steps, batch_size=64, lr=4e-3, warm_up=0.05)
    train(model, config, data=training_rows(64 * steps), output=folder / "run")
    seen = {row["prompt"][:DIGITS] for row in training_rows(64 * steps)}
    draws, asked = random.Random(1), []
    while len(asked) < problems:
        digits, _, answer = problem(draws)
        if digits not in seen:
            asked.append(Problem(digits, answer))
    budgets = [(n, n) for n in range(DIGITS)]
    return measure(model, asked, budgets, n=1, max_new_tokens=1, temperature=0.0, layout=LAYOUT)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        for point in thinking_curve(Path(scratch)).points:
            low, high = point.single.interval.low, point.single.interval.high
            print(f"{point.max_thinking} tokens: {point.single.mean:.3f} [{low:.3f}, {high:.3f}]")
