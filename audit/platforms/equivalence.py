"""Is the model the same on another platform? Judged against fp64, beside our own roundings.

Bits differ by right between compilers, so the claim rests on one of four grades. "Equivalent" is
two one-sided tests, fixed before the run: over prompts, the platform's error over the error of
bitlens under the policy whose roundings the platform states, both against fp64, lies within a
factor. A lower error than the policy's own fails as well: a program that rounds less often than it
says is another program.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from ...model.hooks.progress import stage_bars
from ...model.load import load
from ...model.sources.resolve import open_checkpoint
from ...model.transformer import HookedTransformer
from ...precision.addresses import UnobservedError
from ...precision.certificate import Workload
from ...precision.divergence.difference import same_bits
from ...precision.statistics import EquivalencePlan
from ..paths import path_on_trial, reference_path
from ..postmortem import shipped_prompts
from ..result import AuditResult
from ..run import Plan, audit
from ..texts import Texts, texts
from .certify import certificate
from .distance import Distance
from .grades import Grade
from .platform import PLATFORMS, Platform
from .remote import Answer, PlatformError, run_remotely
from .report import EquivalenceReport, PlatformRow
from .top_k import wrong_top_k

Progress = Callable[[str, int, int], None]


def equivalence(
    model: str,
    platforms: str | Iterable[str] = "all",
    *,
    prompts: Sequence[str] | None = None,
    n_prompts: int = 16,
    tokens: int = 128,
    margin: float = 2.0,
    alpha: float = 0.05,
    seed: int = 0,
    progress: Progress | None = None,
) -> EquivalenceReport:
    """Runs a model on platforms and grades each.

    Args:
        model: A file, folder or alias, as `bitlens.load` takes it.
        platforms: Names out of `PLATFORMS`, or "all".
        prompts: Texts; by default the first `n_prompts` that are shipped. Each is cut to `tokens`
            tokens or continued to them by the model itself.
        margin: The factor that a platform's error may differ by from its policy's, fixed before.
        alpha: Level of the test.

    Each platform runs in a process of its own; one that cannot is a row that says why. Raises
    ValueError for a platform that is none, a margin of at most 1, and fewer than two prompts.
    """
    names = list(PLATFORMS) if platforms == "all" else _names(platforms)
    if margin <= 1 or not math.isfinite(margin):
        raise ValueError(f"margin = {margin}: expected a factor above 1")
    plan = EquivalencePlan("log of error over the policy's own error", math.log(margin), alpha)
    prompts = shipped_prompts()[:n_prompts] if prompts is None else prompts
    if len(prompts) < 2:
        raise ValueError(f"{len(prompts)} prompts: an interval needs two")
    with stage_bars(progress) as tell, tempfile.TemporaryDirectory(prefix="bitlens-") as folder:
        checkpoint = open_checkpoint(model)
        own = load(checkpoint)
        written = texts(own, prompts, tokens, seed=seed, progress=lambda *n: tell("writing", *n))
        judge = _Judge(model, written, plan, Path(folder), tell)
        judge.write_reference(load(checkpoint, dtype="fp64", backend="torch"))
        rows = tuple(judge.row(name, PLATFORMS[name]) for name in names)
    return EquivalenceReport(
        Path(model).name, len(prompts), tokens, margin, alpha, plan.digest, rows
    )


def _names(platforms: str | Iterable[str]) -> list[str]:
    names = platforms.split(",") if isinstance(platforms, str) else list(platforms)
    unknown = [name for name in names if name not in PLATFORMS]
    if unknown or not names:
        raise ValueError(f"platforms: {', '.join(unknown) or 'none'}: choose of "
                         f"{', '.join(PLATFORMS)}")  # fmt: skip
    return names


@dataclass(frozen=True)
class _Own:
    """A run of bitlens under one policy: its distance from fp64, its logits' digests by prompt."""

    distance: Distance = field(default_factory=Distance)
    digests: list[bytes] = field(default_factory=list)


def _digest(logits_PV: torch.Tensor) -> bytes:
    return hashlib.sha256(logits_PV.numpy().tobytes()).digest()


