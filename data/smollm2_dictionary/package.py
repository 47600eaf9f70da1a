"""From a finished run to the files of this package: bf16 weights, examples, evaluation, log.

bitlens sae train data/smollm2_dictionary/train.toml --output run
python data/smollm2_dictionary/package.py run
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import torch
from bitlens import __version__, isa, load
from bitlens.interp import collect_examples, evaluate, load_dictionary
from bitlens.interp.activations import open_text
from bitlens.interp.activations.corpus import REDISTRIBUTABLE, default_corpus
from bitlens.interp.evaluation import random_dictionary

HERE = Path(__file__).resolve().parent
FOLDER = HERE / "bitlens_smollm2_dictionary" / "blocks.15.hook_resid_post"
EVALUATED, DEAD, SHOWN = 24_576, 524_288, 120_000


def progress(what: str, done: int, total: int) -> None:
    print(f"\r{what}: {done:,} of {total:,}", end="", file=sys.stderr, flush=True)


def main(run: Path) -> None:
    model = load("smollm2-135m-instruct")
    dictionary = load_dictionary(run / "dictionary", model=model).to(torch.bfloat16)
    dictionary.save_model(FOLDER)
    shutil.copyfile(run / "log.jsonl", FOLDER / "log.jsonl")
    shutil.copyfile(HERE / "train.toml", FOLDER / "train.toml")
    dictionary = load_dictionary(FOLDER, model=model)

    result = evaluate(model, dictionary, n_tokens=EVALUATED, n_dead_tokens=DEAD)
    control = evaluate(
        model, random_dictionary(dictionary, seed=0), n_tokens=4096, n_dead_tokens=4096
    )
    found = {
        "bitlens": __version__,
        "isa": isa(),
        "result": {name: v for name, v in result.to_dict().items() if name != "density"},
        "random_dictionary": {
            name: v for name, v in control.to_dict().items() if name != "density"
        },
    }
    (FOLDER / "evaluation.json").write_text(json.dumps(found, indent=2) + "\n")

    text = open_text(iter(default_corpus(REDISTRIBUTABLE)))
    examples = collect_examples(
        model,
        dictionary,
        text.documents(),
        n_tokens=SHOWN,
        source="Cosmos QA (CC BY 4.0); QNLI, from SQuAD and Wikipedia (CC BY-SA 4.0)",
        progress=lambda done, total: progress("examples", done, total),
    )
    examples.save(FOLDER)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
