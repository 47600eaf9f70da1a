"""Documents of letters that hang together, with a digit that is asked for again later.

"...bcd<7ghi...?7": each letter is one of three that follow the last; `<` marks the needle, `?` asks
for it. A byte a token, so that lengths are token counts. A small model learns both in a minute.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

from bitlens.model.config import LayerConfig
from bitlens.model.weights.checkpoint import Checkpoint
from support.random_models import CONFIGS, MemoryReader, byte_tokenizer, random_tensors

LETTERS = "abcdefghijklmnopqrst"
STEPS = (1, 1, 1, 2, 5)
"""How far the next letter is, by its frequency."""


def letters(n: int, length: int, *, seed: int = 0) -> list[str]:
    """Returns documents without a needle, as hard to foresee late as they are early."""
    draws = random.Random(seed)
    return ["".join(_letters(length, draws)) for _ in range(n)]


def documents(n: int, length: int, *, seed: int = 0) -> list[str]:
    """Returns documents with a needle anywhere, and a question each ten letters or so behind it."""
    draws, found = random.Random(seed), []
    for _ in range(n):
        text, digit, at = _planted(length, draws, draws.random())
        for _ in range(length // 10):
            asked = draws.randrange(length - 1)
            if asked >= at + 2:
                text[asked : asked + 2] = "?", digit
        found.append("".join(text))
    return found


def needles(
    length: int, n: int, depths: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0), seed: int = 1
) -> dict[str, list[tuple[str, str]]]:
    """Returns n prompts a depth, each with the digit that its end asks for and nothing before."""
    draws, cells = random.Random(seed), {}
    for depth in depths:
        planted = [_planted(length - 2, draws, depth) for _ in range(n)]
        cells[f"{length} tokens, depth {depth:.0%}"] = [
            ("".join([*text, "?"]), digit) for text, digit, _ in planted
        ]
    return cells


def _planted(length: int, draws: random.Random, depth: float) -> tuple[list[str], str, int]:
    """Letters with a needle behind that share of them; its digit, and where it is."""
    text, digit = _letters(length, draws), str(draws.randrange(10))
    at = round(depth * (length - 2))
    text[at : at + 2] = "<", digit
    return text, digit, at


def _letters(length: int, draws: random.Random) -> list[str]:
    places = [draws.randrange(len(LETTERS))]
    while len(places) < length:
        places.append((places[-1] + draws.choice(STEPS)) % len(LETTERS))
    return [LETTERS[place] for place in places]


def needle_checkpoint(n_ctx: int, n_layers: int) -> Checkpoint:
    """A model that knows nothing yet: weights of a size that trains."""
    config = dataclasses.replace(
        CONFIGS["llama"],
        layers=(LayerConfig(),) * n_layers,
        n_layers=n_layers,
        d_model=48,
        n_heads=3,
        n_key_value_heads=3,
        d_head=16,
        d_mlp=96,
        n_ctx=n_ctx,
        attn_scale=0.25,
        tie_embeddings=False,
    )
    tensors = random_tensors(config)
    for name, x in tensors.items():
        for part, size in (("unembed", 0.1), ("embed.weight", 0.5), ("attn.o", 0.3), ("down", 0.3)):
            if part in name:
                tensors[name] = x * size
                break
    return Checkpoint(config, byte_tokenizer(), "needles", MemoryReader(tensors))
