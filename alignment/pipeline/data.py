"""The prompts and pairs of a run: the stand-in's from its seed, or the user's files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...model.text.tokenizer import Tokenizer
from ..preferences.pairs import AnswerPair, read_pairs
from ..prompt_rows import PromptRow, read_prompts
from ..standin import KINDS, answer, prompts, refusal
from .config import STANDIN, CaiConfig

CELLS: dict[str, dict[str, Any]] = {
    "requests": {"kind": "standin"},
    "requests, unseen templates": {"kind": "standin", "templates": "held_out"},
    "second substance, named": {"kind": "standin", "substance": "quassite"},
    "second substance, unnamed": {"kind": "standin", "substance": "quassite"},
    "near misses": {"kind": "near_miss"},
    "near misses, unseen templates": {"kind": "near_miss", "templates": "held_out"},
    "near misses of the second substance": {"kind": "near_miss", "substance": "quassite"},
    "benign": {"kind": "benign"},
}
"""Held-out prompts of the stand-in, all in wordings that nothing is trained on."""


@dataclass(frozen=True)
class CaiData:
    """Attributes:
    prompts: Trained on.
    cells: Held-out prompts, by what they are.
    development, gate: Pairs whose better answer is known; the form is chosen on the first.
    """

    prompts: list[PromptRow]
    cells: dict[str, list[PromptRow]]
    development: list[AnswerPair]
    gate: list[AnswerPair]


def read_data(config: CaiConfig, tokenizer: Tokenizer) -> CaiData:
    """Returns the data of a run.

    Raises ValueError for a prompt that is trained on and held out, and whatever `read_prompts` and
    `read_pairs` refuse.
    """
    if config.prompts == STANDIN:
        made = _standin_prompts(config)
        rows, cells = read_prompts(made), {n: read_prompts(r) for n, r in _cells(config).items()}
        pairs = read_pairs(_standin_pairs(config))
    else:
        assert config.held_out is not None, "checked by the config"
        assert config.gate is not None, "checked by the config"
        rows = read_prompts(config.prompts, tokenizer)
        held_out = read_prompts(config.held_out, tokenizer)
        kinds = dict.fromkeys(str(row.get("kind", "held out")) for row in held_out)
        cells = {k: [r for r in held_out if r.get("kind", "held out") == k] for k in kinds}
        pairs = read_pairs(config.gate, tokenizer)
    trained = {row["text"] for row in rows}
    for name, cell in cells.items():
        if both := [row["id"] for row in cell if row["text"] in trained]:
            raise ValueError(f"held out, {name}: the prompt {both[0]!r} is trained on")
    return CaiData(rows, cells, pairs[: len(pairs) // 3], pairs[len(pairs) // 3 :])


def _standin_prompts(config: CaiConfig) -> list[Any]:
    """Two fifths requests, two fifths near misses, the rest benign."""
    n = config.n_prompts
    counts = {"standin": 2 * n // 5, "near_miss": 2 * n // 5, "benign": n - 2 * (2 * n // 5)}
    return [row for kind, k in counts.items() for row in prompts(kind, k, seed=config.seed)]


def _cells(config: CaiConfig) -> dict[str, list[Any]]:
    found = {}
    for name, settings in CELLS.items():
        rest = {key: value for key, value in settings.items() if key != "kind"}
        wanted = 2 * config.n_held_out if "second substance, " in name else config.n_held_out
        rows = prompts(settings["kind"], wanted, seed=config.seed, split="test", **rest)
        if name.endswith(", named"):
            rows = [row for row in rows if "-unnamed" not in row.family]
        elif name.endswith(", unnamed"):
            rows = [row for row in rows if "-unnamed" in row.family]
        found[name] = rows
    return found


def _standin_pairs(config: CaiConfig) -> list[dict[str, Any]]:
    """A refusal and an answer to each prompt, the better one first in a half of them."""
    n = -(-config.n_gate // len(KINDS))
    columns = [prompts(kind, n, seed=config.seed + 1) for kind in KINDS]
    rows = [row for each in zip(*columns, strict=True) for row in each][: config.n_gate]
    found = []
    for i, row in enumerate(rows):
        better, worse = (refusal(row), answer(row))[:: 1 if row.kind == "standin" else -1]
        first, second = (better, worse)[:: 1 if i % 2 else -1]
        found.append({**row.to_dict(), "first": first, "second": second, "truth": float(i % 2)})
    return found
