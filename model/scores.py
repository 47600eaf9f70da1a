"""Log-probabilities of tokens and a head's scores of texts and tokens, each of one pass.

Tensor names: T ragged rows, S scored rows, B batch, P padded positions, V vocabulary, d d_model.
"""

from __future__ import annotations

from typing import Any

import torch

from .autocast import without_autocast
from .forward_pass import ForwardPass
from .gradients.head import LEAF
from .gradients.token_logprob import token_logprob
from .gradients.training_ops import TrainingOps
from .hooks.registry import FINAL_NAMES
from .loss import scored_rows
from .ops.interface import Ops
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
            logprob_S = _head_logprob(run.ops, x_Td, rows_S, ids_S, *head, temperature)
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


def logprobs_and_values(
    model: ForwardPass,
    tokens: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scored: torch.Tensor | None,
    temperature: float,
    head: PackedWeight,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns ln p of tokens and a head [1, d] of what stands before each, both fp32 [B, P].

    Raises ValueError for a model with hooks or overrides of its last operations.
    """
    with without_autocast(model.ops.device):
        call = ("values", temperature)
        tokens_T, resid_Td, run = model.rows(tokens, attention_mask, call)
        if run.wants(*FINAL_NAMES) or any(map(run.is_overridden, ("unembed", "soft_cap"))):
            raise ValueError("values: hooks or overrides of the last operations are installed")
        rows_S = scored_rows(run.batch, scored)
        x_Td, read_Td = run.ops.fork(model.ln_final(resid_Td, run), 2)
        unembed = model.unembed.weight, model.config.final_logit_softcap
        ids_S = tokens_T[rows_S + 1]
        logprob_S = _head_logprob(run.ops, x_Td, rows_S, ids_S, *unembed, temperature)
        value_T = run.ops.linear(read_Td, head, out_dtype=torch.float32)[:, 0]
        zeros_T = logprob_S.new_zeros(run.batch.n_rows)
        logprobs_BP, values_BP = (
            run.batch.pad(zeros_T.index_put((rows_S + 1,), x_S))
            for x_S in (logprob_S, value_T[rows_S])
        )
        return logprobs_BP, values_BP


def _head_logprob(
    ops: Ops,
    x_Td: torch.Tensor,
    rows_S: torch.Tensor,
    ids_S: torch.Tensor,
    weight: Any,
    cap: float | None,
    temperature: float,
) -> torch.Tensor:
    """ln p of the tokens that follow some rows of the last norm's output, [S]; logits are made for
    256 rows at a time."""
    if isinstance(ops, TrainingOps):
        return ops.head_logprob(x_Td, rows_S, ids_S, weight, cap, temperature)
    found = []
    for first in range(0, len(rows_S), LEAF):
        rows, ids = rows_S[first : first + LEAF], ids_S[first : first + LEAF]
        logits = ops.linear(x_Td[rows], weight, out_dtype=ops.policy.logits)
        logits = logits if cap is None else ops.soft_cap(logits, cap)
        found.append(logprob_of(logits, ids, temperature))
    return torch.cat(found)


def logprob_of(logits: torch.Tensor, ids: torch.Tensor, temperature: float) -> torch.Tensor:
    """Returns `token_logprob`, of fp32 logits on the CPU wherever they are; torch's own of fp64."""
    if logits.dtype is torch.float32:
        return token_logprob(logits.cpu(), ids.cpu(), temperature).to(logits.device)
    scaled = logits / (temperature if temperature >= 1e-5 else 1.0)
    return torch.log_softmax(scaled, dim=-1).gather(-1, ids[..., None])[..., 0]
