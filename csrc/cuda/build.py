"""How libbitlens_cuda is built. setup.py of bitlens runs this, and that of bitlens-cuda."""

from __future__ import annotations

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SOURCE = Path(__file__).resolve().parent
ARCHITECTURES = "80 90 100 120"
"""The default; BITLENS_CUDA_ARCHS names others. The last one's PTX is for GPUs to come."""


def find_nvcc() -> str | None:
    """Returns the compiler of the CUDA kernels, None where they are not to be built.

    BITLENS_CUDA says: 0, the default, so that a build is the same on every machine; 1; or auto,
    which builds them where there is an nvcc.
    """
    wanted = os.environ.get("BITLENS_CUDA", "0")
    if wanted not in ("0", "1", "auto"):
        raise RuntimeError(f"BITLENS_CUDA = {wanted!r}: expected 0, 1 or auto")
    nvcc = None if wanted == "0" else shutil.which("nvcc")
    if wanted == "1" and nvcc is None:
        raise RuntimeError("BITLENS_CUDA = 1, and there is no nvcc: install the CUDA toolkit")
    return nvcc


def build_cuda(nvcc: str, folder: Path) -> None:
    """Builds libbitlens_cuda.so into a folder, with no torch and a static runtime.

    BITLENS_CUDA_JOBS is the number of files that are compiled at a time, by default one a core.
    """
    tree = SOURCE.parents[1] / "build" / "cuda"
    tree.mkdir(parents=True, exist_ok=True)
    architectures = os.environ.get("BITLENS_CUDA_ARCHS", ARCHITECTURES).split()
    flags = [*(SOURCE / "nvcc.flags").read_text().split(), f"-I{SOURCE.parent}"]
    flags += ["-Xcompiler", "-fPIC,-fvisibility=hidden,-ffp-contract=off"]
    for arch in architectures:
        flags += ["-gencode", f"arch=compute_{arch},code=sm_{arch}"]
    flags += ["-gencode", f"arch=compute_{architectures[-1]},code=compute_{architectures[-1]}"]

    def compiled(file: Path) -> str:
        out = str(tree / f"{file.stem}.o")
        subprocess.run([nvcc, *flags, "-c", str(file), "-o", out], check=True)
        return out

    files = [file for file in sorted(SOURCE.glob("*.cu")) if file.stem != "spec_check"]
    with ThreadPoolExecutor(int(os.environ.get("BITLENS_CUDA_JOBS", os.cpu_count() or 1))) as pool:
        objects = list(pool.map(compiled, files))
    fresh = folder / "libbitlens_cuda.so.new"
    link = [nvcc, "-shared", "-cudart", "static", *flags[-2:], *objects, "-o", str(fresh)]
    subprocess.run(link, check=True)
    os.replace(fresh, folder / "libbitlens_cuda.so")
