"""Activations of every layer, batch by batch: a model runs beside the training, nothing is stored.

Which rows make a batch is a function of the text and the batch's number alone. Shapes: L layers, N
rows, d d_model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch

from ....model.transformer import HookedTransformer
from ...activations import TextSource
from ...activations.documents import Split
from ...activations.read import outliers, read_rows
from ...activations.sequences import Batch, batches, mixed
from .config import LayersTrainConfig


@dataclass(frozen=True, eq=False)
class LayerRows:
    """The rows that all layers read and write at the same tokens.

    Attributes:
        x: fp32 [N, d] of each layer, what features read.
        y: fp32 [N, L * d], what they predict, layer after layer.
        n_excluded: Tokens that were left out.
    """

    x: list[torch.Tensor]
    y: torch.Tensor
    n_excluded: int


class RowStream:
    """Batches of rows from a text, without end."""

    def __init__(
        self,
        model: HookedTransformer,
        source: TextSource,
        config: LayersTrainConfig,
        split: Split = "train",
    ) -> None:
        """Raises ValueError for a model without a tokenizer, or a context that it cannot hold."""
        if model.tokenizer is None:
            raise ValueError("training: this model was loaded without a tokenizer")
        if config.context_size > model.config.n_ctx:
            raise ValueError(
                f"context_size = {config.context_size} exceeds the model's {model.config.n_ctx}"
            )
        self.model, self.source, self.config, self.split = model, source, config, split
        layers = range(model.config.n_layers)
        self.inputs = [f"blocks.{i}.{config.hook_in}" for i in layers]
        self.outputs = [f"blocks.{i}.{config.hook_out}" for i in layers]

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """Yields the tokens of each step from number `start` on; the text again after its end.

        Raises ValueError for text without a document long enough.
        """
        first = True
        while True:
            found = False
            for batch in batches(self._sequences(), self.config.batch_tokens):
                found = True
                if start:
                    start -= 1
                    continue
                yield batch
            if first and not found:
                raise ValueError(f"text {self.source.name!r}: no document is long enough")
            first = False

    def _sequences(self) -> Iterator[list[int]]:
        """Returns the sequences of the text, pieces of one document apart from each other."""
        assert self.model.tokenizer is not None
        documents = self.source.documents(self.split)
        return mixed(
            self.config.packing.sequences(documents, self.model.tokenizer), self.config.seed
        )

    def first_tokens(self, n_tokens: int) -> Batch:
        """Returns as many sequences from the beginning as come to this many tokens."""
        found = next(islice(batches(self._sequences(), n_tokens), 1), None)
        if found is None:
            raise ValueError(f"text {self.source.name!r}: no document is long enough")
        return found

    def read(self, batch: Batch, limits: dict[str, float]) -> LayerRows:
        """Runs the model on a batch; leaves out the tokens beyond a limit at any hook.

        Raises ValueError for activations that are not finite.
        """
        rows = read_rows(self.model, batch, [*self.inputs, *self.outputs])
        kept = ~outliers(rows, limits)
        x = [rows.pop(name)[kept].float() for name in self.inputs]
        y = torch.cat([rows.pop(name)[kept].float() for name in self.outputs], dim=1)
        for each in (*x, y):
            if not bool(torch.isfinite(each).all()):
                raise ValueError("activations hold NaN or infinity: nothing can be trained on them")
        return LayerRows(x, y, int((~kept).sum()))
