"""From logits to tokens: the one call under every other way to sample."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.distributed as dist

from .batch import Batch, Ids
from .certificate import Certificate
from .groups import LocalGroup, RankGroup, TorchGroup
from .params import SamplingParams
from .rounds import Outcome, Path, Prepare, Request, failed_rank, rank_rounds
from .shard import LOGIT_TYPES, Shard, exact, id_of, x_of
from .typical import typical_set

Params = SamplingParams | Sequence[SamplingParams]
Counters = torch.Tensor | Sequence[int]


@dataclass(frozen=True)
class SampleOutput:
    """The chosen tokens, and what was asked for beside them.

    Attributes:
        tokens: int64 [B]; -1 where not valid.
        valid: bool [B]. False where a row holds NaN or +inf, or no finite logit after masks.
        logprobs: fp32 [B], ln of the chosen token's probability after penalties and temperature,
            before filters; NaN where not asked for. None if no row asks.
        top_ids, top_logprobs: int64 and fp32 [B, n] of the best tokens, n being the most that a row
            asks for; -1 and NaN beyond what a row asks for. None if no row asks.
        certificate: One a row, None where not valid. None unless asked for.
    """

    tokens: torch.Tensor
    valid: torch.Tensor
    logprobs: torch.Tensor | None = None
    top_ids: torch.Tensor | None = None
    top_logprobs: torch.Tensor | None = None
    certificate: list[Certificate | None] | None = None

    def best(self, row: int, n: int) -> tuple[list[int], list[float]]:
        """Returns ids and log-probabilities of a row's best n tokens: fewer where masks leave
        fewer, or others are too unlikely to be drawn; none where no row asked for any."""
        if self.top_ids is None or self.top_logprobs is None:
            return [], []
        ids = [each for each in self.top_ids[row, :n].tolist() if each >= 0]
        return ids, self.top_logprobs[row, : len(ids)].tolist()


class RowSampler(Protocol):
    """`sample` of whole rows, where a model's logits are, if that is not the CPU."""

    def __call__(
        self,
        logits: torch.Tensor,
        params: Params,
        *,
        positions: Counters,
        draws: Counters | None,
        prompt_ids: Ids | None,
        output_ids: Ids | None,
    ) -> SampleOutput: ...


def sample(
    logits: torch.Tensor,
    params: Params,
    *,
    positions: Counters,
    draws: Counters | None = None,
    prompt_ids: Ids | None = None,
    output_ids: Ids | None = None,
    vocab_size: int | None = None,
    group: dist.ProcessGroup | RankGroup | None = None,
    vocab_start: int = 0,
    path: Path = "auto",
    return_certificate: bool = False,
) -> SampleOutput:
    """Chooses a token a row, exactly as docs/numerics.md says, whatever the batch and the shards.

    Args:
        logits: [B, V], or this rank's slice [B, n] of it; fp32, bf16 or fp16; the result is
            on the CPU wherever they are.
        params: One for all rows, or one a row. Rows of equal seed, position and draw have equal
            noise.
        positions: [B], where each token will stand in its own sequence.
        draws: [B], which of several samples of one request each row is; default 0.
        prompt_ids, output_ids: Each row's tokens so far, for penalties and min_tokens.
        vocab_size: Ids from here on are padding and never chosen; default: none is.
        group: Ranks that hold the other slices; every rank calls with the same arguments but its
            own logits and vocab_start, and gets the same result.
        vocab_start: The id of this rank's first column.
        path: "verify" or "radix" forces one of the two ways through a large nucleus; the result is
            the same.
        return_certificate: Also say what was kept and where the token stands in it.

    Raises:
        ValueError: naming a bad argument (the other ranks of a group get a RankError).
        RankError: on every rank, if the ranks disagree, their slices do not tile the vocabulary, or
            one is gone.
    """
    if group is None:
        request = _request(
            logits, params, positions, draws, prompt_ids, output_ids, vocab_size, vocab_start,
            path, return_certificate, seeds_must_agree=False,
        )  # fmt: skip
        return _output(LocalGroup(1).run([rank_rounds(request)])[0], request)
    ranks = group if isinstance(group, RankGroup) else TorchGroup(group)
    try:
        request = _request(
            logits, params, positions, draws, prompt_ids, output_ids, vocab_size, vocab_start,
            path, return_certificate, seeds_must_agree=True,
        )  # fmt: skip
    except Exception:
        ranks.run(failed_rank())
        raise
    return _output(ranks.run(rank_rounds(request)), request)


