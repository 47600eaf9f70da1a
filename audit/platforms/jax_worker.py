"""Answers for the JAX model's programs: `python -m bitlens.audit.platforms.jax_worker JOB`.

The job names model, dtype and the file descriptor that questions come from. What goes wrong before
it is ready is the last line of stderr; later it is the answer.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load, save

if TYPE_CHECKING:
    from ...model.interop.jax_programs import Programs


def main() -> None:
    """Reads the job from the command line and answers until nobody asks."""
    job = json.loads(sys.argv[1])
    try:
        from ...model.interop.jax_programs import JaxPrograms
        from ...model.sources.resolve import open_checkpoint

        programs = JaxPrograms(open_checkpoint(job["source"]), job["dtype"])
    except Exception as error:
        print(_words(error), file=sys.stderr)
        raise SystemExit(1) from None
    serve(programs, Connection(job["fd"]))


def serve(programs: Programs, connection: Connection) -> None:
    """Answers until the other end closes."""
    _send(connection, {})
    while True:
        try:
            asked = json.loads(connection.recv_bytes())
            inputs = [load(connection.recv_bytes())["input"] for _ in range(asked["inputs"])]
        except EOFError:
            return
        try:
            found = _found(programs, asked, inputs)
        except Exception as error:
            connection.send_bytes(json.dumps({"error": _words(error)}).encode())
        else:
            _send(connection, found)


def _found(
    programs: Programs, asked: Mapping[str, Any], inputs: list[torch.Tensor]
) -> Mapping[str, torch.Tensor]:
    if asked["what"] == "logits":
        return {"logits": programs.logits(*inputs)}
    if asked["what"] == "watched":
        return programs.watched(*inputs)
    return {asked["address"]: programs.operation(asked["address"], *inputs)}


def _send(connection: Connection, found: Mapping[str, torch.Tensor]) -> None:
    connection.send_bytes(json.dumps({"error": None}).encode())
    connection.send_bytes(save({name: value.contiguous() for name, value in found.items()}))


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


if __name__ == "__main__":
    main()
