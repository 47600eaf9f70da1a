"""x [M, k] times w [n, k], against torch: MKL in fp32, oneDNN in bf16."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..race import Entry, Race, Worker, Workers, race
from ..report import Row, Target, at_least, ratio_row
from . import HAS_TILES, NO_BF16, TILES, WITHOUT, Options, command, threads_text

Shapes = dict[tuple[int, int], int]
"""(n, k) and how many such matrices there are."""

SMOLLM2: Shapes = {
    (576, 576): 60,
    (192, 576): 60,
    (1536, 576): 60,
    (576, 1536): 30,
    (49152, 576): 1,
}
SQUARE: Shapes = {(4096, 4096): 1}
ROWS = (1, 16, 64, 128, 512)


@dataclass(frozen=True)
class _Peer:
    name: str
    ours: str
    dtype: str
    environment: dict[str, str]
    target: float
    target_from_rows: int
    needs: str = ""  # of the target


_PEERS = (
    _Peer("torch fp32 (MKL)", "bitlens", "fp32", {}, 0.95, 64),
    _Peer("torch bf16", "bitlens", "bf16", {}, 1.0, 512, "" if HAS_TILES else TILES),
    _Peer("torch bf16" + WITHOUT, "bitlens" + WITHOUT, "bf16", NO_BF16, 2.5, 1),
)


def rows(options: Options) -> Iterator[Row]:
    sets = {"SmolLM2's matrices": SMOLLM2, "4096 x 4096": SQUARE}
    if options.quick:
        sets = {"one small matrix": {(192, 576): 1}}
    with Workers() as workers:
        for threads in options.threads:
            for dtype in options.dtypes:
                contenders = {
                    name: workers.get(
                        kind, threads=threads, dtype=dtype, environment=peer.environment
                    )
                    for peer in _PEERS
                    if peer.dtype == dtype
                    for name, kind in ((peer.ours, "bitlens kernels"), (peer.name, "torch"))
                }
                for title, shapes in sets.items():
                    for m in ROWS[: options.size(len(ROWS), 2)]:
                        result = _race(contenders, shapes, m, options)
                        yield from _rows(result, title, shapes, m, threads, dtype)


def _race(contenders: dict[str, Worker], shapes: Shapes, m: int, options: Options) -> Race:
    """One race a shape, added up over the matrices of the set."""
    total = Race({name: [] for name in contenders})
    for (n, k), count in shapes.items():
        args = {"rows": m, "n": n, "k": k, "at_least": 0.01 if options.quick else 0.1}
        entries = {name: Entry(worker, "linear", args) for name, worker in contenders.items()}
        result = race(entries, options.rounds)
        total.disturbed = max(total.disturbed, result.disturbed)
        for name, samples in result.samples.items():
            sums = total.samples[name] or [{"seconds": 0.0} for _ in samples]
            for into, sample in zip(sums, samples, strict=True):
                into[f"{n}x{k}"] = sample["seconds"]
                into["seconds"] += count * sample["seconds"]
            total.samples[name] = sums
    return total


def _rows(
    result: Race, title: str, shapes: Shapes, m: int, threads: int, dtype: str
) -> Iterator[Row]:
    flops = 2 * m * sum(count * n * k for (n, k), count in shapes.items())
    for peer in _PEERS:
        if peer.name not in result.samples:
            continue
        promised = m >= peer.target_from_rows
        target: Target | None = at_least(peer.target) if promised and not peer.needs else None
        by_shape = {
            f"{n}x{k}": result.median(peer.name, f"{n}x{k}") / result.median(peer.ours, f"{n}x{k}")
            for n, k in shapes
        }
        yield ratio_row(
            result,
            (peer.name, "seconds"),
            (peer.ours, "seconds"),
            suite="linear",
            what=f"M = {m}, {title}, {threads_text(threads)}, against {peer.name}",
            ours=f"{flops / result.median(peer.ours) / 1e9:.0f} GFLOP/s",
            peer=f"{flops / result.median(peer.name) / 1e9:.0f} GFLOP/s",
            target=target,
            needs=peer.needs if promised else "",
            command=command("linear", threads, dtype),
            details={"by_shape": by_shape},
        )
