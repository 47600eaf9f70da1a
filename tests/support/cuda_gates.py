"""The output of nvcc for csrc/cuda, held to what the numerics allow: opcodes, registers, memory.

PTX names the rounding of every operation; machine code, where an exact division is approximate
instructions, cannot be judged so. `python -m support.cuda_gates`, in tests/, writes the table of
registers and memory anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from support.cuda_host import ROOT, SOURCES

BUILD = ROOT / "build" / "cuda_gates"
ARCHITECTURES = ("80", "75", "90", "90a", "100", "120")
TABLE = ROOT / "csrc" / "cuda" / "resources.txt"
FLAGS = (ROOT / "csrc" / "cuda" / "nvcc.flags").read_text().split()

_INTEGER = r"[usb](8|16|32|64)"
_ALLOWED = [
    r"(add|sub|mul|fma|div|sqrt|rcp)\.rn\.f(32|64)",
    r"(mov|selp|neg|abs)\.f(32|64)",
    r"setp\.(eq|ne|lt|le|gt|ge|equ|neu|ltu|leu|gtu|geu|num|nan)\.f(32|64)",
    rf"(ld|st)\.(param|global|shared)(\.nc)?(\.v[24])?\.({_INTEGER}|f(32|64))",
    rf"cvt\.rn\.f(32|64)\.[us](8|16|32|64)|cvt\.f64\.f32|cvt\.rn\.f32\.f64|cvt\.{_INTEGER}\.{_INTEGER}",
    rf"(add|sub|addc|subc|mad|madc)(\.lo|\.hi|\.wide)?(\.cc)?\.{_INTEGER}",
    rf"(mul|div|rem|min|max|neg|abs|bfi|bfe|clz|popc|prmt|mov|selp)(\.lo|\.hi|\.wide)?\.{_INTEGER}",
    rf"(and|or|xor|not|mov)\.({_INTEGER}|pred)",
    rf"(shl|shr|shf\.[lr]\.(wrap|clamp))\.{_INTEGER}",
    rf"setp\.(eq|ne|lt|le|gt|ge|lo|ls|hi|hs)(\.and|\.or)?\.{_INTEGER}",
    rf"(atom|red)\.(shared|global)(\.relaxed\.gpu)?\.(add|min|max|and|or)\.{_INTEGER}",
    r"cvta(\.to)?\.(global|shared)\.u64",
    r"shfl\.sync\.(bfly|idx)\.b32|vote\.sync\.ballot\.b32",
    r"bar\.sync|membar\.gl|bra(\.uni)?|ret",
]
_OPCODE = re.compile(r"(?:@!?%\w+\s+)?([a-z][\w.:]*)")


def refused_opcodes(ptx: str) -> set[str]:
    """Returns the opcodes that are none of the exact ones kernels may use."""
    without_lists = re.sub(r"\{[^{};]*\}", "", re.sub(r"//.*", "", ptx))  # of operands
    statements = re.split(r"[;{}\n]", without_lists)
    found = {match[1] for x in statements if (match := _OPCODE.match(x.strip()))}
    return {op for op in found if not any(re.fullmatch(allowed, op) for allowed in _ALLOWED)}


def ptx_of(source: Path, architecture: str, flags: Sequence[str] = FLAGS) -> str:
    """Compiles one file for a virtual architecture; returns its PTX."""
    out = _built(source, f"{architecture}.ptx", flags)
    if not out.exists():
        command = ["nvcc", *flags, f"-I{ROOT / 'csrc'}", f"-arch=compute_{architecture}", "-ptx"]
        _make(out, [*command, "-Werror", "all-warnings", str(source)])
    return out.read_text()


def resources_of(source: Path, architecture: str) -> dict[str, tuple[int, int]]:
    """Assembles one file; returns the registers and bytes of static shared memory of each kernel.

    Fails where registers are spilled or local memory is used.
    """
    ptx_of(source, architecture)
    ptx = _built(source, f"{architecture}.ptx", FLAGS)
    report = ptx.with_suffix(".resources")
    if not report.exists():
        warnings = ["-v", "-warn-spills", "-warn-lmem-usage", "-Werror"]
        command = ["ptxas", f"-arch=sm_{architecture}", *warnings, str(ptx)]
        report.write_text(_make(ptx.with_suffix(".cubin"), command))
    pattern = r"entry function '(\w+)'.*?Used (\d+) registers([^\n]*)"
    entries = re.findall(pattern, report.read_text(), re.S)
    sizes = []
    for _, registers, rest in entries:
        shared = re.search(r"(\d+) bytes smem", rest)
        sizes.append((int(registers), int(shared[1]) if shared else 0))
    return dict(zip(_readable([name for name, _, _ in entries]), sizes, strict=True))


def table_lines(architectures: Sequence[str]) -> list[str]:
    """The lines of the committed table for these architectures, sorted."""
    lines = []
    for architecture in architectures:
        for source in SOURCES:
            for kernel, (registers, shared) in resources_of(source, architecture).items():
                lines.append(f"sm_{architecture} {kernel}: {registers} registers, {shared} bytes")
    return sorted(lines)


def nvcc_release() -> str | None:
    """The release of nvcc, such as "13.0"; None where there is none."""
    if shutil.which("nvcc") is None:
        return None
    found = subprocess.run(["nvcc", "--version"], capture_output=True, text=True).stdout
    match = re.search(r"release (\d+\.\d+)", found)
    return match[1] if match else None


def write_table() -> None:
    """Writes the committed table, for every architecture."""
    lines = [f"nvcc {nvcc_release()}", *table_lines(ARCHITECTURES)]
    TABLE.write_text("\n".join(lines) + "\n")


def _readable(mangled: Sequence[str]) -> list[str]:
    """Names of kernels with their template arguments."""
    file_scope = r"\d+_GLOBAL__N__[0-9a-f]+_\d+_\w+?_cu_[0-9a-f]{8}"
    plain = "\n".join(re.sub(file_scope, "12_GLOBAL__N_1", name) for name in mangled)
    done = subprocess.run(["c++filt"], input=plain, capture_output=True, text=True, check=True)
    spaces = r"\(anonymous namespace\)::|bitlens::cuda::|bitlens::spec::|void "
    names = re.sub(spaces, "", done.stdout).splitlines()
    return [x[: x.index(">(") + 1] if ">(" in x else x.split("(")[0] for x in names]


def _built(source: Path, name: str, flags: Sequence[str]) -> Path:
    found = hashlib.sha256(" ".join([str(source), nvcc_release() or "", *flags]).encode())
    headers = [*(ROOT / "csrc/cuda").glob("*.h"), *(ROOT / "csrc/spec").glob("*.h")]
    for path in sorted([source, *headers]):
        found.update(path.read_bytes())
    folder = BUILD / found.hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{source.stem}.{name}"


def _make(out: Path, command: Sequence[str]) -> str:
    """Runs a command that writes a file, which is there whole or not at all."""
    with (out.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        fresh = out.with_suffix(".new")
        done = subprocess.run([*command, "-o", str(fresh)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        fresh.rename(out)
    return done.stdout + done.stderr


if __name__ == "__main__":
    write_table()
