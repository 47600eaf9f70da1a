"""`make gpu-check`: the tests of csrc/cuda on a GPU in place of the executor, stage by stage.

Needs one NVIDIA GPU and nvcc, fetches nothing. Writes build/gpu_check.json after every stage, and
build/gpu_ratios.json at the end.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RECORD = ROOT / "build" / "gpu_check.json"
TESTS = "tests/cuda_host"
PATHS = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
PYTEST = [sys.executable, "-m", "pytest", "-q", "-x"]
KERNELS = [
    f"{TESTS}/test_{name}.py"
    for name in (
        *("rows", "linear", "attention", "sampling", "sampling_shards", "gradients"),
        *("dictionaries", "encoding", "torch_library"),
    )
]
MODELS = [f"{TESTS}/test_{name}.py" for name in ("model", "generation")]
GRAPHS = [
    f"{TESTS}/test_{name}.py" for name in ("graphs", "captures_in_graphs", "engine", "judged")
]


def stages(architecture: str) -> list[tuple[str, list[str]]]:
    """Returns the commands in their order, bits before all else."""
    golden = ["make", "cuda-check", f"CUDA_ARCHS={architecture}"]
    sanitizer = shutil.which("compute-sanitizer")
    checked = [*PYTEST, f"{TESTS}/test_rows.py", "-k", "rms_norm or softmax"]
    return [
        ("build", [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]),
        ("golden vectors", golden),
        ("kernels", [*PYTEST, *KERNELS]),
        ("models", [*PYTEST, "--nightly", *MODELS]),
        ("gradients", [*PYTEST, "--nightly", f"{TESTS}/test_gradients.py", "-k", "gradients_"]),
        ("graphs", [*PYTEST, *GRAPHS]),
        ("compute-sanitizer", [sanitizer, "--error-exitcode", "1", *checked] if sanitizer else []),
        ("ratios", [sys.executable, "-m", "support.gpu_ratios"]),
    ]


def run(gpu: dict[str, str] | None, commands: Sequence[tuple[str, list[str]]]) -> bool:
    """Runs the stages until one fails; returns whether all that ran passed."""
    record = {"device": gpu and gpu["name"], "driver": gpu and gpu["driver"]}
    done = [{"name": name, "outcome": "not run", "seconds": 0.0} for name, _ in commands]
    sound = True
    for stage, (_, command) in zip(done, commands, strict=True):
        if gpu is not None and command and sound:
            started = time.perf_counter()
            environment = {"BITLENS_CUDA": "1", "BITLENS_CUDA_ARCHS": gpu["architecture"]}
            environment["BITLENS_TEST_DEVICE"] = "cuda"
            environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "tests"), *PATHS])
            sound = subprocess.run(command, cwd=ROOT, env=os.environ | environment).returncode == 0
            stage["outcome"] = "passed" if sound else "failed"
            stage["seconds"] = round(time.perf_counter() - started, 1)
        RECORD.parent.mkdir(exist_ok=True)
        RECORD.write_text(json.dumps({**record, "stages": done}, indent=1) + "\n")
    return sound and gpu is not None


def first_gpu() -> dict[str, str] | None:
    """Returns the name, driver and architecture of the first GPU; None where there is none."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,compute_cap", "--format=csv,noheader"]
    if shutil.which("nvidia-smi") is None:
        return None
    found = subprocess.run(query, capture_output=True, text=True)
    if found.returncode != 0 or not found.stdout.strip():
        return None
    name, driver, capability = found.stdout.splitlines()[0].split(", ")
    return {"name": name, "driver": driver, "architecture": capability.replace(".", "")}


def main() -> int:
    gpu = first_gpu()
    if gpu is None:
        print("no GPU on this machine: not run")
    passed = run(gpu, stages(gpu["architecture"] if gpu else "90"))
    print(RECORD.read_text(), end="")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
