"""Log-probabilities of tokens and a head's scores of texts, each of one pass.

Tensor names: T ragged rows, S scored rows, B batch, P padded positions, V vocabulary, d d_model.
"""

from __future__ import annotations

import torch

from .autocast import without_autocast
from .forward_pass import ForwardPass
from .gradients import head_logprob, logprob_of
from .hooks.registry import FINAL_NAMES
from .loss import scored_rows
from .ops.packed import PackedWeight
from .text.prompts import Tokens


def logprobs(
    model: ForwardPass,
    tokens: Tokens,
    attention_mask: torch.Tensor | None,
    scored: torch.Tensor | None,
    temperature: float,
    prepend_bos: bool | None,
) -> torch.Tensor:
    """Returns ln p of tokens, fp32 [B, P]."""
    with without_autocast(model.ops.device):
        call = ("logprobs", temperature)
        tokens_T, resid_Td, run = model.rows(tokens, attention_mask, call, prepend_bos)
        rows_S = scored_rows(run.batch, scored)
        ids_S, finals = tokens_T[rows_S + 1], run.wants(*FINAL_NAMES)
        if finals or any(map(run.is_overridden, ("unembed", "soft_cap"))):
            logprob_S = logprob_of(model.logits(resid_Td, run)[rows_S], ids_S, temperature)
        else:
            x_Td = model.ln_final(resid_Td, run)
            head = model.unembed.weight, model.config.final_logit_softcap
            logprob_S = head_logprob(run.ops, x_Td, rows_S, ids_S, *head, temperature)
        logprob_T = logprob_S.new_zeros(run.batch.n_rows)
        return run.batch.pad(logprob_T.index_put((rows_S + 1,), logprob_S))


def head_scores(
    model: ForwardPass,
    tokens: torch.Tensor,
    attention_mask: torch.Tensor | None,
    head: PackedWeight,
) -> torch.Tensor:
    """Returns a head [1, d] of each last token's normalized residual stream, fp32 [B]."""
    with without_autocast(model.ops.device):
        _, resid_Td, run = model.rows(tokens, attention_mask, ("scores",))
        x_Bd = model.ln_final(resid_Td[run.batch.last_rows_B], run)
        return run.ops.linear(x_Bd, head, out_dtype=torch.float32)[:, 0]
