"""`bitlens cai pairs`: pairs of conversations as prompts with two answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .console import out, print_json
from .files import check_output
from .options import Json


def register(cai: typer.Typer) -> None:
    """Adds the command."""
    cai.command(epilog="Example:  bitlens cai pairs test.jsonl -o pairs.jsonl")(pairs)


def pairs(
    file: Annotated[
        Path, typer.Argument(help="JSONL of hh-rlhf or of the HHH evaluations, uncompressed.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Write a row a pair there.")],
    as_json: Json = False,
) -> None:
    """Write pairs of conversations as prompts with a chosen and a rejected answer.

    Lines that are no such pair are counted by reason and left out.
    """
    from ..alignment.preferences import usable_pairs
    from ..model.weights.atomic import write_atomically

    check_output(output)
    found = usable_pairs(file)
    with write_atomically(output) as scratch:
        lines = (json.dumps(row, ensure_ascii=False) for row in found.rows)
        scratch.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    if as_json:
        print_json(n=len(found.rows), left_out=found.left_out)
        return
    out.print(f"{len(found.rows)} pairs")
    for reason, n in found.left_out.items():
        out.print(f"{n} left out: {reason}")
