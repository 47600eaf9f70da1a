"""libbitlens_cuda: found, loaded, and called with tensors in place of pointers."""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .... import _core
from ....version import __version__

FILE = "libbitlens_cuda.so"
LIBRARY = Path(__file__).resolve().parents[3] / FILE
"""The library that a build in place makes, beside the core."""
DISTRIBUTION = "bitlens-cuda"
"""The distribution that brings the library to an installed bitlens, as package `bitlens_cuda`."""

_TYPES = {
    "p": ctypes.c_void_p,
    "i": ctypes.c_int,
    "l": ctypes.c_int64,
    "f": ctypes.c_float,
    "s": ctypes.c_char_p,
}
SIGNATURES = {
    "error_text": ("s", "i"),
    "numerics_version": ("s", ""),
    "kernel_count": ("i", ""),
    "kernel_name": ("s", "i"),
    "launches": ("l", "i"),
    "driver_version": ("i", ""),
    "runtime_version": ("i", ""),
    "device_count": ("i", ""),
    "device_architecture": ("i", "i"),
    "device_is_supported": ("i", "i"),
    "rms_norm": ("i", "plipplllfiplipppp"),
    "normalize": ("i", "pipllpp"),
    "norm_weight": ("i", "ppllpip"),
    "add": ("i", "pipilpp"),
    "cast": ("i", "pilpip"),
    "scaled": ("i", "pilfpip"),
    "scale_scores": ("i", "pflpip"),
    "soft_cap": ("i", "plfpp"),
    "gated_act": ("i", "iplpllliiplp"),
    "linear": ("i", "pilllpilppilp"),
    "embedding": ("i", "plpilfpip"),
    "rope": ("i", "pillllpppiplp"),
    "kv_write": ("i", "ppilllpplllplppp"),
    "rope_kv_write": ("i", "pilllppipplllplppp"),
    "attention_workspace": ("l", "lllll"),
    "attention": ("i", "pillllfflipplllplppplpplp"),
    "attention_scores": ("i", "pillllfflpplllplppp"),
    "attention_values": ("i", "pillllpplllplpplplp"),
    "softmax": ("i", "pllpp"),
    "logsumexp": ("i", "pllpp"),
    "log_softmax": ("i", "pllpp"),
    "cross_entropy": ("i", "piplllfpppp"),
    "normalize_backward": ("i", "pppllppp"),
    "rms_scale_backward": ("i", "pppllpp"),
    "rms_norm_backward": ("i", "pipipllfpp"),
    "softmax_backward": ("i", "ppllpp"),
    "soft_cap_backward": ("i", "pplfpp"),
    "gated_act_backward": ("i", "ippplippp"),
    "attention_key_sums": ("i", "ppilllllpp"),
    "sample": ("i", "pppllppplpp"),
    "sample_edit": ("i", "pllpp"),
    "sample_prepare": ("i", "ppllpppp"),
    "sample_perturbed": ("i", "plpppp"),
    "sample_top": ("i", "pplpp"),
    "sample_before": ("i", "ppplppp"),
    "sample_histogram": ("i", "pppippp"),
    "sample_nth_tie": ("i", "ppppp"),
    "sample_mask": ("i", "ppppp"),
    "sample_typical_sums": ("i", "ppp"),
    "top_k": ("i", "plllppp"),
    "encode_ranges": ("l", "lll"),
    "encode_top_k": ("i", "pllpilplllpppppp"),
    "encode_above": ("i", "pllpilppllppp"),
    "weighted_sums": ("i", "ppplplppp"),
    "gathered_dots": ("i", "pppllplpp"),
    "sums_of_squares": ("i", "pllpp"),
    "unit_rows": ("i", "pllp"),
}
"""The types that each function of csrc/cuda/library.h returns and takes: pointer, int, int64
(long), float, string."""


class CudaUnavailable(RuntimeError):
    """A GPU was asked for where none can be used; the text says what is missing."""


class CudaError(RuntimeError):
    """A kernel that could not be launched."""


class Library:
    """The functions of one build, on one device. Kernels run on torch's current stream there."""

    def __init__(self, path: Path, device: torch.device) -> None:
        """Raises OSError for a file that cannot be loaded, CudaUnavailable for one of other
        numerics."""
        self.device = device
        self._functions = _functions(ctypes.CDLL(str(path)))
        found = self._functions["numerics_version"]().decode()
        if found != _core.numerics_version:
            raise CudaUnavailable(
                f"no CUDA build of numerics version {_core.numerics_version}: {path.name} has "
                f"version {found}; build both from the same source"
            )

    def value(self, name: str, *arguments: int) -> Any:
        """Returns the result of a function that launches nothing."""
        found = self._functions[name](*arguments)
        return found.decode() if isinstance(found, bytes) else found

    def launch(self, name: str, *arguments: Any) -> None:
        """Calls a kernel with tensors for pointers, None for null.

        Raises:
            ValueError: a tensor on another device.
            CudaError: it could not be launched.
        """
        values = [self._pointer(name, x) if isinstance(x, torch.Tensor) else x for x in arguments]
        with self.on_device():
            code = self._functions[name](*values, self.stream)
        if code:
            raise CudaError(f"{name}: {self.value('error_text', code)}")

    def launches(self) -> dict[str, int]:
        """Returns the number of launches of each kernel, by name."""
        kernels = range(self.value("kernel_count"))
        return {self.value("kernel_name", i): self.value("launches", i) for i in kernels}

    def _pointer(self, name: str, x: torch.Tensor) -> int:
        if x.device != self.device:
            raise ValueError(f"{name}: a tensor on {x.device}, the kernels run on {self.device}")
        return x.data_ptr()

    def on_device(self) -> AbstractContextManager[Any]:
        """Returns a context in which the device is torch's current one."""
        return torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext()

    @property
    def stream(self) -> int:
        """The handle of the stream that torch calls current on the device."""
        if self.device.type != "cuda":
            return 0
        return int(torch.cuda.current_stream(self.device).cuda_stream)


