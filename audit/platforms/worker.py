"""Runs one platform in a process of its own: `python -m bitlens.audit.platforms.worker JOB`.

The job names model, platform, tokens and a folder. Outputs are written a prompt a file, each under
its name only once it is whole; what a platform writes for itself is removed with the folder. What
goes wrong is the last line of stderr.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np


def main() -> None:
    """Reads the job from the command line and runs it."""
    job = json.loads(sys.argv[1])
    folder = Path(job["folder"])
    try:
        _run(job, folder)
    except Exception as error:
        print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(1) from None


def _run(job: dict[str, str], folder: Path) -> None:
    from safetensors.numpy import load_file, save_file

    from .platform import open_for

    tempfile.tempdir = str(folder)
    tokens_NP = load_file(job["tokens"])["tokens"]
    run = open_for(job["platform"], job["source"], tokens_NP.shape[1])
    for i, tokens_P in enumerate(tokens_NP):
        outputs = {name: np.ascontiguousarray(value) for name, value in run(tokens_P).items()}
        part = folder / f"{i}.part"
        save_file(outputs, part)
        os.replace(part, folder / f"{i}.safetensors")
        print(i, flush=True)


if __name__ == "__main__":
    main()
