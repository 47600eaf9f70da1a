"""The measurements as tables: for the terminal, as Markdown, as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.markup import escape
from rich.table import Table

from .conventions import CONVENTIONS
from .honesty import Honesty
from .libraries import LIBRARIES
from .power import Cell
from .public_bugs.bugs import BUGS
from .public_bugs.outcome import Outcome
from .rms_norm import LENGTHS, N_ROWS, Measured


@dataclass(frozen=True)
class Results:
    """Everything that one run measured."""

    command: str
    machine: dict[str, Any]
    cells: list[Cell]
    honesty: list[Honesty]
    rms_norm: list[Measured]
    public_bugs: list[Outcome]

    @property
    def failures(self) -> list[str]:
        """Faults that escaped, and honest code accused."""
        lines = [f"{c.library}: {c.fault} in {c.op} escaped" for c in self.cells if c.escaped]
        lines += [
            f"{o.bug.reports[0]}: not caught, or its twin accused"
            for o in self.public_bugs
            if o.failed
        ]
        return lines + [f"{h.library}: {h.op}: {alarm}" for h in self.honesty for alarm in h.alarms]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        data = {
            field.name: [dataclasses.asdict(row) for row in rows]
            for field in dataclasses.fields(self)
            if isinstance(rows := getattr(self, field.name), list) and field.name != "public_bugs"
        }
        return {
            "command": self.command,
            "machine": self.machine,
            **data,
            "public_bugs": [outcome.to_json() for outcome in self.public_bugs],
            "failures": self.failures,
        }


def earlier(data: Mapping[str, Any], operations: Collection[str]) -> Results:
    """Returns what `Results.to_json` wrote, less these operations and bugs that are no more."""
    by_reports = {tuple(bug.reports): bug for bug in BUGS}
    outcomes = []
    for row in data["public_bugs"]:
        if row["op"] not in operations and (bug := by_reports.get(tuple(row["reports"]))):
            kept = {name: row[name] for name in ("checked", "examples", "acquitted", "audited")}
            outcomes.append(Outcome(bug, **kept))
    return Results(
        data["command"],
        data["machine"],
        [Cell(**row) for row in data["cells"] if row["op"] not in operations],
        [Honesty(**row) for row in data["honesty"] if row["op"] not in operations],
        [Measured(**row) for row in data["rms_norm"]],
        outcomes,
    )


def merged(before: Results, after: Results) -> Results:
    """Returns both in the order of libraries, operations and bugs; commands one after the other."""
    places = [(library, op) for library, ops in LIBRARIES.items() for op in ops]
    return Results(
        f"{before.command}\n    {after.command}",
        after.machine,
        sorted([*before.cells, *after.cells], key=lambda c: places.index((c.library, c.op))),
        sorted([*before.honesty, *after.honesty], key=lambda h: places.index((h.library, h.op))),
        before.rms_norm,
        sorted([*before.public_bugs, *after.public_bugs], key=lambda o: BUGS.index(o.bug)),
    )


@dataclass(frozen=True)
class Sheet:
    """One table with a sentence under its title."""

    title: str
    note: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def sheets(results: Results) -> Iterator[Sheet]:
    """All tables, the summary first."""
    libraries = list(dict.fromkeys(cell.library for cell in results.cells))
    yield _summary(results, libraries)
    if results.rms_norm:
        yield _rms_norm(results.rms_norm)
    if results.public_bugs:
        yield _public_bugs(results.public_bugs)
    for library in libraries:
        yield _power([cell for cell in results.cells if cell.library == library], library)
    yield _indistinguishable(results.cells)
    yield _honesty(results.honesty)


def _percent(part: int | None, whole: int) -> str:
    if part is None:
        return "–"
    if not part or not whole:
        return "0"
    share = 100 * part / whole
    return "<1%" if share < 1 else f"{share:.0f}%"


def _summary(results: Results, libraries: Sequence[str]) -> Sheet:
    rows = []
    for library in [*libraries, "all"]:
        within = [c for c in results.cells if library in (c.library, "all")]
        told = [c for c in within if c.argument is None]
        row = [library, str(len(within) - len(told)), str(len(told))]
        row.append(str(sum(not c.escaped for c in told)))
        for name in CONVENTIONS:
            spoken = [c for c in told if c.conventions and c.conventions[name] is not None]
            seen = sum(bool(c.conventions and c.conventions[name]) for c in spoken)
            row.append(f"{seen} of {len(spoken)}" if spoken else "–")
        rows.append(tuple(row))
    return Sheet(
        "Faults caught at least once",
        "A fault in an operation counts once. Tolerances see the same adversarial inputs as the "
        "contract; on plain normal numbers they see less (next table). – : nothing to say.",
        ("contracts", "no input can tell", "can tell", "caught by contract", *CONVENTIONS),
        rows,
    )


def _rms_norm(measured: Sequence[Measured]) -> Sheet:
    def verdict(passed: bool | None) -> str:
        return "–" if passed is None else "passes" if passed else "fails"

    rows = [
        (
            m.what,
            str(m.n),
            f"{m.max_ulp:.3f}",
            f"{m.bias_ulp + 0.0:+.3f}",
            f"{100 * m.flagged:.0f}%" if m.flagged else "0",
            *(verdict(m.passes[name]) for name in CONVENTIONS),
        )
        for m in measured
    ]
    return Sheet(
        "RMSNorm in bf16 on normal numbers",
        f"{N_ROWS} rows of {' and '.join(map(str, LENGTHS))}. Flagged: elements that the contract "
        "proves wrong.",
        ("implementation", "n", "max ULP", "bias ULP", "flagged", *CONVENTIONS),
        rows,
    )


def _public_bugs(outcomes: Sequence[Outcome]) -> Sheet:
    def found(outcome: Outcome) -> str:
        return "no" if outcome.examples is None else f"at input {outcome.examples}"

    names = {True: "yes", False: "no", None: "–"}
    rows = [
        (
            ", ".join(o.bug.reports),
            o.bug.summary,
            f"{o.bug.contract.op} {o.bug.contract.storage}",
            names[o.checked],
            found(o),
            names[o.audited],
            names[o.acquitted],
        )
        for o in outcomes
    ]
    searched = sum(o.examples is not None for o in outcomes)
    tried = [o.audited for o in outcomes if o.audited is not None]
    return Sheet(
        "Public bugs",
        f"{len(outcomes)} bugs from public reports, each written anew as a small function "
        f"(benchmarks/precision/public_bugs): {sum(o.checked for o in outcomes)} caught by `check` "
        f"on chosen inputs, {searched} by a search of the CI profile, {sum(tried)} of "
        f"{len(tried)} by the lockstep of an audit where a short prompt can show them. Acquitted: "
        "the correct twin keeps the contract on the same inputs and under the same search, and "
        "lockstep names nothing of it.",
        ("report", "bug", "contract", "check", "search", "audit", "twin acquitted"),
        rows,
    )


def _power(cells: Sequence[Cell], library: str) -> Sheet:
    rows = []
    for cell in cells:
        if cell.argument is not None:
            continue
        failed = cell.conventions or {}
        contract = "by search" if cell.searched else _percent(cell.caught, cell.examples)
        rows.append(
            (
                cell.op,
                cell.fault,
                "ESCAPED" if cell.escaped else contract,
                _percent(cell.wrong, cell.elements),
                *(_percent(failed.get(name), cell.examples) for name in CONVENTIONS),
            )
        )
    examples = sorted({cell.examples for cell in cells if cell.examples})
    span = f"{examples[0]} to {examples[-1]}" if len(set(examples)) > 1 else f"{examples[0]}"
    return Sheet(
        f"Contracts of {library}",
        f"Share of {span} examples on which each judge fails the faulty code; elements: the share "
        "of all results that the contract proves wrong.",
        ("operation", "fault", "contract", "elements", *CONVENTIONS),
        rows,
    )


def _indistinguishable(cells: Iterable[Cell]) -> Sheet:
    groups: dict[tuple[str, str], dict[str, list[str]]] = {}
    for cell in cells:
        if cell.argument is not None:
            group = groups.setdefault((cell.fault, cell.argument), {})
            group.setdefault(cell.library, []).append(cell.op)
    rows = [
        (fault, "; ".join(f"{name}: {', '.join(ops)}" for name, ops in where.items()), argument)
        for (fault, argument), where in groups.items()
    ]
    return Sheet(
        "Faults that no input can show",
        "All that they can produce, the contract permits.",
        ("fault", "where", "argument"),
        rows,
    )


def _honesty(honesty: Sequence[Honesty]) -> Sheet:
    rows = []
    for h in honesty:
        share = 100 * h.utilisation
        used = f"{share:.0f}%" if share >= 10 else f"{share:.2g}%"
        rows.append(
            (
                h.library,
                h.op,
                ", ".join(h.implementations),
                f"{h.rows:,}",
                f"{h.judgements:,}",
                str(len(h.alarms)),
                *(_percent(h.conventions[name], h.outputs) for name in CONVENTIONS),
                f"{used} {'unused' if h.unused else h.by}",
            )
        )
    total = (sum(h.rows for h in honesty), sum(h.judgements for h in honesty))
    alarms = sum(len(h.alarms) for h in honesty)
    searched = sum(h.searched for h in honesty)
    blanks = ("",) * len(CONVENTIONS)
    rows.append(("all", "", "", f"{total[0]:,}", f"{total[1]:,}", str(alarms), *blanks, ""))
    return Sheet(
        "False alarms on honest code",
        "An example is one row here: what one reduction or one vector of results depends on, drawn "
        "by itself, in calls of 256 rows that share weights, keys or values; a judgement is a row "
        "times an implementation. Alarms of the contract: on rows, on the examples above, and on "
        f"{searched:,} inputs of a search that climbs toward the bound. The conventions' columns "
        "are the share of honest outputs that they fail on the examples above. Used: the largest "
        "share of what the contract leaves before the last rounding, and by whom; below 1% the "
        "bound is called unused: it is loose, or no error is large enough to show past the last "
        "rounding. torch's fused attention (sdpa) turns subnormal exponentials into zeros; it is "
        "held to the contract with `may_flush=True`, and breaks the one without. What "
        "torch.compile makes of the same code is judged on rows alone. Inductor keeps in fp32 what "
        "it fuses, so `torch compiled` promises the rounding of its output and no cast between, "
        "but for attention (scores and probabilities, which products of matrices write and read) "
        "and a lookup (its scale, a tensor of its own); `casts kept` is compiled with "
        "`emulate_precision_casts` and promises what eager code does, but for log_softmax, which "
        "inductor takes apart in fp32.",
        (
            *("contracts", "operation", "implementations", "rows", "judgements", "alarms"),
            *CONVENTIONS,
            "used",
        ),
        rows,
    )


def tables(results: Results) -> Iterator[Table]:
    """For the terminal."""
    for sheet in sheets(results):
        out = Table(title=sheet.title, caption=sheet.note, title_style="bold")
        out.title_justify = out.caption_justify = "left"
        for i, column in enumerate(sheet.columns):
            out.add_column(column, overflow="fold", justify="left" if i < 2 else "right")
        for row in sheet.rows:
            out.add_row(*(escape(cell) for cell in row))
        yield out


def markdown(results: Results) -> str:
    """A page."""
    machine = ", ".join(f"{key} {value}" for key, value in results.machine.items())
    lines = [
        "# What contracts catch, and tolerances let through",
        "",
        "`make bench-precision` prints this page; this copy was written by",
        "",
        f"    {results.command}",
        "",
        f"with {machine}.",
        "",
        _INTRODUCTION,
    ]
    for sheet in sheets(results):
        lines += ["", f"## {sheet.title}", "", sheet.note, ""]
        lines += [f"| {' | '.join(sheet.columns)} |", "|---" * len(sheet.columns) + "|"]
        lines += [f"| {' | '.join(row)} |" for row in sheet.rows]
    return "\n".join(lines) + "\n"


_INTRODUCTION = """\
An *example* is one set of inputs for one call of an operation, drawn by Hypothesis as the CI
profile of `bitlens.precision` draws it: in equal parts of every kind of input that suits the
contract. A faulty implementation is the contract's own arithmetic with one rule bent
(`bitlens.precision.FAULTS`). Every judge sees the same outputs.

- **contract**: `bitlens.precision.check`, which fails only what it proves wrong.
- **assert_close**: `torch.testing.assert_close` with its defaults, against honest code in the same
  formats.
- **Liger**: its forward tests' tolerances, where it tests the operation (bf16 RMSNorm: atol 0.2,
  rtol 0.02), against the same.
- **FlashAttention 2x**: at most twice the error of eager 16-bit code against the real value, plus
  its atol.
- **JAX**: `assert_allclose` with its default tolerance, 1e-6, 1e-2 and 1e-3 for fp32, bf16 and
  fp16. Its `check_close` multiplies that by the size of the array, which is looser.

Equal NaNs are equal to all of them, and elements of which the contract claims nothing are left out.
Where a tolerance fails more examples than the contract, the inputs are ill-conditioned: what
it fails there, the contract permits, and honest code may do as well (last table)."""
