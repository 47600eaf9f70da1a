"""`evaluate_layers`: how well transcoders of all layers stand for a model's MLPs.

Shapes: L layers, N rows, d d_model, V vocabulary.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ...model.transformer import HookedTransformer
from ..activations import Packing, TextSource, open_text
from ..activations.documents import Split, Text
from ..activations.read import norm_limits, outliers
from ..activations.sequences import Batch
from ..circuits.transcoders import LayerTranscoders, Transcoders, layer_transcoders
from .evaluated_text import padded_batches, read_text
from .replaced_layers import ReplacedLayers
from .row_sums import RowSums
from .token_losses import divergences, next_token_losses

_POSITIONS = 1024


@dataclass(frozen=True, eq=False)
class LayersEvalResult:
    """The quality of transcoders in place of MLPs, on a text.

    Figures of reconstruction leave out each sequence's first token, and outliers where nothing else
    is said: tokens whose norm at any hook is above 3 times the median. Losses are means over every
    next token, in nats; first tokens keep what the MLPs wrote.

    Attributes:
        nmse: Of each layer: sum |y - y_hat|^2 / sum |y - mean|^2.
        nmse_all: The same with outliers.
        l0: Mean number of active features of a row, of each layer.
        ce_loss: Loss of the model as it is.
        ce_loss_replaced: With every MLP that has a transcoder replaced.
        delta_ce: What the loss rises by.
        kl_div: Mean KL(model || replaced) over every position.
        top1_agreement: Part of the positions at which both have the same most probable token.
        delta_ce_alone: By how much the loss rises with one layer replaced, of each layer asked for.
        n_tokens: Tokens of the text.
        n_excluded: Outliers among them.
    """

    nmse: list[float]
    nmse_all: list[float]
    l0: list[float]
    ce_loss: float
    ce_loss_replaced: float
    delta_ce: float
    kl_div: float
    top1_agreement: float
    delta_ce_alone: dict[int, float]
    n_tokens: int
    n_excluded: int

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def evaluate_layers(
    model: HookedTransformer,
    transcoders: Transcoders,
    *,
    text: Text | TextSource = None,
    n_tokens: int = 4096,
    split: Split = "held_out",
    context_size: int | None = None,
    layers_alone: Sequence[int] = (),
) -> LayersEvalResult:
    """Returns how well transcoders of all layers stand for a model's MLPs, on held-out text.

    Runs the model twice on `n_tokens`, and once more for each of `layers_alone`.

    Args:
        text: As `open_text` takes it; None is the default corpus.
        n_tokens: Tokens to judge on, rounded up to whole sequences.
        split: Documents to take: "held_out", which training never saw, or "all".
        context_size: Tokens of the longest sequence; None takes what they were trained with.
        layers_alone: Layers that are also replaced alone.

    Raises:
        DictionaryError: transcoders that do not fit the model.
        ValueError: text without a sequence to judge, or a layer that has no transcoder.
    """
    found = layer_transcoders(transcoders, model)
    for layer in layers_alone:
        if layer not in found.layers:
            raise ValueError(f"layers_alone: layer {layer} has no transcoder")
    source = text if isinstance(text, TextSource) else open_text(text)
    size = context_size or found.metadata.get("context_size") or Packing().context_size
    read = read_text(model, source, Packing(size), split, n_tokens, n_tokens)
    judge = _Judge(model, found, layers_alone)
    batches = list(padded_batches(read.sequences, _POSITIONS))
    limits = norm_limits(model, batches, judge.hooks)
    for batch in batches:
        judge.add(batch, limits)
    return judge.result(read.n_tokens)


class _Judge:
    """Sums over batches."""

    def __init__(
        self, model: HookedTransformer, transcoders: LayerTranscoders, alone: Sequence[int]
    ) -> None:
        self._model, self._t, self._alone = model, transcoders, alone
        t, d = transcoders, model.config.d_model
        self.hooks = [t.read_hook(i) for i in t.layers] + [t.write_hook(i) for i in t.layers]
        self._kept = {i: RowSums(d) for i in t.layers}
        self._all = {i: RowSums(d) for i in t.layers}
        self._active = dict.fromkeys(t.layers, 0)
        self._n_excluded = 0
        self._losses: dict[str, list[float]] = {}
        self._kl: list[float] = []
        self._same: list[bool] = []

    def add(self, batch: Batch, limits: dict[str, float]) -> None:
        """Takes a batch."""
        mask = batch.mask.to(torch.int64)
        with torch.no_grad():
            plain, cache = self._model.run_with_cache(batch.tokens, self.hooks, attention_mask=mask)
        rows = {name: cache[name][batch.mask].float() for name in self.hooks}
        self._reconstruct(rows, batch, limits)
        del cache, rows
        replaced = self._run(batch, self._t.layers)
        self._extend("plain", plain, batch)
        self._extend("replaced", replaced, batch)
        self._kl += divergences(plain, replaced, batch)
        same = plain.argmax(-1) == replaced.argmax(-1)
        self._same += same[batch.mask].tolist()
        del replaced
        for layer in self._alone:
            self._extend(str(layer), self._run(batch, (layer,)), batch)

    def result(self, n_tokens: int) -> LayersEvalResult:
        """Returns the figures."""
        means = {name: math.fsum(x) / len(x) for name, x in self._losses.items()}
        layers = self._t.layers
        return LayersEvalResult(
            nmse=[1 - self._kept[i].explained_variance() for i in layers],
            nmse_all=[1 - self._all[i].explained_variance() for i in layers],
            l0=[self._active[i] / max(1, self._kept[i].n_rows) for i in layers],
            ce_loss=means["plain"],
            ce_loss_replaced=means["replaced"],
            delta_ce=means["replaced"] - means["plain"],
            kl_div=math.fsum(self._kl) / len(self._kl),
            top1_agreement=sum(self._same) / len(self._same),
            delta_ce_alone={i: means[str(i)] - means["plain"] for i in self._alone},
            n_tokens=n_tokens,
            n_excluded=self._n_excluded,
        )

    def _run(self, batch: Batch, layers: Sequence[int]) -> torch.Tensor:
        hooks = ReplacedLayers(self._t, layers).hooks()
        mask = batch.mask.to(torch.int64)
        with torch.no_grad():
            logits: torch.Tensor = self._model.run_with_hooks(
                batch.tokens, hooks, attention_mask=mask
            )
        return logits

    def _extend(self, name: str, logits: torch.Tensor, batch: Batch) -> None:
        self._losses.setdefault(name, []).extend(next_token_losses(logits, batch))

    def _reconstruct(
        self, rows: dict[str, torch.Tensor], batch: Batch, limits: dict[str, float]
    ) -> None:
        t = self._t
        later = torch.ones_like(batch.mask)
        later[:, 0] = False
        later_N = later[batch.mask]
        kept = ~outliers(rows, limits) & later_N
        self._n_excluded += int((~kept & later_N).sum())
        features = {i: t.encode(i, rows[t.read_hook(i)]) for i in t.layers}
        for i in t.layers:
            y, y_hat = rows[t.write_hook(i)], t.decode(i, features, rows[t.read_hook(i)])
            self._all[i].add(y[later_N], y_hat[later_N])
            self._kept[i].add(y[kept], y_hat[kept])
            self._active[i] += int(features[i].indptr.diff()[kept].sum())
