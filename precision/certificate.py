"""Statements about the equivalence of two runs, kept apart by how each is known."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from typing import Any

from .contract import PrecisionContract
from .fingerprint import Fingerprint, environment_fingerprint
from .json_schema import SchemaError, parse_json, validate

FORMAT = "bitlens.equivalence-certificate/1"

_MAX_CHARACTERS = 50_000_000


class CertificateError(ValueError):
    """A certificate that cannot be read, with the place in it."""


@dataclass(frozen=True)
class Subject:
    """One of the two runs; `weights` is the SHA-256 of its checkpoint, where known."""

    name: str
    implementation: str
    policy: str
    weights: str | None = None


@dataclass(frozen=True)
class Workload:
    """The tokens both runs saw, by number and digest."""

    prompts: int
    positions: int
    tokens: str

    @classmethod
    def of(cls, rows: Iterable[Sequence[int]]) -> Workload:
        """From the token ids of each prompt, without padding."""
        rows = [list(map(int, row)) for row in rows]
        digest = hashlib.sha256(json.dumps(rows, separators=(",", ":")).encode()).hexdigest()
        return cls(len(rows), sum(map(len, rows)), digest)


@dataclass(frozen=True)
class ContractResult:
    """One operation's contract and what checking its outputs found.

    Attributes:
        utilisation: Largest error over what the contract allows; None where that is not finite.
        bias_ulp: Mean signed error in ULP; None where no true value is known well enough.
    """

    contract: PrecisionContract
    elements: int
    violations: int
    utilisation: float | None
    bias_ulp: float | None


@dataclass(frozen=True)
class Proved:
    """`holds` of `of` cases follow from the premises, for every implementation that keeps them."""

    claim: str
    premises: tuple[str, ...]
    holds: int
    of: int


@dataclass(frozen=True)
class Measured:
    """A fact of these two runs; `of` counts the values it was taken from."""

    quantity: str
    value: float
    unit: str
    of: int


@dataclass(frozen=True)
class Statistical:
    """A statement about prompts not seen; `plan` is the digest of an `EquivalencePlan`, if any."""

    quantity: str
    estimate: float
    low: float
    high: float
    confidence: float
    n: int
    clusters: int
    method: str
    plan: str | None = None


@dataclass(frozen=True)
class EquivalenceCertificate:
    """A statement about run a and run b which holds no time, name or path of a machine.

    The same runs on the same machine give the same bytes. Raises CertificateError for contents
    that the schema does not allow (numbers that are not finite among them).
    """

    subject_a: Subject
    subject_b: Subject
    workload: Workload
    contracts: Mapping[str, ContractResult] = field(default_factory=dict)
    proved: tuple[Proved, ...] = ()
    measured: tuple[Measured, ...] = ()
    statistical: tuple[Statistical, ...] = ()
    environment: Fingerprint = field(default_factory=environment_fingerprint)

    def __post_init__(self) -> None:
        _check(self.to_json())

    @property
    def violated(self) -> tuple[str, ...]:
        """Addresses of operations that broke their contract."""
        return tuple(at for at, result in self.contracts.items() if result.violations)

    @property
    def digest(self) -> str:
        """SHA-256 of everything else, as the JSON states it."""
        return _digest(self._contents())

    def to_json(self) -> str:
        """ASCII, sorted keys, indented, with a newline at its end."""
        contents = self._contents()
        return json.dumps(contents | {"digest": _digest(contents)}, sort_keys=True, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> EquivalenceCertificate:
        """Reads a certificate of an unknown sender.

        Everything is checked: JSON, schema, contracts, counts and the digest, which shows
        accidents and careless edits but, being no signature, not who wrote it. Raises
        CertificateError.
        """
        contents = _check(text)
        try:
            return cls(
                subject_a=Subject(**contents["subjects"]["a"]),
                subject_b=Subject(**contents["subjects"]["b"]),
                workload=Workload(**contents["workload"]),
                contracts={at: _result(each) for at, each in contents["contracts"].items()},
                proved=tuple(
                    Proved(**each | {"premises": tuple(each["premises"])})
                    for each in contents["proved"]
                ),
                measured=tuple(Measured(**each) for each in contents["measured"]),
                statistical=tuple(Statistical(**each) for each in contents["statistical"]),
                environment=Fingerprint(**contents["environment"]),
            )
        except ValueError as problem:
            raise CertificateError(f"certificate: {problem}") from None

    def _contents(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "environment": asdict(self.environment),
            "subjects": {"a": asdict(self.subject_a), "b": asdict(self.subject_b)},
            "workload": asdict(self.workload),
            "contracts": {at: asdict(result) for at, result in self.contracts.items()},
            "proved": [asdict(each) for each in self.proved],
            "measured": [asdict(each) for each in self.measured],
            "statistical": [asdict(each) for each in self.statistical],
        }


def certificate_schema() -> dict[str, Any]:
    """The JSON Schema of a certificate, draft 2020-12."""
    text = files(__package__).joinpath("equivalence_certificate.schema.json").read_text("utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def _check(text: str) -> dict[str, Any]:
    """The contents of a certificate's text, once nothing in it is wrong."""
    try:
        contents: dict[str, Any] = parse_json(text, max_characters=_MAX_CHARACTERS)
        validate(contents, certificate_schema())
    except SchemaError as problem:
        raise CertificateError(f"certificate: {problem}") from None
    stated = contents.pop("digest")
    if stated != _digest(contents):
        raise CertificateError(
            f"certificate: the digest {stated[:16]}... does not belong to these contents"
        )
    for i, each in enumerate(contents["proved"]):
        if each["holds"] > each["of"]:
            raise CertificateError(f"certificate: $.proved[{i}]: {each['holds']} of {each['of']}")
    for i, each in enumerate(contents["statistical"]):
        if not each["low"] <= each["estimate"] <= each["high"]:
            raise CertificateError(
                f"certificate: $.statistical[{i}]: the estimate is outside its interval"
            )
    for at, each in contents["contracts"].items():
        if each["violations"] > each["elements"]:
            raise CertificateError(
                f"certificate: $.contracts.{at:.40}: more violations than values"
            )
    return contents


def _result(contents: dict[str, Any]) -> ContractResult:
    return ContractResult(**contents | {"contract": PrecisionContract(**contents["contract"])})


def _digest(contents: dict[str, Any]) -> str:
    canonical = json.dumps(contents, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