class _Judge:
    """Judges platforms on one set of texts."""

    def __init__(
        self, source: str, written: Texts, plan: EquivalencePlan, folder: Path, tell: Progress
    ) -> None:
        self._source, self._plan = source, plan
        self._tokens_NP, self._folder, self._tell = written.tokens_NP, folder, tell
        self._own: dict[tuple[str, tuple[int, ...]], _Own] = {}

    def write_reference(self, reference: HookedTransformer) -> None:
        """Keeps the fp64 logits on disk, a prompt a file."""
        for i, logits_PV in enumerate(self._logits(reference, "reference")):
            save_file({"logits": logits_PV.contiguous()}, self._folder / f"{i}.safetensors")

    def row(self, name: str, platform: Platform) -> PlatformRow:
        """Runs a platform and grades it."""
        row = PlatformRow(name, platform.what, platform.policy, Grade.NOT_RUN)
        tokens_NP = self._tokens_NP[: platform.prompts(*self._tokens_NP.shape)]
        places = tuple(platform.positions(tokens_NP.shape[1]))
        own = self._own_run(platform.policy, places)
        distance, same, wrong_lists = Distance(), platform.same_bits, 0
        first = torch.empty(0)
        try:
            remark = platform.remark(open_checkpoint(self._source))
            for i, answer in enumerate(self._answers(name, platform, tokens_NP, len(places))):
                self._add(distance, i, answer.logits, places)
                first = answer.logits if i == 0 else first
                same = same and _digest(answer.logits) == own.digests[i]
                if answer.top is not None:
                    wrong_lists += int(wrong_top_k(answer.logits, answer.top).sum())
        except (PlatformError, ValueError) as error:
            return replace(row, error=str(error))
        violation = None
        if wrong_lists:
            violation = f"top-k: another list at {wrong_lists} of {len(distance.flips)} positions"
        has_addresses = platform.has_addresses
        if has_addresses and not same and not wrong_lists:
            has_addresses, violation, why = self._operations(name, platform, first)
            remark = remark or why
        row = replace(row, remark=remark, first_violation=violation)
        return self._graded(row, has_addresses, distance, own.distance, same)

    def _answers(
        self, name: str, platform: Platform, tokens_NP: torch.Tensor, n: int
    ) -> Iterator[Answer]:
        found = run_remotely(self._source, name, platform.environment, tokens_NP, n)
        for i, answer in enumerate(found):
            yield answer
            self._tell(name, i + 1, len(tokens_NP))

    def _graded(
        self, row: PlatformRow, has_addresses: bool, distance: Distance, own: Distance, same: bool
    ) -> PlatformRow:
        logs = distance.over(own)
        test = self._plan.test(logs, range(len(logs)))
        is_right = row.first_violation is None
        grade = (
            Grade.SAME_BITS if same
            else Grade.WITHIN_CONTRACT if has_addresses and is_right
            else Grade.EQUIVALENT if test.equivalent and is_right
            else Grade.NOT_SHOWN
        )  # fmt: skip
        interval, reach = test.interval, self._plan.margin
        flips, kl = distance.flip_rate(), distance.mean_kl()
        return replace(
            row,
            grade=grade,
            depth="operations" if has_addresses else "logits",
            positions=len(distance.flips),
            rms=distance.rms,
            largest=distance.largest,
            mean_exp=distance.mean_exp,
            kl=kl.mean,
            kl_99=distance.high_kl(),
            flips=flips.mean,
            flips_low=flips.interval.low,
            flips_high=flips.interval.high,
            certified=distance.certified / len(distance.flips),
            ratio=math.exp(test.estimate),
            ratio_low=math.exp(interval.low),
            ratio_high=math.exp(interval.high),
            tost_p=test.p_value,
            is_different=interval.low > reach or interval.high < -reach,
            certificate=certificate(
                Path(self._source).name,
                row.platform,
                row.policy,
                Workload.of(self._tokens_NP[: len(logs)].tolist()),
                distance,
                test,
                has_same_bits=same,
            ),
        )

    def _own_run(self, policy: str, places: tuple[int, ...]) -> _Own:
        if (policy, places) not in self._own:
            own = self._own[policy, places] = _Own()
            model = load(self._source, dtype=policy)
            for i, logits_PV in enumerate(self._logits(model, f"bitlens {policy}")):
                self._add(own.distance, i, logits_PV[list(places)], places)
                own.digests.append(_digest(logits_PV[list(places)]))
        return self._own[policy, places]

    def _logits(self, model: HookedTransformer, stage: str) -> Iterator[torch.Tensor]:
        for i, tokens_P in enumerate(self._tokens_NP):
            yield model(tokens_P[None])[0]
            self._tell(stage, i + 1, len(self._tokens_NP))

    def _add(
        self, distance: Distance, i: int, logits_PV: torch.Tensor, places: Sequence[int]
    ) -> None:
        reference_PV = load_file(self._folder / f"{i}.safetensors")["logits"][list(places)]
        distance.add(self._tokens_NP[i], reference_PV, logits_PV, places)

    def _operations(
        self, name: str, platform: Platform, first_PV: torch.Tensor
    ) -> tuple[bool, str | None, str | None]:
        """Returns whether operations were judged, on two prompts of the texts, the first violation
        of one, and what kept them from being judged.

        Args:
            first_PV: The platform's logits for the first prompt.
        """
        try:
            a, _ = reference_path(self._source, platform.policy)
            b = path_on_trial(self._source, name, a)
            if not same_bits(b.model(self._tokens_NP[0])[0].detach().float(), first_PV):
                return False, None, "its operations give other bits where they can be seen"
            some = Texts(self._tokens_NP[:2, :64], 0)
            found = audit(self._source, a, b, some, Plan(tokens=64, checked=1, rows=8), _quiet)
        except (PlatformError, UnobservedError) as error:
            return False, None, str(error)
        return found.depth == "operations", _first_violation(found), found.why_logits


def _first_violation(result: AuditResult) -> str | None:
    """Returns the first quantity derived otherwise, else the first address outside its contract."""
    if result.meaning:
        return str(result.meaning[0])
    return result.violated[0].address if result.violated else None


def _quiet(stage: str, done: int, total: int) -> None:
    """Tells nobody."""
