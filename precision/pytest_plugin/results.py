"""Writes the summary, report.html, report.json and certificate after the last test."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from ..certificate import ContractResult, EquivalenceCertificate, Measured, Subject, Workload
from ..contract import PrecisionContract
from ..fingerprint import environment_fingerprint
from .page import page

FORMAT = "bitlens.precision-report/1"
KINDS = ("html", "json")


def write_results(records: Sequence[dict[str, Any]], config: pytest.Config) -> Iterator[str]:
    """Writes what the command line asks for; yields the summary's lines."""
    for record in records:
        yield line_of(record)
    kinds = [kind for kind in (config.getoption("--precision-report") or "").split(",") if kind]
    folder = Path(config.getoption("--precision-report-dir"))
    path = config.getoption("--precision-certificate")
    if not kinds and path is None:
        return
    certificate = certificate_of(records)
    contents = {
        "format": FORMAT,
        "environment": asdict(environment_fingerprint()),
        "options": {
            name: config.getoption(f"--precision-{name}")
            for name in ("profile", "reference", "bound", "faults")
        },
        "tests": list(records),
        "certificate": json.loads(certificate.to_json()),
    }
    if kinds:
        folder.mkdir(parents=True, exist_ok=True)
    if "json" in kinds:
        text = json.dumps(contents, indent=1, sort_keys=True, allow_nan=False)
        yield _written(folder / "report.json", text + "\n")
    if "html" in kinds:
        yield _written(folder / "report.html", page(contents))
    if path is not None:
        yield _written(Path(path), certificate.to_json())


def line_of(record: dict[str, Any]) -> str:
    """One test in one line."""
    contract = record["contract"]
    name = f"{contract['op']} {contract['storage']} {record['implementation']}"
    if record["violation"]:
        return f"{name}: BROKEN, {record['violation']['reason']}"
    line = (
        f"{name}: {record['inputs']} inputs, {record['outputs']} outputs, at most "
        f"{record['largest_ulp']:.3g} ULP, {share_of(record)} of the bound used"
    )
    if faults := record["faults"]:
        tried = len(faults["caught"]) + len(faults["missed"])
        line += f", {len(faults['caught'])} of {tried} faults caught"
    if unclaimed := record["outputs"] - record["claimed"]:
        line += f", {unclaimed} of the outputs unclaimed"
    if record["left_out"]:
        line += f"; without {', '.join(record['left_out'])}, which it does not take"
    return line


def share_of(record: dict[str, Any]) -> str:
    """Returns the used share of the bound, with a remark where that is next to nothing."""
    used = record["utilisation"] or 0.0
    return f"{used:.0%}" if used >= 0.01 else f"less than 1% ({used:.2g})"


def certificate_of(records: Sequence[dict[str, Any]]) -> EquivalenceCertificate:
    """The tested contracts as a certificate: implementations against their declarations.

    No tokens were run, so nothing in it speaks of a model.
    """
    results, measured = {}, []
    for record in records:
        address = f"{record['test']} {record['implementation']}"
        broken = record["violation"] or {"claimed": 0, "violations": 0, "utilisation": None}
        claimed = record["claimed"] + broken["claimed"]
        contract = dict(record["contract"])
        results[address] = ContractResult(
            contract=PrecisionContract(**contract | {"casts": tuple(contract["casts"])}),
            elements=claimed,
            violations=broken["violations"],
            utilisation=broken["utilisation"] if record["violation"] else record["utilisation"],
            bias_ulp=record["bias_ulp"],
        )
        if record["faults"]:
            faults = record["faults"]
            tried = len(faults["caught"]) + len(faults["missed"])
            measured.append(Measured(f"{address}: fault score", faults["score"], "share", tried))
    return EquivalenceCertificate(
        subject_a=Subject("implementations under test", "see contracts", "as declared"),
        subject_b=Subject("their precision contracts", "enclosure of the real value", "exact"),
        workload=Workload.of([]),
        contracts=results,
        measured=tuple(measured),
    )


def _written(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return f"wrote {path}"
