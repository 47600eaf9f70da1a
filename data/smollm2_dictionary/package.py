"""From a finished run to the files of this package: bf16 weights, evaluation, examples, log.

bitlens sae train data/smollm2_dictionary/train.toml --output run
python data/smollm2_dictionary/package.py run
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import judge
import torch
from bitlens import load
from bitlens.interp import collect_examples, load_dictionary
from bitlens.interp.activations import open_text
from bitlens.interp.activations.corpus import REDISTRIBUTABLE, default_corpus
from judge import FOLDER, HERE

SHOWN = 120_000


def main(run: Path) -> None:
    model = load("smollm2-135m-instruct")
    dictionary = load_dictionary(run / "dictionary", model=model).to(torch.bfloat16)
    dictionary.save_model(FOLDER)
    shutil.copyfile(run / "log.jsonl", FOLDER / "log.jsonl")
    shutil.copyfile(HERE / "train.toml", FOLDER / "train.toml")
    dictionary = load_dictionary(FOLDER, model=model)

    judge.main()
    text = open_text(iter(default_corpus(REDISTRIBUTABLE)))
    examples = collect_examples(
        model,
        dictionary,
        text.documents(),
        n_tokens=SHOWN,
        source="Cosmos QA (CC BY 4.0); QNLI, from SQuAD and Wikipedia (CC BY-SA 4.0)",
        progress=lambda done, total: judge.progress("examples", done, total),
    )
    examples.save(FOLDER)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
