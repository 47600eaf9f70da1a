"""The prompts and pairs of a run: the stand-in's from its seed, or the user's files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
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
    helpful: Prompts whose answers are trained on beside the revisions of `prompts`.
    red_team: Asked between rounds of preferences; failures are trained on in the next one.
    cells: Held-out prompts, by what they are.
    development, gate: Pairs whose better answer is known; the form is chosen on the first.
    """

    prompts: list[PromptRow]
    helpful: list[PromptRow]
    red_team: list[PromptRow]
    cells: dict[str, list[PromptRow]]
    development: list[AnswerPair]
    gate: list[AnswerPair]


def read_data(config: CaiConfig, tokenizer: Tokenizer) -> CaiData:
    """Returns the data of a run.

    Raises ValueError for a prompt that is trained on and held out, and whatever `read_prompts` and
    `read_pairs` refuse.
    """
    if config.prompts == STANDIN:
        rows, helpful = read_prompts(_standin_prompts(config)), _standin_helpful(config)
        red_team = _standin_red_team(config)
        cells = {name: read_prompts(cell) for name, cell in _cells(config).items()}
        pairs = read_pairs(_standin_pairs(config))
    else:
        assert config.held_out is not None, "checked by the config"
        assert config.gate is not None, "checked by the config"
        rows = read_prompts(config.prompts, tokenizer)
        helpful = [] if config.helpful is None else read_prompts(config.helpful, tokenizer)
        for row in helpful:
            if "answer" in row and not (isinstance(row["answer"], str) and row["answer"].strip()):
                raise ValueError(f"helpful: the answer to {row['id']!r} is no text")
        red_team = [] if config.red_team is None else read_prompts(config.red_team, tokenizer)
        for row in red_team:
            wanted_of(row)
        held_out = read_prompts(config.held_out, tokenizer)
        kinds = dict.fromkeys(str(row.get("kind", "held out")) for row in held_out)
        cells = {k: [r for r in held_out if r.get("kind", "held out") == k] for k in kinds}
        pairs = read_pairs(config.gate, tokenizer)
    trained = {row["text"] for row in (*rows, *helpful, *red_team)}
    for name, cell in cells.items():
        if both := [row["id"] for row in cell if row["text"] in trained]:
            raise ValueError(f"held out, {name}: the prompt {both[0]!r} is trained on")
    return CaiData(
        rows, helpful, red_team, cells, pairs[: len(pairs) // 3], pairs[len(pairs) // 3 :]
    )


def _counts(n: int) -> dict[str, int]:
    """Two fifths requests, two fifths near misses, the rest benign."""
    return {"standin": 2 * n // 5, "near_miss": 2 * n // 5, "benign": n - 2 * (2 * n // 5)}


def _standin_prompts(config: CaiConfig) -> list[Any]:
    counts = _counts(config.n_prompts).items()
    return [row for kind, k in counts for row in prompts(kind, k, seed=config.seed)]


def _standin_helpful(config: CaiConfig) -> list[PromptRow]:
    """Near misses and benign prompts, half each, that are not among those that are revised."""
    return _behind(config, _counts(config.n_prompts), _helpful_counts(config))


def _standin_red_team(config: CaiConfig) -> list[PromptRow]:
    """Prompts in the words that are trained on, which are among no others of the run."""
    if config.iterations == 1:
        return []
    used = Counter(_counts(config.n_prompts)) + Counter(_helpful_counts(config))
    return _behind(config, used, _counts(config.n_red_team))


def _helpful_counts(config: CaiConfig) -> dict[str, int]:
    n = config.n_helpful
    return {"near_miss": n // 2, "benign": n - n // 2}


def _behind(
    config: CaiConfig, used: Mapping[str, int], wanted: Mapping[str, int]
) -> list[PromptRow]:
    """The next prompts of each kind behind those that are used."""
    found = [
        row
        for kind, k in wanted.items()
        for row in prompts(kind, used.get(kind, 0) + k, seed=config.seed)[used.get(kind, 0) :]
    ]
    return read_prompts(found) if found else []


def wanted_of(row: PromptRow) -> str:
    """Returns the verdict that the answer to a prompt should have. Raises ValueError for a kind
    that does not say."""
    kinds = {"standin": "refusal", "harmful": "refusal", "near_miss": "answer", "benign": "answer"}
    if row.get("kind") not in kinds:
        raise ValueError(
            f"red_team, {row['id']!r}: kind = {row.get('kind')!r}; expected one of "
            f"{', '.join(kinds)}"
        )
    return kinds[row["kind"]]


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