def sample_shards(
    shards: Sequence[torch.Tensor],
    params: Params,
    *,
    positions: Counters,
    draws: Counters | None = None,
    prompt_ids: Ids | None = None,
    output_ids: Ids | None = None,
    vocab_size: int | None = None,
    vocab_starts: Sequence[int] | None = None,
    group: LocalGroup | None = None,
    path: Path = "auto",
    return_certificate: bool = False,
) -> SampleOutput:
    """`sample` on N slices [B, n_i] in one process, through the code that N processes run.

    Args:
        shards: In the order of ids, unless `vocab_starts` gives the first id of each.
        group: Counts bytes and rounds; default: a new one.

    Raises as `sample`.
    """
    group = group or LocalGroup(len(shards))
    if group.size != len(shards):
        raise ValueError(f"group: {group.size} ranks for {len(shards)} shards")
    if vocab_starts is None:
        sizes = [shard.shape[-1] for shard in shards]
        vocab_starts = [sum(sizes[:i]) for i in range(len(sizes))]
    # A fresh seed is drawn once for all.
    batch = None
    requests = []
    for logits, start in zip(shards, vocab_starts, strict=True):
        request = _request(
            logits, params, positions, draws, prompt_ids, output_ids, vocab_size, start, path,
            return_certificate, seeds_must_agree=False, batch=batch,
        )  # fmt: skip
        batch = request.batch if len(request.batch) == len(logits) else None
        requests.append(request)
    outputs = group.run([rank_rounds(request) for request in requests])
    return _output(outputs[0], requests[0])


def _request(
    logits: torch.Tensor,
    params: Params,
    positions: Counters,
    draws: Counters | None,
    prompt_ids: Ids | None,
    output_ids: Ids | None,
    vocab_size: int | None,
    vocab_start: int,
    path: Path,
    return_certificate: bool,
    *,
    seeds_must_agree: bool,
    batch: Batch | None = None,
) -> Request:
    known = logits.ndim == 2 and logits.dtype in LOGIT_TYPES
    if not known or logits.device.type not in ("cpu", "cuda"):
        raise ValueError(
            f"logits: expected fp32, bf16 or fp16 [batch, vocabulary] on the CPU or a GPU, got "
            f"{logits.dtype} {list(logits.shape)} on {logits.device}"
        )
    if path not in ("auto", "verify", "radix"):
        raise ValueError(f'path = {path!r}: expected "auto", "verify" or "radix"')
    if vocab_start < 0:
        raise ValueError(f"vocab_start = {vocab_start}: expected 0 or more")
    if batch is None or len(batch) != len(logits):
        batch = Batch.make(
            params, positions, draws, prompt_ids, output_ids,
            size=len(logits), seeds_must_agree=seeds_must_agree,
        )  # fmt: skip
    return Request(
        logits.detach(), vocab_start, batch, vocab_size, path, return_certificate,
        shards_on(logits.device),
    )  # fmt: skip


@functools.cache
def shards_on(device: torch.device) -> Prepare:
    """Returns what makes shards of logits on a device.

    Raises CudaUnavailable for a GPU that bitlens has no kernels for.
    """
    if device.type == "cpu":
        return Shard.prepare
    from ..ops.cuda.on_device import gpu_kernels
    from ..ops.cuda.shard import CudaShard

    return functools.partial(CudaShard.on, gpu_kernels(device))


def _output(outcome: Outcome, request: Request) -> SampleOutput:
    choices = outcome.choices
    tokens = torch.from_numpy(id_of(choices["key"]))
    asks = [p.logprobs for p in request.batch.params if p.logprobs is not None]
    return SampleOutput(
        tokens=tokens,
        valid=tokens >= 0,
        logprobs=torch.from_numpy(outcome.logprobs) if asks else None,
        top_ids=torch.from_numpy(id_of(outcome.top_keys)) if any(asks) else None,
        top_logprobs=torch.from_numpy(outcome.top_logprobs) if any(asks) else None,
        certificate=_certificates(outcome) if request.certify else None,
    )


def _certificates(outcome: Outcome) -> list[Certificate | None]:
    choices = outcome.choices
    last = choices["threshold_key"]
    typical_keys = zip(choices["centre"].tolist(), choices["typical_key"].tolist(), strict=True)
    columns = zip(
        exact(outcome.x_max), outcome.totals.tolist(), choices["kept"].tolist(),
        choices["mass"].tolist(), exact(x_of(last)), id_of(last).tolist(),
        choices["rank"].tolist(), choices["mass_before"].tolist(),
        [typical_set(centre, key) if key else None for centre, key in typical_keys], strict=True,
    )  # fmt: skip
    valid = (choices["key"] != 0).tolist()
    return [Certificate(*c) if ok else None for c, ok in zip(columns, valid, strict=True)]
