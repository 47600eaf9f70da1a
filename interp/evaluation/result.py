"""The findings of an evaluation."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, eq=False)
class EvalResult:
    """The quality of a dictionary on a text.

    x is a row of what the dictionary reconstructs (its hook, or a transcoder's `hook_name_out`) and
    x_hat its reconstruction. Outliers are rows of more than 3 times the median norm; where nothing
    else is said they are left out of averages over rows, and keep their activation where others are
    replaced. Losses are means over every next token of the text, in nats.

    Attributes:
        l0: Mean number of features that are active in a row.
        explained_variance: 1 - sum |x - x_hat|^2 / sum |x - mean|^2, as SAELens's.
        explained_variance_all: The same with the outliers.
        mse: Mean of |x - x_hat|^2, summed over dimensions, as SAELens's.
        cossim: Mean cosine of x and x_hat; 0 for a row where either is 0.
        ce_loss_without_sae: Loss of the model as it is.
        ce_loss_with_sae: With x_hat in place of x.
        ce_loss_with_ablation: With 0 in place of x.
        ce_loss_with_mean_ablation: With the mean row of the text in place of x.
        ce_loss_with_sae_all: With x_hat in place of x at outliers, too.
        delta_ce: What the loss rises by: `ce_loss_with_sae` - `ce_loss_without_sae`.
        delta_ce_all: The same with outliers replaced, too.
        ce_loss_score: The part of zero ablation's damage that x_hat undoes.
        ce_loss_score_mean: The part of mean ablation's damage that x_hat undoes.
        kl_div_with_sae: Mean KL(model || model with x_hat) over every position.
        dead_share: Part of the features that are active in none of `n_dead_tokens`.
        density: [F]: the part of `n_dead_tokens`, without outliers, in which each is active.
        n_tokens: Tokens of text behind all but the last two.
        n_excluded: Outliers among them.
        n_dead_tokens: Tokens of text behind `density` and `dead_share`.
    """

    l0: float
    explained_variance: float
    explained_variance_all: float
    mse: float
    cossim: float
    ce_loss_without_sae: float
    ce_loss_with_sae: float
    ce_loss_with_ablation: float
    ce_loss_with_mean_ablation: float
    ce_loss_with_sae_all: float
    delta_ce: float
    delta_ce_all: float
    ce_loss_score: float
    ce_loss_score_mean: float
    kl_div_with_sae: float
    dead_share: float
    density: torch.Tensor
    n_tokens: int
    n_excluded: int
    n_dead_tokens: int

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as JSON can hold them; `density` is a list."""
        found = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return found | {"density": self.density.tolist()}
