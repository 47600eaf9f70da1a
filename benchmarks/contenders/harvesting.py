"""Activations kept on disk, beside the forward passes that give them.

Both sides run the same sequences, and stop behind the hook's block; the harvest also tokenises,
takes the rows out, checks and stores them.
"""

from __future__ import annotations

import tempfile
from itertools import islice
from pathlib import Path

import torch

from ... import set_num_threads
from ...interp.activations import HarvestConfig, Packing, harvest, open_text
from ...interp.activations.harvesting import BATCH_TOKENS
from ...interp.activations.sequences import batches
from ...model.load import load
from .timing import Clock, seconds

HOOK = "blocks.15.hook_resid_post"
STOP = 16
DOCUMENTS = 4096


class Harvesting:
    """`harvest` of documents of the default corpus, and the bare passes."""

    def __init__(self, model: str, threads: int) -> None:
        set_num_threads(threads)
        torch.set_num_threads(threads)
        self.model = load(model)
        self.packing = Packing()
        # Opening the default corpus takes seconds, once a harvest; its rate is what is measured.
        self.text = open_text(list(islice(open_text(None).documents("train"), DOCUMENTS)))

    def harvest(self, n_tokens: int, clock: Clock = "wall") -> dict[str, float]:
        """Seconds of a harvest of one hook, no outliers sought."""
        config = HarvestConfig((HOOK,), n_tokens, self.packing, exclude_outliers=False)

        def call() -> None:
            with tempfile.TemporaryDirectory() as folder:
                harvest(self.model, config, self.text, Path(folder))

        return {"seconds": seconds(call, clock)}

    def forward(self, n_tokens: int, clock: Clock = "wall") -> dict[str, float]:
        """Seconds of the passes alone, on batches made beforehand."""
        assert self.model.tokenizer is not None
        taken, sequences = 0, []
        for sequence in self.packing.sequences(self.text.documents("train"), self.model.tokenizer):
            if taken >= n_tokens:
                break
            sequences.append(sequence)
            taken += len(sequence)
        made = list(batches(iter(sequences), BATCH_TOKENS))

        def call() -> None:
            with torch.no_grad():
                for batch in made:
                    mask = batch.mask.to(torch.int64)
                    self.model(batch.tokens, attention_mask=mask, stop_at_layer=STOP)

        return {"seconds": seconds(call, clock)}
