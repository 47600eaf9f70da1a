"""A synthetic audit, labelled as one: shaped like the real thing, measured on nothing."""

from __future__ import annotations

import dataclasses
import math
import random

from bitlens.audit.result import (
    AuditResult,
    Divergence,
    Equivalence,
    Flip,
    MarginBin,
    OpFinding,
    Reproducer,
    Setting,
    TokenFlips,
    UlpHistogram,
)
from bitlens.precision.contract import PrecisionContract

KINDS = {
    "ln1": "rms_norm",
    "attn.q": "matmul",
    "attn.rope_q": "rope",
    "attn.attention": "attention",
    "attn.o": "matmul",
    "resid_mid": "matmul",
    "ln2": "rms_norm",
    "mlp.gate": "matmul",
    "mlp.act": "swiglu",
    "mlp.down": "matmul",
    "resid_post": "matmul",
}
HOSTILE = "<script>alert('x')</script> & \"friends\""


def sample(*, layers: int = 30, violated: bool = False) -> AuditResult:
    """`violated` puts a fault at blocks.7.mlp.down. The prompts contain hostile text."""
    draw = random.Random(0)
    ops = [_op(draw, "embed", None, "matmul", 0.0)]
    for layer in range(layers):
        for kind, op in KINDS.items():
            carried = 2e-3 * math.exp(0.07 * layer)
            ops.append(_op(draw, kind, layer, op, carried))
    ops += [
        _op(draw, "ln_final", None, "rms_norm", 0.02),
        _op(draw, "unembed", None, "matmul", 0.02),
    ]
    if violated:
        ops = [_broken(op) if op.address == "blocks.7.mlp.down" else op for op in ops]
    return AuditResult(
        setting=Setting(
            model="synthetic sample (no measurement)",
            a="fp32",
            b="bf16",
            prompts=64,
            positions=8192,
            written=7600,
            checked_prompts=8,
            rows_per_op=128,
            seed=0,
            only_a=(),
            only_b=(),
            environment={"bitlens": "0.0", "isa": "none", "threads": 0},
        ),
        meaning=(),
        ops=tuple(ops),
        histograms=tuple(_histogram(draw, kind) for kind in KINDS),
        divergence=Divergence(
            judge="relative",
            first="blocks.7.mlp.down" if violated else None,
            carried="blocks.2.resid_post",
            created="blocks.3.mlp.down",
            amplified=("blocks.29.ln2", 12.5),
            flip=(3, 17),
            restores=("blocks.7.mlp.down",),
            tried=393,
        ),
        reproducer=_reproducer(violated),
        flips=_flips(),
        certificate={"schema": "synthetic", "proved": {}, "measured": {}, "statistical": {}},
        seconds={"tokens": 20.0, "lockstep": 90.0},
    )


def _op(draw: random.Random, kind: str, layer: int | None, op: str, carried: float) -> OpFinding:
    created = 0.0 if kind == "embed" else 1.2e-3 * draw.uniform(0.4, 2.0)
    return OpFinding(
        address=kind if layer is None else f"blocks.{layer}.{kind}",
        layer=layer,
        kind=kind,
        contract=PrecisionContract(op, storage="bf16"),
        values=73_728,
        outside=0,
        unclaimed=0,
        utilisation=draw.uniform(0.0, 0.3),
        free_error=carried * draw.uniform(0.8, 1.2),
        created_error=created,
        bias_ulp=draw.gauss(0, 0.001),
        bias_z=draw.gauss(0, 1),
        worst_ulp=0.5,
        where=(3, 120),
    )


def _broken(op: OpFinding) -> OpFinding:
    return dataclasses.replace(
        op,
        outside=36_112,
        utilisation=1.98,
        bias_ulp=-0.499,
        bias_z=-411.0,
        reason="bf16 outputs lie below the contract's interval: a truncating cast",
    )


def _histogram(draw: random.Random, kind: str) -> UlpHistogram:
    counts = [int(1000 * draw.uniform(0.9, 1.1)) if 8 <= i < 24 else 0 for i in range(32)]
    return UlpHistogram(
        kind, "bf16", 1.0, tuple(counts), 0, 0, draw.gauss(0, 0.002), draw.gauss(0, 1)
    )


def _flips() -> TokenFlips:
    bins = [MarginBin(0.0, 0.125, 300, 80), MarginBin(0.125, 0.25, 420, 21)]
    bins += [MarginBin(2.0**i, 2.0 ** (i + 1), int(900 * 1.4 ** -abs(i)), 0) for i in range(-2, 5)]
    flip = Flip(3, 17, f"the user wrote {HOSTILE}", " </td><b>", "\n", 0.031, 0.012)
    return TokenFlips(
        positions=8192,
        prompts=64,
        flips=101,
        prompts_with_flips=44,
        interval=(0.01005, 0.01496),
        clustered_interval=(0.0097, 0.0150),
        mean_kl=3.1e-4,
        kl_interval=(2.8e-4, 3.4e-4),
        certified=7601,
        proven=7500,
        premises=("synthetic",),
        broken_certificates=0,
        equivalence=Equivalence(0.05, 1e-12, True, "0" * 64),
        margins=tuple(bins),
        examples=(
            flip,
            dataclasses.replace(flip, position=18, token_a=" Paris", token_b=" London"),
        ),
    )


def _reproducer(violates: bool) -> Reproducer:
    return Reproducer(
        address="blocks.7.mlp.down",
        violates=violates,
        utilisation=1.97 if violates else 0.98,
        original_utilisation=1.98 if violates else 0.97,
        shapes_before={"a": (128, 1536), "b": (1536, 576)},
        shapes_after={"a": (1, 2), "b": (2, 1)},
        checks=212,
        recomputes=True,
        diagnosis="truncating_cast" if violates else None,
        script="import torch\n\nprint('a synthetic script')\n",
    )
