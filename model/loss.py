"""Next-token loss. Tensor names: T ragged rows, B batch, P padded positions, V vocabulary."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .batch import RaggedBatch


def next_token_loss(
    logits_TV: torch.Tensor, tokens_T: torch.Tensor, batch: RaggedBatch
) -> torch.Tensor:
    """Mean cross entropy of each real token given those before it in its sequence, a scalar.

    The first token of the batch in each sequence is predicted by none of its rows and not counted.
    Raises ValueError if no token is left.
    """
    rows = _predicting_rows(batch)
    return F.cross_entropy(logits_TV[rows], tokens_T[rows + 1])


def next_token_losses(
    logits_TV: torch.Tensor, tokens_T: torch.Tensor, batch: RaggedBatch
) -> torch.Tensor:
    """Cross entropy of each token given those before it, [B, P - 1]; errors as `next_token_loss`.

    Column j belongs to the token in column j + 1; 0 where either is padding.
    """
    rows = _predicting_rows(batch)
    losses = F.cross_entropy(logits_TV[rows], tokens_T[rows + 1], reduction="none")
    losses_T = losses.new_zeros(batch.n_rows).index_put((rows,), losses)
    return batch.pad(losses_T)[:, :-1]


def _predicting_rows(batch: RaggedBatch) -> torch.Tensor:
    """The rows that are followed by a token of their own sequence."""
    predicts = torch.ones(batch.n_rows, dtype=torch.bool, device=batch.device)
    predicts[batch.last_rows_B] = False
    rows = predicts.nonzero().flatten()
    if not rows.numel():
        raise ValueError("return_type: a loss needs a sequence of at least 2 tokens")
    return rows


def scored_rows(batch: RaggedBatch, scored_BP: torch.Tensor | None) -> torch.Tensor:
    """Returns the rows that predict the tokens of `scored_BP`, int64, ascending.

    None stands for every token but each sequence's first. Raises ValueError for a mask that is not
    of the batch, that names padding or a first token, or nothing at all.
    """
    if scored_BP is None:
        scored_T = torch.ones(batch.n_rows, dtype=torch.bool, device=batch.device)
        scored_T[batch.starts[:-1]] = False
    else:
        shape = (batch.size, batch.n_columns)
        if scored_BP.dtype is not torch.bool or scored_BP.shape != shape:
            raise ValueError(
                f"scored: expected bool {list(shape)}, got {scored_BP.dtype} "
                f"{list(scored_BP.shape)}"
            )
        scored_T = batch.strip(scored_BP.to(batch.device))
        if int(scored_T.sum()) != int(scored_BP.sum()):
            raise ValueError("scored: names padding")
        if bool(scored_T[batch.starts[:-1]].any()):
            raise ValueError("scored: nothing comes before a sequence's first token")
    if not bool(scored_T.any()):
        raise ValueError("scored: no token is left; a sequence needs at least 2")
    return scored_T.nonzero().flatten() - 1
