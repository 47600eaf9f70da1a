"""The audit itself: texts, tokens, lockstep, localisation, shrinking, certificate."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import PurePath

import torch
from torch import nn

from ..model.hooks.progress import stage_bars
from ..model.transformer import HookedTransformer
from ..model.weights.fingerprint import fingerprint
from ..precision.divergence.plain_run import plain_logits
from ..precision.fingerprint import environment_fingerprint
from ..precision.meaning import meaning_differences
from .black_box import BlackBox, audit_by_logits, if_fused, platform_on_trial
from .certify import certificate, only_proven_by
from .checkpoints import CheckpointComparison, compare_checkpoints, resident_checkpoint
from .features import NamedDictionary, feature_changes, read_dictionary
from .localise import localise
from .lockstep import Lockstep
from .paths import (
    ModelPath,
    check_device,
    path_on_trial,
    reference_path,
    shows_logits_only,
)
from .postmortem import shipped_prompts
from .reproduce import reproducer
from .result import AuditResult, Setting, TokenFlips
from .texts import Texts, texts
from .tokens import TokenCount, certified_by_states, heads, last_step

Progress = Callable[[str, int, int], None]
"""Called with (stage, steps done, steps in all)."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """The extent of an audit.

    Attributes:
        tokens: A prompt's length; shorter prompts are continued by A.
        checked: Prompts that run in lockstep, operation by operation.
        rows: Rows of each operation's output, of each such prompt, that meet its contract.
        margin: The rate of flips below which B counts as equivalent, fixed beforehand.
    """

    tokens: int = 128
    checked: int = 8
    rows: int = 16
    margin: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        if self.checked < 1 or self.rows < 1:
            raise ValueError(f"{self.checked} prompts of {self.rows} rows: at least one of each")
        if not 0 < self.margin < 1:
            raise ValueError(f"margin {self.margin}: expected a share between 0 and 1")


DEFAULT_PLAN = Plan()
DEFAULT_PROMPTS = 64


def run_audit(
    source: str,
    a: str = "fp32",
    b: str | nn.Module = "bf16",
    prompts: Sequence[str] | None = None,
    plan: Plan = DEFAULT_PLAN,
    progress: Progress | None = None,
    dictionary: str | None = None,
    *,
    device: str = "cpu",
) -> AuditResult:
    """Judges path B of a model against path A.

    Args:
        source: As `bitlens.load` takes it.
        a: A policy with native kernels: "fp32", "bf16", "bf16_weights" or "hf_bf16".
        b: The other one; a platform by its name in `PLATFORMS`, such as "hf" or "jax", on the same
            weights; another checkpoint, under A's policy; or a model in memory, of transformers
            or of bitlens, with whatever has been patched into its code.
        prompts: Texts, one a prompt (default: the first 64 that are shipped).
        progress: Called with (stage, steps done, steps in all); default: bars, on a terminal or in
            a notebook.
        dictionary: Whose features are compared as well, as `load_dictionary` takes it.
        device: Where B's native kernels run, as `bitlens.load` takes it; A's run on the CPU, where
            contracts are judged. On a GPU B may be A's policy.

    Raises:
        ValueError: for paths that are none or one and the same, other vocabularies, fewer than two
            prompts, and a plan that cannot be. Otherwise as `bitlens.load`.
        TypeError: for a model in memory whose code cannot be watched, naming the module.
        UnobservedError: as `audit`.
    """
    with stage_bars(progress) as tell:
        return _run_audit(source, a, b, prompts, plan, tell, dictionary, device)


def _run_audit(
    source: str,
    a: str,
    b: str | nn.Module,
    prompts: Sequence[str] | None,
    plan: Plan,
    tell: Progress,
    dictionary: str | None,
    device: str,
) -> AuditResult:
    if prompts is None:
        prompts = shipped_prompts()[:DEFAULT_PROMPTS]
    tell("loading", 0, 1)
    path_a, model = reference_path(source, a)
    path_b: ModelPath | BlackBox
    if isinstance(b, str) and shows_logits_only(b):
        check_device(b, device)
        path_b = platform_on_trial(source, b)
    else:
        path_b = path_on_trial(source, b, path_a, device)
    read = None if dictionary is None else read_dictionary(dictionary, model, path_b)
    started = time.perf_counter()
    written = texts(
        model, prompts, plan.tokens, seed=plan.seed, progress=lambda i, n: tell("writing", i, n)
    )
    seconds = time.perf_counter() - started
    result = audit(PurePath(source).stem, path_a, path_b, written, plan, tell, read)
    return dataclasses.replace(result, seconds={"writing": seconds, **result.seconds})


def audit(
    name: str,
    a: ModelPath,
    b: ModelPath | BlackBox,
    written: Texts,
    plan: Plan = DEFAULT_PLAN,
    progress: Progress | None = None,
    dictionary: NamedDictionary | None = None,
) -> AuditResult:
    """Runs the audit on paths and texts that are there already.

    A path that shows logits only is judged by them, and so is a JAX path of which XLA computes
    operations together.

    Raises UnobservedError for a path that two plain runs, or watching it, give other logits, or
    whose operations do not each run once.
    """
    if len(written.tokens_NP) < 2:
        raise ValueError(f"{len(written.tokens_NP)} prompts: intervals need at least two")
    with stage_bars(progress) as tell:
        seen = b if isinstance(b, BlackBox) else if_fused(b, written.tokens_NP[0]) or b
        if isinstance(seen, ModelPath):
            return _audit(name, a, seen, written, plan, tell, dictionary)
        if dictionary is not None:
            raise ValueError(f"{seen.name} shows logits only: it has no features to compare")
        return audit_by_logits(name, a, seen, written, plan.margin, plan.seed, tell)


def _audit(
    name: str,
    a: ModelPath,
    b: ModelPath,
    written: Texts,
    plan: Plan,
    tell: Progress,
    dictionary: NamedDictionary | None,
) -> AuditResult:
    tokens_NP = written.tokens_NP
    n_prompts = len(tokens_NP)
    clock = _Clock()
    for path in (a, b):
        plain_logits(path.model, tokens_NP[0], path.name)
    checkpoints = _compare_checkpoints(a, b, tell)
    clock.lap("checkpoints")
    meaning = meaning_differences(a.model, b.model, tokens_NP[0])
    flips = _count_tokens(a, b, tokens_NP, plan, tell)
    clock.lap("tokens")
    lockstep = _lockstep(a, b, tokens_NP, plan, tell)
    ops = lockstep.findings()
    flips = only_proven_by(ops, flips)
    clock.lap("contracts")
    tell("localising", 0, 1)
    divergence = localise(a, b, tokens_NP, ops, flips.examples)
    clock.lap("localising")
    tell("shrinking", 0, 1)
    worst = lockstep.worst()
    shrunk = None if worst is None else reproducer(worst, b.implementation, f"{name}, {b.name}")
    clock.lap("shrinking")
    compared = {op.address for op in ops}
    features = None
    if dictionary is not None:
        features = feature_changes(a, b, tokens_NP, dictionary, lambda *n: tell("features", *n))
        clock.lap("features")
    checked = min(plan.checked, n_prompts)
    stated = certificate(name, a, b, tokens_NP, ops, flips)
    setting = Setting(
        model=name,
        a=a.name,
        b=b.name,
        prompts=n_prompts,
        positions=tokens_NP.numel(),
        written=written.written,
        checked_prompts=checked,
        rows_per_op=checked * min(plan.rows, tokens_NP.shape[1]),
        seed=plan.seed,
        only_a=tuple(x for x in a.model.op_addresses if x not in compared),
        only_b=tuple(x for x in b.model.op_addresses if x not in compared),
        environment=dataclasses.asdict(environment_fingerprint()),
        digests=_digests(a, b) | {"tokens of all prompts": stated["workload"]["tokens"]},
    )
    return AuditResult(
        setting=setting,
        checkpoints=checkpoints,
        meaning=meaning,
        ops=ops,
        histograms=lockstep.histograms(),
        divergence=divergence,
        reproducer=shrunk,
        flips=flips,
        certificate=stated,
        seconds=clock.laps,
        features=features,
    )


def _compare_checkpoints(a: ModelPath, b: ModelPath, tell: Progress) -> CheckpointComparison | None:
    """None for two policies on one checkpoint, and where a side's weights are not known.

    Files are compared as they are; where only memory has a bitlens model's weights, both sides'
    are taken from there.
    """
    mine, theirs, stored_as = a.checkpoint, b.checkpoint, b.rounds_to
    if mine is not None and mine is theirs:
        return None
    if mine is None or theirs is None:
        if not isinstance(a.model, HookedTransformer) or not isinstance(b.model, HookedTransformer):
            return None
        mine, theirs = resident_checkpoint(a.model), resident_checkpoint(b.model)
    elif b.implementation.startswith("bitlens"):
        stored_as = None
    if mine is None or theirs is None:
        return None
    return compare_checkpoints(
        mine, theirs, stored_as=stored_as, progress=lambda *n: tell("checkpoints", *n)
    )


def _digests(a: ModelPath, b: ModelPath) -> dict[str, str]:
    """The models' fingerprints, as far as somebody can say what their weights are."""
    found: dict[str, str] = {}
    for name, path in (("model A", a), ("model B", b)):
        weights = path.checkpoint
        if weights is None and isinstance(path.model, HookedTransformer):
            weights = resident_checkpoint(path.model)
        if weights is not None:
            same = path is b and weights is a.checkpoint
            found[name] = found["model A"] if same else fingerprint(weights)
    return found


