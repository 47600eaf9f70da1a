"""The fixture `precision`: one test's contract, and the search that holds it to that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

import pytest

from ..binding import ExampleCall, Names, bind
from ..condition import condition_number
from ..contract import PrecisionContract
from ..exact import Method
from ..explanation import explain
from ..fault_score import FaultScore, fault_score
from ..faults import FAULTS
from ..judges import Bound, judge_by
from ..reproducer import contract_code, reproducer
from ..search import PROFILES, Implementation, Profile, SearchResult, Strategies, Violation, search
from .records import record_of


@dataclass(frozen=True)
class Options:
    """The command line's `--precision-...`, checked."""

    profile: Profile
    reference: Method
    bound: Bound
    faults: tuple[str, ...]
    min_fault_score: float | None
    localize: bool

    @classmethod
    def of(cls, config: pytest.Config) -> Options:
        """Raises pytest.UsageError for names of faults and backends that there are not."""
        least = config.getoption("--precision-min-fault-score")
        if least is not None and not 0 <= least <= 1:
            raise pytest.UsageError(f"--precision-min-fault-score={least}: a share, from 0 to 1")
        named = config.getoption("--precision-faults")
        everything = named == "all" or (named == "none" and least is not None)
        faults = tuple(FAULTS) if everything else () if named == "none" else named.split(",")
        if unknown := [name for name in faults if name not in FAULTS]:
            raise pytest.UsageError(
                f"--precision-faults: {', '.join(unknown)}: no such fault; there are "
                f"{', '.join(FAULTS)}, all and none"
            )
        bound, method = (config.getoption(f"--precision-{name}") for name in ("bound", "reference"))
        assert bound in get_args(Bound)
        assert method in get_args(Method)
        return cls(
            profile=PROFILES[config.getoption("--precision-profile")],
            reference=method,
            bound=bound,
            faults=tuple(faults),
            min_fault_score=least,
            localize=config.getoption("--precision-localize"),
        )


class PrecisionTest:
    """One marked test: `check` is what its body calls.

    Attributes:
        contract: The marker's.
        backend: Name of the backend that this run of the test is for, None without backends.
    """

    def __init__(
        self,
        contract: PrecisionContract,
        options: Options,
        *,
        backends: Mapping[str, Implementation] | None = None,
        backend: str | None = None,
        strategies: Strategies | None = None,
        call: Mapping[str, Any] | None = None,
    ) -> None:
        self.contract, self.options, self.backend = contract, options, backend
        self._backends, self._strategies = backends or {}, strategies
        self._call = call or {}
        self.records: list[dict[str, Any]] = []

    @classmethod
    def of(cls, marker: pytest.Mark, config: pytest.Config, backend: str | None) -> PrecisionTest:
        """From @pytest.mark.precision(...). Raises pytest.UsageError where that is not right."""
        try:
            return cls(
                options=Options.of(config),
                backend=backend,
                **_arguments(*marker.args, **marker.kwargs),
            )
        except TypeError as error:
            raise pytest.UsageError(f"@pytest.mark.precision: {error}") from None

    def check(
        self,
        fn: Implementation | None = None,
        *,
        name: str | None = None,
        names: Names | ExampleCall | None = None,
        result: int | str | None = None,
        out: str | None = None,
    ) -> SearchResult:
        """Searches for inputs on which `fn(**inputs)` breaks the contract; fails with them.

        `fn` is called with tensors by the operation's argument names; by default it is the backend.
        `name` is what reports call it; `names`, `result` and `out`, the marker's unless given, say
        how it is called and where its output is, as `bind` takes them. With faults asked for, also
        fails where the search would have caught too few of them.
        """
        if fn is None:
            if self.backend is None:
                raise ValueError(
                    "precision.check: give an implementation, or backends to the marker"
                )
            fn = self._backends[self.backend]
        options = self.options
        stated = {"names": names, "result": result, "out": out}
        call = {**self._call, **{key: value for key, value in stated.items() if value is not None}}
        found = search(
            bind(fn, self.contract, **call) if call else fn,
            self.contract,
            strategies=self._strategies,
            profile=options.profile,
            judge=judge_by(self.contract, options.bound, options.reference),
            truth=options.reference,
        )
        score = self._score()
        name = name or self.backend or str(getattr(fn, "__qualname__", fn))
        record = record_of(name, self.contract, found, score)
        if found.hardest is not None:
            record["condition"] = _largest_condition(self.contract.op, found.hardest)
        self.records.append(record)
        if found.violation is not None:
            pytest.fail(self._message(name, found.violation, record), pytrace=False)
        if found.failure is not None:
            pytest.fail(f"{name}: {found.failure}", pytrace=False)
        self._demand(score)
        return found

    def _score(self) -> FaultScore | None:
        options = self.options
        if not options.faults:
            return None
        return fault_score(
            self.contract,
            faults=options.faults,
            strategies=self._strategies,
            profile=options.profile,
        )

    def _demand(self, score: FaultScore | None) -> None:
        least = self.options.min_fault_score
        if score is not None and least is not None and score.score < least:
            pytest.fail(
                f"the search catches {score.score:.0%} of the faults, {least:.0%} are asked for; "
                f"missed: {', '.join(score.missed)}",
                pytrace=False,
            )

    def _message(self, name: str, violation: Violation, record: dict[str, Any]) -> str:
        lines = [f"{name} breaks {contract_code(self.contract)}", violation.verdict.reason]
        if self.options.localize:
            cause = explain(violation, self.contract)
            sentence = cause.sentence if cause else "No fault or pair of faults gives this output."
            record["violation"]["explanation"] = sentence
            record["violation"]["faults"] = list(cause.faults) if cause else None
            lines.append(sentence)
        script = reproducer(violation, self.contract)
        record["violation"]["reproducer"] = script
        return "\n".join([*lines, "", "To reproduce:", "", script])


def _largest_condition(op: str, inputs: Mapping[str, Any]) -> float | None:
    """The largest finite condition number of the outputs; None where they cancel, all of them."""
    kappa = condition_number(op, inputs)
    finite = kappa[kappa.isfinite()]
    return float(finite.max()) if finite.numel() else None


def _arguments(
    contract: PrecisionContract,
    *,
    backends: Mapping[str, Callable[..., Any]] | None = None,
    strategies: Strategies | None = None,
    names: Names | ExampleCall | None = None,
    result: int | str | None = None,
    out: str | None = None,
) -> dict[str, Any]:
    if not isinstance(contract, PrecisionContract):
        raise TypeError(f"contract must be a PrecisionContract, got {contract!r}")
    stated = {"names": names, "result": result, "out": out}
    call = {key: value for key, value in stated.items() if value is not None}
    return {"contract": contract, "backends": backends, "strategies": strategies, "call": call}
