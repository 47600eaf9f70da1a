"""Judges the files of this package on held-out documents, beside random directions.

python data/smollm2_dictionary/judge.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from bitlens import __version__, isa, load
from bitlens.interp import evaluate, load_dictionary
from bitlens.interp.evaluation import EvalResult, random_dictionary

HERE = Path(__file__).resolve().parent
FOLDER = HERE / "bitlens_smollm2_dictionary" / "blocks.15.hook_resid_post"
EVALUATED, DEAD, CONTROL = 24_576, 1_000_000, 4096


def progress(what: str, done: int, total: int) -> None:
    print(f"\r{what}: {done:,} of {total:,}", end="", file=sys.stderr, flush=True)


def main() -> None:
    model = load("smollm2-135m-instruct")
    dictionary = load_dictionary(FOLDER, model=model)
    result = evaluate(model, dictionary, n_tokens=EVALUATED, n_dead_tokens=DEAD, progress=progress)
    control = evaluate(
        model, random_dictionary(dictionary, seed=0), n_tokens=CONTROL, n_dead_tokens=CONTROL
    )
    found = {
        "bitlens": __version__,
        "isa": isa(),
        "result": _figures(result),
        "random_dictionary": _figures(control),
    }
    (FOLDER / "evaluation.json").write_text(json.dumps(found, indent=2) + "\n")


def _figures(result: EvalResult) -> dict[str, Any]:
    return {name: value for name, value in result.to_dict().items() if name != "density"}


if __name__ == "__main__":
    main()
