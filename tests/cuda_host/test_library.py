"""The library's door: its C interface, and what is said where something is missing."""

from __future__ import annotations

import copy
import os
import re
import shutil
import subprocess
import sys
import zipfile
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bitlens
import pytest
import torch
from bitlens.model.ops.cuda import CudaError, CudaUnavailable, library
from bitlens.model.ops.cuda.library import SIGNATURES, require_device
from support.cuda_gates import nvcc_release
from support.cuda_host import ROOT, host_kernels, host_library
from support.random_models import random_model

NOWHERE = Path("/nowhere/libbitlens_cuda.so")


def test_the_table_of_functions_is_the_header() -> None:
    header = (ROOT / "csrc/cuda/library.h").read_text()
    declared = re.findall(r"BLC_API ([\w ]+?\*?) ?blc_(\w+)\((.*?)\);", header, re.S)
    codes = {"int": "i", "int64_t": "l", "float": "f"}
    found = {}
    for result, name, text in declared:
        parameters = [p.strip() for p in re.sub(r"\s+", " ", text).split(",") if p.strip()]
        kinds = ["p" if "*" in p else codes[p.split()[0]] for p in parameters]
        found[name] = (codes.get(result, "s"), "".join(kinds))
    assert found == SIGNATURES


def test_without_a_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "LIBRARY", NOWHERE)
    status = bitlens.cuda_status()
    assert (status.built, status.devices, status.driver) == (False, (), None)
    assert str(status.reason).startswith("no CUDA build")
    assert bitlens.cuda_launches() == {}
    for device in ("cuda", "cuda:1"):
        with pytest.raises(
            CudaUnavailable, match=r'^no CUDA build: .*BITLENS_CUDA=1.*device="cpu"'
        ):
            random_model("llama", device=device)


class Machine:
    """The answers of a library on some machine."""

    def __init__(self, **answers: int) -> None:
        self.answers = {"driver_version": 13000, "runtime_version": 13000, "device_count": 1}
        self.answers |= {"device_is_supported": 1, "device_architecture": 90} | answers

    def value(self, name: str, *arguments: int) -> int:
        return self.answers[name]


@pytest.mark.parametrize(
    ("answers", "index", "message"),
    [
        ({"driver_version": 0}, 0, "no NVIDIA driver on this machine"),
        ({"driver_version": 12040}, 0, "driver 12.4 is older than 13.0"),
        ({"device_count": -1}, 0, "no NVIDIA driver that shows a GPU 0"),
        ({}, 3, "no NVIDIA driver that shows a GPU 3: it shows 1"),
        ({"device_is_supported": 0, "device_architecture": 75}, 0, "architecture sm_75 is not in"),
    ],
)
def test_what_is_missing_is_named(answers: dict[str, int], index: int, message: str) -> None:
    machine: Any = Machine(**answers)
    with pytest.raises(CudaUnavailable, match=f"^{message}"):
        require_device(machine, index)


def test_a_machine_that_has_all() -> None:
    machine: Any = Machine()
    require_device(machine, 0)


def test_tensors_on_another_device() -> None:
    with pytest.raises(ValueError, match="add: a tensor on meta, the kernels run on cpu"):
        host_kernels().add(torch.ones(2, device="meta"), torch.ones(2))


