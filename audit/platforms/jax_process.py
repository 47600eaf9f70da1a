"""The JAX model's programs in a process of their own, which starts with its own flags of XLA."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from socket import socketpair

import torch
from safetensors.torch import load, save

from .remote import PlatformError, last_words, with_changes


class JaxProcess:
    """`Programs` (model/interop/jax_programs.py) that another process runs: one at a time, for all
    threads. It ends with this object."""

    def __init__(self, source: str, dtype: str, environment: Mapping[str, str]) -> None:
        """Starts it. Raises PlatformError with its last words where it ends before it is ready."""
        here, there = socketpair()
        self._folder = tempfile.TemporaryDirectory(prefix="bitlens-jax-")
        self._told = Path(self._folder.name) / "stderr"
        job = {"source": source, "dtype": dtype, "fd": there.fileno()}
        with self._told.open("w") as told:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bitlens.audit.platforms.jax_worker", json.dumps(job)],
                stdout=subprocess.DEVNULL,
                stderr=told,
                env=with_changes(os.environ, environment),
                pass_fds=(there.fileno(),),
            )
        there.close()
        self._connection = Connection(here.detach())
        self._lock = threading.Lock()
        self._end = weakref.finalize(self, _end, self._process, self._connection, self._folder)
        self._answer()

    def logits(self, tokens_P: torch.Tensor, /) -> torch.Tensor:
        """See `Programs`."""
        return self._ask("logits", "", tokens_P)["logits"]

    def watched(self, tokens_P: torch.Tensor, /) -> Mapping[str, torch.Tensor]:
        """See `Programs`."""
        return self._ask("watched", "", tokens_P)

    def operation(self, address: str, /, *inputs: torch.Tensor) -> torch.Tensor:
        """See `Programs`."""
        return self._ask("operation", address, *inputs)[address]

    def _ask(self, what: str, address: str, *inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        with self._lock:
            try:
                asked = {"what": what, "address": address, "inputs": len(inputs)}
                self._connection.send_bytes(json.dumps(asked).encode())
                for each in inputs:
                    self._connection.send_bytes(save({"input": each.contiguous()}))
            except OSError:
                raise self._died() from None
            return self._answer()

    def _answer(self) -> dict[str, torch.Tensor]:
        try:
            error = json.loads(self._connection.recv_bytes())["error"]
            if error is not None:
                raise PlatformError(error)
            return load(self._connection.recv_bytes())
        except (EOFError, OSError):
            raise self._died() from None

    def _died(self) -> PlatformError:
        return PlatformError(last_words(self._told, self._process.wait()))


def _end(
    process: subprocess.Popen[bytes],
    connection: Connection,
    folder: tempfile.TemporaryDirectory[str],
) -> None:
    connection.close()
    process.kill()
    process.wait()
    folder.cleanup()