def _count_tokens(
    a: ModelPath, b: ModelPath, tokens_NP: torch.Tensor, plan: Plan, tell: Progress
) -> TokenFlips:
    both, count = heads(a, b, tokens_NP[0]), TokenCount(a.tokenizer, plan.margin)
    for i, tokens_P in enumerate(tokens_NP):
        tell("tokens", i, len(tokens_NP))
        last_a, last_b = last_step(a, tokens_P), last_step(b, tokens_P)
        certified = certified_by_states(both, last_a, last_b)
        count.add(i, tokens_P, last_a.logits_TV, last_b.logits_TV, certified)
    return count.result()


def _lockstep(
    a: ModelPath, b: ModelPath, tokens_NP: torch.Tensor, plan: Plan, tell: Progress
) -> Lockstep:
    """Prompts spread over all of them, so that a file sorted by kind is not judged by its start."""
    n = min(plan.checked, len(tokens_NP))
    lockstep = Lockstep(a, b, rows=plan.rows, seed=plan.seed)
    for i in range(n):
        tokens_P = tokens_NP[i * len(tokens_NP) // n]

        def step(done: int, total: int, i: int = i) -> None:
            tell("contracts", i * total + done, n * total)

        lockstep.add(tokens_P, last=i == n - 1, progress=step)
    return lockstep


class _Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._at = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.laps[stage] = now - self._at
        self._at = now
