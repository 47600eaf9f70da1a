"""The findings of an audit as data: everything the page shows and `--json` prints.

A is the reference path, B the path on trial. "Free" errors are between two whole runs; "created"
errors are what B's operation alone does to A's own inputs.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from ..interp.stability.result import FeatureFlip
from ..precision.contract import PrecisionContract
from ..precision.meaning import MeaningDifference
from .checkpoints.result import CheckpointComparison

SCHEMA = "bitlens.audit/1"


@dataclass(frozen=True)
class Setting:
    """The models, policies and prompts of an audit.

    Attributes:
        a: The reference path, such as "fp32".
        b: The path on trial, such as "bf16", "hf" or a directory.
        written: Tokens of these that A itself wrote after the prompts.
        checked_prompts: Prompts that ran in lockstep, operation by operation.
        rows_per_op: Rows of each operation's output that met its contract, over those prompts.
        only_a, only_b: Addresses that the other path lacks: not compared.
        environment: Versions, instruction set, threads.
        digests: SHA-256 by name: each model's config and weights, and the tokens of all prompts.
    """

    model: str
    a: str
    b: str
    prompts: int
    positions: int
    written: int
    checked_prompts: int
    rows_per_op: int
    seed: int
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    environment: dict[str, Any]
    digests: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class OpFinding:
    """One operation of B, at one address.

    Attributes:
        layer: None outside the blocks.
        kind: The address within its block: "mlp.down", "unembed".
        values: Outputs checked against the contract.
        outside: Of these, how many lie outside what the contract permits: proven violations.
        unclaimed: Of these, how many the contract says nothing about (sums that may overflow).
        utilisation: The most of its permitted error any value used; above 1 is a violation.
        free_error: |b - a| / |a| (2-norms) of this output in the two whole runs.
        created_error: The same where B's operation gets A's inputs.
        bias_ulp: Mean of (|computed| - |exact|) in ULP of the output's format, over errors of at
            most 1 ULP (larger ones are cancellation's); bias_z over its standard error.
        worst_ulp: The largest |computed - exact| in ULP.
        where: Index of the worst value in the checked output.
        unit: Whose operations B has fused into this one, and who fused them.
    """

    address: str
    layer: int | None
    kind: str
    contract: PrecisionContract
    values: int
    outside: int
    unclaimed: int
    utilisation: float
    free_error: float
    created_error: float
    bias_ulp: float | None
    bias_z: float | None
    worst_ulp: float
    where: tuple[int, ...] = ()
    reason: str = ""
    unit: str | None = None

    @property
    def name(self) -> str:
        """The address, or of a unit its name: "blocks.3.attn, one unit: sdpa"."""
        return self.unit or self.address

    @property
    def ok(self) -> bool:
        """No value checked is outside, and the contract claims something of one."""
        return self.outside == 0 and (self.unclaimed < self.values or not self.values)


@dataclass(frozen=True)
class UlpHistogram:
    """(|computed| - |exact|) in ULP over all checked outputs of one kind of operation.

    Attributes:
        limit: The bins part [-limit, limit] evenly.
        below, above: Values beyond the limits.
    """

    kind: str
    format: str
    limit: float
    counts: tuple[int, ...]
    below: int
    above: int
    bias_ulp: float
    bias_z: float

    @property
    def values(self) -> int:
        return sum(self.counts) + self.below + self.above


@dataclass(frozen=True)
class Divergence:
    """The first point at which the two paths differ, on one prompt.

    Attributes:
        judge: What makes `first` one: "contract" where a contract is broken; else "bits" for one
            implementation under one contract, and "relative" (more than rounding to the coarser
            formats explains, an estimate) for others.
        first: The first address that creates such a difference on A's own inputs; None if none.
        carried: The first address where the two whole runs differ so.
        created: The address that creates the most error.
        amplified: The address that multiplied the error entering it the most, and by how much.
        flip: The prompt and position of the token that `restores` is about; None if none flips.
        opening: How that prompt begins.
        restores: Operations whose exchange for A's alone restores A's token there.
        tried: How many operations were exchanged in turn.
    """

    judge: str
    first: str | None
    carried: str | None
    created: str | None
    amplified: tuple[str, float] | None
    flip: tuple[int, int] | None = None
    restores: tuple[str, ...] = ()
    tried: int = 0
    opening: str = ""


@dataclass(frozen=True)
class Reproducer:
    """One operation shrunk to a script of its own.

    Attributes:
        violates: Whether the script shows a violation, or only the largest utilisation.
        utilisation: Of the shrunk inputs.
        original_utilisation: Of the value it was shrunk from.
        shapes_before, shapes_after: Input shapes by name.
        checks: Contract checks the shrinking took.
        recomputes: Whether the script computes B's output anew or quotes what B returned.
        diagnosis: A known fault that gives B's output bit for bit, if one does.
    """

    address: str
    violates: bool
    utilisation: float
    original_utilisation: float
    shapes_before: dict[str, tuple[int, ...]]
    shapes_after: dict[str, tuple[int, ...]]
    checks: int
    recomputes: bool
    diagnosis: str | None
    script: str


@dataclass(frozen=True)
class Flip:
    """One position whose next token differs.

    Attributes:
        margin_a, margin_b: Best logit minus second best, in each path.
        opening: How the prompt begins.
    """

    prompt: int
    position: int
    context: str
    token_a: str
    token_b: str
    margin_a: float
    margin_b: float
    opening: str = ""


@dataclass(frozen=True)
class MarginBin:
    """Positions whose margin under A lies in [low, high)."""

    low: float
    high: float
    positions: int
    flips: int


@dataclass(frozen=True)
class Equivalence:
    """Whether the rate of flips stays below a margin that was fixed before the run.

    Attributes:
        digest: SHA-256 of the plan, for whoever wants to publish it beforehand.
    """

    margin: float
    p_value: float
    equivalent: bool
    digest: str


@dataclass(frozen=True)
class TokenFlips:
    """Greedy next tokens of both paths on the same positions.

    Attributes:
        interval: Exact (Clopper-Pearson) 95% interval of the share of positions that flip, as if
            positions were independent.
        clustered_interval: The same with prompts as clusters.
        mean_kl: Of A's next-token distribution to B's, in nats, with its clustered interval.
        certified: Positions whose argmax a margin argument on the hidden states of both runs shows
            not to have flipped ("measured": it holds for these two runs).
        proven: Positions for which it follows from `premises`, whatever B's final norm and
            unembedding do within their contracts.
        broken_certificates: Positions certified either way that flipped: must be 0.
        examples: Flips, largest margin under A first.
    """

    positions: int
    prompts: int
    flips: int
    prompts_with_flips: int
    interval: tuple[float, float]
    clustered_interval: tuple[float, float]
    mean_kl: float
    kl_interval: tuple[float, float]
    certified: int
    proven: int
    premises: tuple[str, ...]
    broken_certificates: int
    equivalence: Equivalence
    margins: tuple[MarginBin, ...]
    examples: tuple[Flip, ...]

    @property
    def rate(self) -> float:
        return self.flips / self.positions if self.positions else 0.0


@dataclass(frozen=True)
class FeatureChanges:
    """The effects of B on the features of a dictionary, over the audit's positions.

    Attributes:
        dictionary: Its name.
        hook_name: Where both paths are read.
        active: Features that are active under A, over all positions.
        gained, lost: Features that are active under B alone, and under A alone.
        changed_share: Their part of the features that are active under either.
        changed_positions: Positions with such a feature.
        pairs: Positions with an active feature or one of the next k.
        certified: Pairs that cannot have flipped, by their margin and the distance of both paths.
        wrong: Certified pairs that flipped: must be 0.
        features: The features with most flips: feature, active, gained, lost, smallest margin.
        examples: Flips, widest margin first.
    """

    dictionary: str
    hook_name: str
    active: int
    gained: int
    lost: int
    changed_share: float
    positions: int
    changed_positions: int
    pairs: int
    certified: int
    wrong: int
    features: tuple[tuple[int, int, int, int, float], ...]
    examples: tuple[FeatureFlip, ...]


@dataclass(frozen=True)
class AuditResult:
    """An audit of B against A.

    Attributes:
        meaning: Quantities that B derives otherwise than A, such as a RoPE base: B computes another
            function there, however well it rounds.
        ops: Every operation in the order of a pass.
        certificate: The `EquivalenceCertificate` as JSON-ready data.
        checkpoints: The weights and what goes with them, compared; None for two policies on one
            checkpoint, and for models whose weights are not known.
        features: Where a dictionary was given.
        depth: What was judged of B: its operations, or its logits alone.
        why_logits: What kept its operations from being judged; None where they were.
    """

    setting: Setting
    meaning: tuple[MeaningDifference, ...]
    ops: tuple[OpFinding, ...]
    histograms: tuple[UlpHistogram, ...]
    divergence: Divergence
    reproducer: Reproducer | None
    flips: TokenFlips
    certificate: dict[str, Any]
    seconds: dict[str, float] = field(default_factory=dict)
    checkpoints: CheckpointComparison | None = None
    features: FeatureChanges | None = None
    depth: Literal["operations", "logits"] = "operations"
    why_logits: str | None = None

    @property
    def violated(self) -> tuple[OpFinding, ...]:
        """Operations with a value outside what their contract permits."""
        return tuple(op for op in self.ops if not op.ok)

    @property
    def ok(self) -> bool:
        """Whether B has A's weights but for rounding, and what `kept` asks."""
        return self.same_model and self.kept

    @property
    def same_model(self) -> bool:
        """Whether nothing but rounding tells B's weights, config, tokenizer and template from A's,
        as far as they were compared."""
        return self.checkpoints is None or self.checkpoints.same

    @property
    def kept(self) -> bool:
        """Whether B means what A means, kept every contract, and nothing certified flipped; of
        logits alone, whether they are shown to change fewer tokens than the margin."""
        if self.depth == "logits" and not self.flips.equivalence.equivalent:
            return False
        return not self.meaning and not self.violated and not self.broken_certificates

    @property
    def broken_certificates(self) -> int:
        """Certified tokens and features that flipped: must be 0."""
        features = 0 if self.features is None else self.features.wrong
        return self.flips.broken_certificates + features

    @property
    def judged(self) -> tuple[OpFinding, ...]:
        """Operations that a contract judged."""
        return tuple(op for op in self.ops if op.values)

    @property
    def worst(self) -> OpFinding | None:
        """The judged operation that used the most of its permitted error."""
        return max(self.judged, key=lambda op: op.utilisation, default=None)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of operations in the order of a pass."""
        return tuple(dict.fromkeys(op.kind for op in self.ops))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data. Infinite and undefined numbers become strings."""
        found = dataclasses.asdict(self)
        found["ops"] = [row | {"ok": op.ok} for row, op in zip(found["ops"], self.ops, strict=True)]
        data = {"schema": SCHEMA, "ok": self.ok, "violated": [op.address for op in self.violated]}
        finite: dict[str, Any] = _finite(data | found)
        return finite

    def to_json(self) -> str:
        """`to_dict` as text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
