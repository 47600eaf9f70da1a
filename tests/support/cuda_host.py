"""csrc/cuda compiled by g++ for the host executor (tests/cuda_host), once a state of the source.

Fibers stand for CUDA threads; the order in which they run is a name: "up", "down", or a seed.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import hashlib
import inspect
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import bitlens
import pytest
import torch
from bitlens.model.ops.cuda import library
from bitlens.model.ops.cuda.derivatives import CudaDerivatives
from bitlens.model.ops.cuda.dictionaries import CudaDictionaryKernels
from bitlens.model.ops.cuda.kernels import WORKSPACE, CudaKernels
from bitlens.model.ops.cuda.library import Library, cuda_library
from bitlens.model.ops.cuda.ops import cuda_ops
from bitlens.model.ops.policy import get_policy
from bitlens.model.runners.cuda import CudaRunner
from bitlens.model.runners.unfused import UnfusedRunner
from bitlens.model.transformer import HookedTransformer
from bitlens.model.weights.checkpoint import Checkpoint

T = TypeVar("T")
ROOT = Path(bitlens.__file__).resolve().parent
SOURCES = sorted(p for p in (ROOT / "csrc/cuda").glob("*.cu") if p.name != "spec_check.cu")
EXECUTOR = ROOT / "tests" / "cuda_host"
BUILD = ROOT / "build" / "cuda_host"
ORDERS = [
    *("up", "down", "7"),
    *(pytest.param(str(seed), marks=pytest.mark.nightly) for seed in range(100, 117)),
]
"""Three orders of threads, twenty at night."""
_FLAGS = [
    *("-std=c++20", "-fPIC", "-fvisibility=hidden", "-mavx2", "-mfma", "-ffp-contract=off"),
    *("-fno-math-errno", "-Wall", "-Wextra", "-Werror"),
    *("-Wno-unknown-pragmas", "-Wno-unused-function"),
]


def build_library() -> Path:
    """Compiles the library's kernels and the executor into one shared library; returns its path."""
    return _build(
        "bitlens_cuda_host.so", [*SOURCES, EXECUTOR / "executor.cpp"], ["-O1"], ["-shared"]
    )


def build_program(source: Path, others: Sequence[Path] = (), sanitizer: str = "") -> Path:
    """Compiles a program on the executor, under a sanitizer if one is named; returns its path."""
    reports = ["-g1", "-fno-sanitize-recover=undefined"]  # with lines
    watched = [f"-fsanitize={sanitizer}", *reports] if sanitizer else []
    sources = [source, *others, EXECUTOR / "executor.cpp"]
    return _build(f"{source.stem}-{sanitizer or 'plain'}", sources, ["-O0", *watched], watched)


def _build(name: str, sources: Sequence[Path], flags: Sequence[str], link: Sequence[str]) -> Path:
    folder = BUILD / _digest([*_FLAGS, *flags, *map(str, sources)])
    target = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # files of tests run beside one another
        if not target.exists():
            with ThreadPoolExecutor(2) as pool:
                objects = list(pool.map(lambda source: _compile(source, folder, flags), sources))
            fresh = target.with_suffix(".new")
            _run(["g++", *objects, *link, "-o", str(fresh)])
            fresh.rename(target)
    return target


def _compile(source: Path, folder: Path, flags: Sequence[str]) -> str:
    out = str(folder / f"{source.stem}.o")
    include = [f"-I{ROOT / 'csrc'}", f"-I{EXECUTOR}"]
    _run(["g++", *_FLAGS, *flags, *include, "-c", "-x", "c++", str(source), "-o", out])
    return out


def _digest(words: Sequence[str]) -> str:
    found = hashlib.sha256("\0".join(words).encode())
    files = [
        p
        for folder in ("csrc/cuda", "csrc/spec", "csrc/spec_tests")
        for p in (ROOT / folder).iterdir()
        if p.suffix in (".h", ".cu", ".cpp")
    ]
    for path in sorted([*files, *EXECUTOR.glob("*.h"), *EXECUTOR.glob("*.c*")]):
        found.update(path.read_bytes())
    return found.hexdigest()[:16]


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@contextmanager
def on_stream(stream: int) -> Iterator[None]:
    """A stream of the caller's is current on the executor, where a launch on any other fails."""
    make_current = ctypes.CDLL(str(build_library())).host_cuda_make_current
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Library, "stream", property(lambda self: stream))
        make_current(ctypes.c_void_p(stream))
        try:
            yield
        finally:
            make_current(ctypes.c_void_p(0))


