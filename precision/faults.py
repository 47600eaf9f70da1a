"""Faults: the ways in which an implementation breaks its contract without looking wrong.

A fault bends one rule of how a contract is executed, or computes another formula. Some contracts
cannot tell a fault from honest work, because all it can produce they permit:
`why_indistinguishable` gives the argument.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from .arithmetic.emulation import Execution
from .contract import PrecisionContract
from .formats import BF16, FORMATS, TF32, Format
from .operations import OPERATIONS, operation_called
from .operations.operation import Formula, WrongFormula

Bend = Callable[[PrecisionContract, Execution], Execution | None]
Argument = Callable[[PrecisionContract], str | None]


def _none(contract: PrecisionContract, execution: Execution) -> Execution | None:
    return None


def _never(contract: PrecisionContract) -> str | None:
    return None


@dataclass(frozen=True)
class Fault:
    """One way of computing wrongly.

    Attributes:
        summary: What the implementation does.
        bent: The execution it makes of a contract's; None where there is nothing to bend.
        argument: Why a contract that it applies to permits all that it can produce, or None.
        formulas: By operation, what it computes instead of the operation's program.
    """

    name: str
    summary: str
    bent: Bend = _none
    argument: Argument = _never
    formulas: Mapping[str, Formula] = field(default_factory=dict)

    def applies_to(self, contract: PrecisionContract) -> bool:
        """Whether the contract has the rule that this fault breaks."""
        return (
            contract.op in self.formulas or self.bent(contract, Execution.of(contract)) is not None
        )

    def formula(self, op: str) -> Formula:
        """Returns the formula that it computes for an operation."""
        return self.formulas.get(op, operation_called(op).program)

    def why_indistinguishable(self, contract: PrecisionContract) -> str | None:
        """Why no input can show this fault under the contract; None if some can.

        Raises ValueError where the fault does not apply.
        """
        self.bend(contract, Execution.of(contract))
        return self.argument(contract)

    def bend(self, contract: PrecisionContract, execution: Execution) -> Execution:
        """The faulty execution. Raises ValueError where the fault does not apply."""
        bent = execution if contract.op in self.formulas else self.bent(contract, execution)
        if bent is None:
            raise ValueError(
                f"fault {self.name} ({self.summary}) has nothing to bend in {contract}"
            )
        return bent


def _missing_upcast(contract: PrecisionContract, execution: Execution) -> Execution | None:
    storage = FORMATS[contract.storage]
    if not _narrower(storage, execution.compute):
        return None
    return replace(execution, compute=storage, angles=storage)


def _missing_upcast_argument(contract: PrecisionContract) -> str | None:
    operation = operation_called(contract.op)
    if operation.every_step_cast and set(operation.cast_points) <= set(contract.casts):
        return "every step is rounded to storage anyway, and rounding once is the correct rounding"
    return None


def _excess_precision(contract: PrecisionContract, execution: Execution) -> Execution | None:
    inner = execution.casts - {"output", "inputs"}
    dropped = inner if _narrower(execution.storage, execution.compute) else frozenset[str]()
    operands = execution.operands
    if operands is not None and _narrower(operands, execution.storage):
        dropped, operands = dropped | {"inputs"}, None
    if not dropped:
        return None
    return replace(execution, casts=execution.casts - dropped, operands=operands)


def _truncating_cast(contract: PrecisionContract, execution: Execution) -> Execution | None:
    if not _narrows(execution):
        return None
    return replace(execution, rounding="toward_zero")


def _double_rounding(contract: PrecisionContract, execution: Execution) -> Execution | None:
    target = execution.output if _narrower(execution.output, execution.compute) else None
    if target is None and _narrows(execution):
        target = execution.storage
    if target is None or target.precision + 3 >= execution.compute.precision:
        return None
    precision = target.precision + 3
    largest = (2.0 - 2.0 ** (1 - precision)) * 2.0**execution.compute.max_exponent
    via = replace(execution.compute, name="between", precision=precision, largest=largest)
    return replace(execution, via=via)


def _extra_cast(contract: PrecisionContract, execution: Execution) -> Execution | None:
    operation = operation_called(contract.op)
    skipped = {"inputs", *operation.statistics, *operation.alternatives}
    added = set(operation.cast_points) - execution.casts - skipped - {"output"}
    return _with_casts(execution, added)


def _rounded_statistic(contract: PrecisionContract, execution: Execution) -> Execution | None:
    return _with_casts(execution, set(operation_called(contract.op).statistics) - execution.casts)


def _with_casts(execution: Execution, added: set[str]) -> Execution | None:
    if not added or not _narrower(execution.storage, execution.compute):
        return None
    return replace(execution, casts=execution.casts | added)


def _low_precision_accumulator(
    contract: PrecisionContract, execution: Execution
) -> Execution | None:
    storage = execution.storage
    narrow = storage if _narrower(storage, execution.accumulate) else BF16
    if not operation_called(contract.op).reduces or not _narrower(narrow, execution.accumulate):
        return None
    return replace(execution, accumulate=narrow)


def _tf32_inputs(contract: PrecisionContract, execution: Execution) -> Execution | None:
    if not operation_called(contract.op).multiplies:
        return None
    return replace(execution, operands=TF32)


def _tf32_argument(contract: PrecisionContract) -> str | None:
    held = FORMATS[contract.compute if "inputs" in contract.casts else contract.storage]
    exact = (
        held.precision <= TF32.precision
        and held.smallest_subnormal >= TF32.smallest_subnormal
        and held.largest <= TF32.largest
    )
    computed = operation_called(contract.op).computed_factor
    operands_stored = computed is None or not {computed, "inputs"}.isdisjoint(contract.casts)
    if exact and operands_stored:
        return f"every {held.name} number is a TF32 number, so rounding operands to TF32 moves none"
    return None


def _reordered_reduction(contract: PrecisionContract, execution: Execution) -> Execution | None:
    if not operation_called(contract.op).reduces:
        return None
    order = {"any": "reversed", "sequential": "reversed"}.get(contract.order, "sequential")
    return replace(execution, order=order)


def _reordered_argument(contract: PrecisionContract) -> str | None:
    if contract.order == "any":
        return "the contract promises no order, and its bound on a sum holds for every tree"
    return None


def _fma_contraction(contract: PrecisionContract, execution: Execution) -> Execution | None:
    if not operation_called(contract.op).fuses or execution.compute.precision > 24:
        return None
    return replace(execution, fused=True)


def _fma_argument(contract: PrecisionContract) -> str:
    return (
        "the contract lets a step keep more precision than `compute`: a product that is not "
        "rounded before it is added lies between the real product and its rounding"
    )


def _flush_to_zero(contract: PrecisionContract, execution: Execution) -> Execution:
    return replace(execution, flush=True)


def _flush_argument(contract: PrecisionContract) -> str | None:
    if contract.may_flush:
        return "the contract lets subnormals become zeros"
    normal = operation_called(contract.op).least >= contract.output_format.smallest_normal
    if normal and contract.compute == "fp32":
        return f"no {contract.op} is a subnormal number of {contract.output_format.name}"
    return None


def _other_overflow(contract: PrecisionContract, execution: Execution) -> Execution | None:
    """Where the output's range is the narrower one: elsewhere the arithmetic overflows first.

    An operation without inputs that overflow has no result larger than its largest input.
    """
    output = execution.output
    overflows = "other_overflow" in operation_called(contract.op).separating
    if not overflows or 2 * output.largest > execution.compute.largest:
        return None
    saturates = execution.overflow_in(output) == "saturate"
    return replace(execution, overflow="nan" if saturates else "saturate")


def _narrower(a: Format, b: Format) -> bool:
    return a.precision < b.precision


def _narrows(execution: Execution) -> bool:
    """Whether any declared cast rounds."""
    inner = execution.casts - {"output", "inputs"}
    return _narrower(execution.output, execution.compute) or bool(
        inner and _narrower(execution.storage, execution.compute)
    )


_BENT = (
    Fault(
        "missing_upcast",
        "computes in the storage format",
        _missing_upcast,
        _missing_upcast_argument,
    ),
    Fault("excess_precision", "leaves out the casts before the last", _excess_precision),
    Fault("truncating_cast", "casts toward zero", _truncating_cast),
    Fault("double_rounding", "casts by way of 3 more bits", _double_rounding),
    Fault("extra_cast", "rounds between", _extra_cast),
    Fault("rounded_statistic", "rounds a row's statistic to storage", _rounded_statistic),
    Fault("low_precision_accumulator", "sums too narrowly", _low_precision_accumulator),
    Fault("tf32_inputs", "multiplies TF32 operands", _tf32_inputs, _tf32_argument),
    Fault("flush_to_zero", "replaces subnormals by zeros", _flush_to_zero, _flush_argument),
    Fault(
        "reordered_reduction", "sums in another order", _reordered_reduction, _reordered_argument
    ),
    Fault("other_overflow", "overflows by another convention", _other_overflow),
)


def _wrong() -> Iterator[Fault]:
    """Formulas gone wrong in the same way are one fault."""
    alike: dict[str, dict[str, WrongFormula]] = {}
    for op, operation in OPERATIONS.items():
        for wrong in operation.wrong:
            alike.setdefault(wrong.name, {})[op] = wrong
    for name, by_op in alike.items():
        summary = next(iter(by_op.values())).summary
        yield Fault(name, summary, formulas={op: wrong.formula for op, wrong in by_op.items()})


_FUSED = Fault("fma_contraction", "fuses multiply and add", _fma_contraction, _fma_argument)

FAULTS: dict[str, Fault] = {fault.name: fault for fault in (*_BENT, *_wrong(), _FUSED)}
"""Every fault by name."""
