"""Outputs of a platform that runs in a process of its own.

Tensor names: N prompts, P positions of each, V vocabulary, K best tokens that a platform lists.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


class PlatformError(RuntimeError):
    """A platform could not be run; the message is its own."""


@dataclass(frozen=True)
class Answer:
    """The outputs of a platform for one prompt.

    Attributes:
        logits: fp32 [P, V], at the positions that it gives some at.
        top: int64 [P, K]: the best tokens where the platform lists them itself.
    """

    logits: torch.Tensor
    top: torch.Tensor | None = None


def run_remotely(
    source: str,
    platform: str,
    environment: Mapping[str, str],
    tokens_NP: torch.Tensor,
    n_positions: int,
) -> Iterator[Answer]:
    """Yields an answer a prompt, as the process writes them.

    Each prompt's file is removed once it was read. Raises PlatformError where the process ends by
    an error, or gives logits of another shape or that are not finite.
    """
    with tempfile.TemporaryDirectory(prefix="bitlens-platform-") as name:
        folder = Path(name)
        tokens = folder / "tokens.safetensors"
        save_file({"tokens": tokens_NP.contiguous()}, tokens)
        job = {"source": source, "platform": platform, "tokens": str(tokens), "folder": name}
        with (folder / "stderr").open("w+") as told:
            process = subprocess.Popen(
                [sys.executable, "-m", "bitlens.audit.platforms.worker", json.dumps(job)],
                stdout=subprocess.PIPE,
                stderr=told,
                text=True,
                env=with_changes(os.environ, environment),
            )
            try:
                for i in range(len(tokens_NP)):
                    yield _answer(_file(process, folder, i), platform, i, n_positions)
                if process.wait() != 0:
                    raise PlatformError(last_words(folder / "stderr", process.returncode))
            finally:
                process.kill()
                process.wait()


def _file(process: subprocess.Popen[str], folder: Path, i: int) -> Mapping[str, torch.Tensor]:
    """Returns the i-th prompt's outputs, once the process says that they are there."""
    assert process.stdout is not None
    line = process.stdout.readline()
    while line and line.strip() != str(i):  # libraries print, too
        line = process.stdout.readline()
    if not line:
        raise PlatformError(last_words(folder / "stderr", process.wait()))
    file = folder / f"{i}.safetensors"
    outputs: Mapping[str, torch.Tensor] = load_file(file)
    file.unlink()
    return outputs


def _answer(outputs: Mapping[str, torch.Tensor], platform: str, i: int, n: int) -> Answer:
    logits_PV = outputs["logits"]
    if logits_PV.ndim != 2 or len(logits_PV) != n:
        raise PlatformError(f"{platform} gave logits of shape {tuple(logits_PV.shape)}")
    if not torch.isfinite(logits_PV).all():
        raise PlatformError(f"{platform} gave logits that are not finite, for prompt {i}")
    return Answer(logits_PV, outputs.get("top"))


def with_changes(environment: Mapping[str, str], changes: Mapping[str, str]) -> dict[str, str]:
    """Returns an environment with changes; flags of XLA are added to those that are set."""
    found = {**environment, **changes}
    if "XLA_FLAGS" in changes and environment.get("XLA_FLAGS"):
        found["XLA_FLAGS"] = f"{environment['XLA_FLAGS']} {changes['XLA_FLAGS']}"
    return found


def last_words(path: Path, code: int) -> str:
    """Returns the last line that a process wrote, or what it ended with."""
    lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:500] if lines else f"it ended with code {code}"
