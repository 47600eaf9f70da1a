"""The logit lens (nostalgebraist, 2020): a layer's residual stream through the final norm and the
unembedding.

Shapes: d d_model, V vocabulary.
"""

from __future__ import annotations

import torch

from ...model.transformer import HookedTransformer


class LogitLens:
    """Reads every layer's residual stream as if it were the last one.

    Attributes:
        title: Its name in drawings.
    """

    title = "Logit lens"

    def __init__(self, model: HookedTransformer) -> None:
        self.model = model

    def transported(self, resid: torch.Tensor, layer: int) -> torch.Tensor:
        """Returns what a residual stream after a block stands for after the last one, [..., d]."""
        return resid

    def logits(self, resid: torch.Tensor, layer: int) -> torch.Tensor:
        """Returns logits [..., V] of the residual stream after a block, [..., d], any soft cap
        included.

        Raises IndexError for a layer that there is not.
        """
        model = self.model
        if not 0 <= layer < model.config.n_layers:
            raise IndexError(f"layer {layer} of {model.config.n_layers}")
        with torch.no_grad():
            x = self.transported(resid, layer).to(resid.dtype)
            logits: torch.Tensor = model.unembed(model.ln_final(x))
            return logits if model.soft_cap is None else model.soft_cap(logits)