@functools.cache
def host_library() -> Library:
    """The library on the executor, where the CPU's memory is the device's; under `make gpu-check`
    the one on the GPU."""
    if device := os.environ.get("BITLENS_TEST_DEVICE"):
        return cuda_library(torch.device(device))
    return Library(build_library(), torch.device("cpu"))


class Carried:
    """Kernels for tests that hold tensors on the CPU: arguments are copied to the device, and back,
    as some are written to; results come to the CPU."""

    def __init__(self, there: Any) -> None:
        self._there = there

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._there, name)
        return functools.partial(_carried, found) if inspect.ismethod(found) else found


def _carried(kernel: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    device = host_library().device
    there = [x.to(device, copy=True) if isinstance(x, torch.Tensor) else x for x in arguments]
    found = kernel(*there, **options)
    for x, moved in zip(arguments, there, strict=True):
        if isinstance(x, torch.Tensor) and x.numel() and not x.is_inference():
            x.copy_(moved)
    if isinstance(found, tuple):
        return tuple(x.cpu() for x in found)
    return found.cpu() if isinstance(found, torch.Tensor) else found


def _near(there: T) -> T:
    """The same functions for tensors on the CPU."""
    return there if host_library().device.type == "cpu" else cast(T, Carried(there))


def host_kernels(workspace: int = WORKSPACE) -> CudaKernels:
    return _near(CudaKernels(host_library(), workspace))


def host_derivatives() -> CudaDerivatives:
    return _near(CudaDerivatives(CudaKernels(host_library())))


def host_dictionaries(workspace: int = WORKSPACE) -> CudaDictionaryKernels:
    return _near(CudaDictionaryKernels(CudaKernels(host_library(), workspace)))


class GraphKernels(CudaKernels):
    """Kernels on the executor, where a graph is the list of its launches: capturing runs none of
    them, replaying all, with the arguments that they had then."""

    def captured(self, body: Callable[[], T]) -> tuple[Callable[[], None], T]:
        launches: list[tuple[Any, ...]] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.library, "launch", lambda *launch: launches.append(launch))
            result = body()

        def replay() -> None:
            for launch in launches:
                self.library.launch(*launch)

        return replay, result


def stand_in_for_cuda(patch: pytest.MonkeyPatch) -> None:
    """Lets `bitlens.load(device="cuda")` run on the executor, where there is no GPU."""
    if host_library().device.type == "cpu":
        patch.setattr(library, "cuda_library", lambda device: host_library())
        patch.setattr(CudaKernels, "captured", GraphKernels.captured)


def host_model(checkpoint: Checkpoint, dtype: str, storage: str = "packed") -> HookedTransformer:
    """A model whose every operation is a CUDA kernel on the executor."""
    kernels = GraphKernels if host_library().device.type == "cpu" else CudaKernels
    ops = cuda_ops(get_policy(dtype), storage, kernels(host_library()))
    ops.adopt(checkpoint.config)
    return HookedTransformer(checkpoint, ops, UnfusedRunner if ops.policy.stepwise else CudaRunner)


@contextmanager
def threads_in_order(order: str) -> Iterator[None]:
    """Runs the threads of a block, and the blocks of a grid, in this order."""
    before = os.environ.get("HOST_CUDA_ORDER")
    os.environ["HOST_CUDA_ORDER"] = order
    try:
        yield
    finally:
        os.environ.pop("HOST_CUDA_ORDER") if before is None else os.environ.update(
            HOST_CUDA_ORDER=before
        )


def assert_same_bits(found: torch.Tensor, wanted: torch.Tensor) -> None:
    """A NaN is a NaN: its sign and payload are not promised."""
    found = found.cpu()
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
    integers = torch.int32 if found.dtype is torch.float32 else torch.int16
    same = found.view(integers) == wanted.view(integers)
    assert bool((same | (found.isnan() & wanted.isnan())).all()), f"{int((~same).sum())} differ"


@contextmanager
def launching(*kernels: str) -> Iterator[None]:
    """Fails unless each of these kernels, and no other, was launched in the block."""
    before = host_library().launches()
    yield
    after = host_library().launches()
    assert {name for name in after if after[name] != before[name]} == set(kernels)