def _functions(library: ctypes.CDLL) -> dict[str, Callable[..., Any]]:
    functions = {}
    for name, (result, parameters) in SIGNATURES.items():
        function = getattr(library, f"blc_{name}")
        function.restype = _TYPES[result]
        function.argtypes = [_TYPES[p] for p in parameters]
        functions[name] = function
    return functions


@dataclass(frozen=True)
class CudaStatus:
    """The build, the driver and the GPUs of this machine.

    Attributes:
        built: Whether the library is there.
        driver, runtime: CUDA versions, as "13.0"; None where there is none.
        devices: The architecture of each GPU, as "sm_90".
        reason: Why no GPU can be used; None if one can.
    """

    built: bool
    driver: str | None
    runtime: str | None
    devices: tuple[str, ...]
    reason: str | None


def cuda_status() -> CudaStatus:
    """Returns what is known of the CUDA build, the driver and the GPUs. Raises nothing."""
    try:
        library = _open(find_library())
    except CudaUnavailable as missing:
        return CudaStatus(LIBRARY.exists(), None, None, (), str(missing))
    devices = tuple(
        f"sm_{library.value('device_architecture', i)}"
        for i in range(max(0, library.value("device_count")))
    )
    driver, runtime = (_version(library.value(f"{x}_version")) for x in ("driver", "runtime"))
    try:
        require_device(library, 0)
    except CudaUnavailable as missing:
        return CudaStatus(True, driver, runtime, devices, str(missing))
    return CudaStatus(True, driver, runtime, devices, None)


def cuda_launches() -> dict[str, int]:
    """Returns how often each CUDA kernel was launched in this process; empty without a build.

    Kernels of a CUDA graph count when it is captured, not when it is replayed.
    """
    try:
        return _open(find_library()).launches()
    except CudaUnavailable:
        return {}


def cuda_library(device: torch.device) -> Library:
    """Returns the library for a GPU. Raises CudaUnavailable, saying what is missing."""
    path = find_library()
    library = _open(path)
    index = device.index or 0
    require_device(library, index)
    if not torch.cuda.is_available():
        raise CudaUnavailable(
            "no CUDA build of torch, whose tensors the kernels read: install one, or load with "
            'device="cpu"'
        )
    return Library(path, torch.device("cuda", index))


def find_library() -> Path:
    """Returns the library of this bitlens: beside its core, or of an installed bitlens-cuda.

    Raises CudaUnavailable for none, or for one of another version.
    """
    if LIBRARY.exists():
        return LIBRARY
    try:
        installed = importlib.metadata.distribution(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        raise CudaUnavailable(
            f"no CUDA build: bitlens was built without its kernels for GPUs; install "
            f"{DISTRIBUTION} {__version__}, or where nvcc is, run `BITLENS_CUDA=1 python setup.py "
            'build_ext --inplace`, or load with device="cpu" or backend="torch"'
        ) from None
    if installed.version != __version__:
        raise CudaUnavailable(
            f"no CUDA build of bitlens {__version__}: {DISTRIBUTION} {installed.version} is "
            f"installed; install {DISTRIBUTION}=={__version__}"
        )
    return Path(str(installed.locate_file(f"bitlens_cuda/{FILE}")))


@functools.cache
def _open(path: Path) -> Library:
    try:
        return Library(path, torch.device("cpu"))
    except OSError as error:
        raise CudaUnavailable(f"no CUDA build that can be loaded: {error}") from error


def require_device(library: Library, index: int) -> None:
    """Raises CudaUnavailable unless the kernels run on this GPU."""
    driver, runtime = library.value("driver_version"), library.value("runtime_version")
    if driver == 0:
        raise CudaUnavailable(
            'no NVIDIA driver on this machine; load with device="cpu", which has the same bits'
        )
    if driver // 1000 < runtime // 1000:
        raise CudaUnavailable(
            f"driver {_version(driver)} is older than {_version(runtime)}, the CUDA that bitlens "
            "was built with: update the driver (CUDA 13 needs 580 or later), or build with the "
            "older CUDA's nvcc"
        )
    count = library.value("device_count")
    if index >= count:
        raise CudaUnavailable(
            f"no NVIDIA driver that shows a GPU {index}: it shows {max(0, count)}"
        )
    if not library.value("device_is_supported", index):
        architecture = library.value("device_architecture", index)
        raise CudaUnavailable(
            f"architecture sm_{architecture} is not in this build; build with "
            f"BITLENS_CUDA_ARCHS={architecture}"
        )


def _version(number: int) -> str | None:
    return f"{number // 1000}.{number % 1000 // 10}" if number else None