def test_kernels_run_on_the_stream_that_is_current(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of another library, too: what torch calls current is asked for at every launch."""
    calls = []
    on_gpu = copy.copy(host_library())
    on_gpu.device = torch.device("cuda", 1)
    on_gpu._functions = {"f": lambda *arguments: calls.append(arguments) or 0}
    streams = iter([SimpleNamespace(cuda_stream=7), SimpleNamespace(cuda_stream=1 << 40)])
    asked = []
    monkeypatch.setattr(torch.cuda, "device", lambda device: asked.append(device) or nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: next(streams))
    for number in (1, 2):
        on_gpu.launch("f", number)
    assert calls == [(1, 7), (2, 1 << 40)]
    assert asked == [on_gpu.device] * 2


def test_a_launch_that_fails_says_why() -> None:
    with pytest.raises(CudaError, match="attention: the workspace does not hold one row"):
        host_library().launch("attention", *_too_small())


def _too_small() -> list[Any]:
    """Attention with a workspace of no float."""
    starts, past = torch.tensor([0, 1]), torch.tensor([0])
    table, x = torch.zeros(1, 1, dtype=torch.int32), torch.ones(64)
    shape = [x, 0, 1, 1, 1, 1, 1.0, 0.0, 0, 0, starts, past, 1, 1, 1]
    return [*shape, table, 1, x, x, x, 1, None, x, 0]


@pytest.mark.parametrize("option", [{"trainable": "full"}, {"group": object()}])
def test_what_a_gpu_cannot_do_yet_is_refused(option: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError), match=r"trainable: no gradients|group"):
        random_model("llama", device="cuda", **option)


def installed(folder: Path, version: str) -> Path:
    """A folder as pip leaves it with bitlens-cuda of a version; returns where its library is."""
    described = folder / f"bitlens_cuda-{version}.dist-info"
    described.mkdir()
    (described / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: bitlens-cuda\nVersion: {version}\n"
    )
    return folder / "bitlens_cuda" / library.FILE


def test_the_distribution_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(library, "LIBRARY", NOWHERE)
    monkeypatch.syspath_prepend(tmp_path)
    path = installed(tmp_path, bitlens.__version__)
    assert library.find_library() == path
    with pytest.raises(CudaUnavailable, match="no CUDA build that can be loaded"):
        library._open(path)


def test_the_distribution_of_another_version(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(library, "LIBRARY", NOWHERE)
    monkeypatch.syspath_prepend(tmp_path)
    installed(tmp_path, "0.0.7")
    with pytest.raises(
        CudaUnavailable, match=r"^no CUDA build of bitlens .*bitlens-cuda 0\.0\.7 is installed"
    ):
        library.find_library()
    assert str(bitlens.cuda_status().reason).startswith("no CUDA build of bitlens")


def built_wheel(folder: Path) -> Path:
    """Builds bitlens-cuda for one architecture; returns the library that its wheel brings."""
    words = ["wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    source = ROOT / "csrc" / "cuda" / "distribution"
    copy = folder / "clone"  # builds leave folders behind
    for name in ("csrc", "version.py"):
        kept = copy / name
        kept.parent.mkdir(exist_ok=True)
        shutil.copytree(ROOT / name, kept) if (ROOT / name).is_dir() else shutil.copy(
            ROOT / name, kept
        )
    subprocess.run(
        [sys.executable, "-m", "pip", *words, str(copy / source.relative_to(ROOT))],
        check=True,
        env=os.environ | {"BITLENS_CUDA_ARCHS": "80"},
    )
    (wheel,) = folder.glob("bitlens_cuda-*-py3-none-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
        (metadata,) = (n for n in archive.namelist() if n.endswith("METADATA"))
        required = f"Requires-Dist: bitlens=={bitlens.__version__}"
        assert required in archive.read(metadata).decode().splitlines()
    return folder / "site" / "bitlens_cuda" / library.FILE


@pytest.mark.nightly
@pytest.mark.skipif(nvcc_release() is None, reason="no nvcc on this machine")
def test_what_nvcc_links_needs_neither_torch_nor_a_cuda_runtime(tmp_path: Path) -> None:
    built = built_wheel(tmp_path)
    needed = subprocess.run(["ldd", built], capture_output=True, text=True, check=True).stdout
    assert not re.search("torch|cudart|python", needed)
    found = library._open(built)
    assert found.value("runtime_version") >= 12000
    if found.value("driver_version") == 0:
        with pytest.raises(CudaUnavailable, match=r"^no NVIDIA driver"):
            require_device(found, 0)
