"""nvcc's code has only operations whose rounding is fixed, and uses no memory but what is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cuda_gates import (
    ARCHITECTURES,
    FLAGS,
    TABLE,
    nvcc_release,
    ptx_of,
    refused_opcodes,
    resources_of,
    table_lines,
)
from support.cuda_host import SOURCES

pytestmark = pytest.mark.skipif(nvcc_release() is None, reason="no nvcc on this machine")
DEFAULT, NIGHTLY = ARCHITECTURES[:1], ARCHITECTURES[1:]
EVERY = [*DEFAULT, *(pytest.param(a, marks=pytest.mark.nightly) for a in NIGHTLY)]


def test_lists_of_operands_are_no_opcodes() -> None:
    assert not refused_opcodes("{ .reg .b16 tmp; mov.b32 {tmp, %rs5}, %r1; }")
    assert refused_opcodes("{ ld.global.v2.f32 {%f1, %f2}, [%rd1]; ex2.approx.f32 %f1, %f2; }") == {
        "ex2.approx.f32"
    }


@pytest.mark.parametrize("architecture", EVERY)
def test_every_opcode_is_exact(architecture: str) -> None:
    for source in SOURCES:
        ptx = ptx_of(source, architecture)
        assert not refused_opcodes(ptx), source.name
    assert ".rn.f32" in ptx


@pytest.mark.parametrize("architecture", EVERY)
def test_registers_and_shared_memory_are_those_of_the_table(architecture: str) -> None:
    """A change of a kernel changes the table: `make cuda-table`."""
    release, *lines = TABLE.read_text().splitlines()
    if release != f"nvcc {nvcc_release()}":
        pytest.skip(f"the table is of {release}")
    assert table_lines([architecture]) == [x for x in lines if x.startswith(f"sm_{architecture} ")]


def test_the_table_has_every_architecture() -> None:
    stated = {line.split()[0] for line in TABLE.read_text().splitlines()[1:]}
    assert stated == {f"sm_{architecture}" for architecture in ARCHITECTURES}


CONTRACTED = "__global__ void k(float* x) { x[0] = x[1] * x[2] + x[3]; }"
ROUNDED_TWICE = "__global__ void k(float* x) { x[0] = x[1] * x[2]; x[3] = x[1] + x[2]; }"
DIVIDED = "__global__ void k(float* x) { x[0] = x[1] / x[2]; }"


def ptx_from(folder: Path, text: str, flags: list[str]) -> str:
    source = folder / "sample.cu"
    source.write_text(text)
    return ptx_of(source, "80", flags)


def test_our_flags_pass(tmp_path: Path) -> None:
    for text in (CONTRACTED, ROUNDED_TWICE, DIVIDED):
        assert not refused_opcodes(ptx_from(tmp_path, text, FLAGS))


@pytest.mark.parametrize(
    ("text", "flags", "opcode"),
    [
        (ROUNDED_TWICE, [], "mul.f32"),
        (DIVIDED, ["-use_fast_math"], "approx"),
        (CONTRACTED, ["-fmad=false", "-ftz=true"], "ftz"),
        ("__global__ void k(float* x) { x[0] = __expf(x[0]); }", FLAGS, "ex2.approx"),
        ("__global__ void k(float* x) { atomicAdd(x, 1.0f); }", FLAGS, "add.f32"),
        (
            "#include <cuda_bf16.h>\n__global__ void k(float* x, __nv_bfloat16* y) "
            "{ y[0] = __float2bfloat16_rz(x[0]); }",
            FLAGS,
            "cvt.rz",
        ),
        (
            "#include <mma.h>\nusing namespace nvcuda::wmma;\n"
            "__global__ void k(const half* a, const half* b, float* c) {\n"
            "  fragment<matrix_a, 16, 16, 16, half, row_major> x;\n"
            "  fragment<matrix_b, 16, 16, 16, half, col_major> y;\n"
            "  fragment<accumulator, 16, 16, 16, float> z;\n"
            "  fill_fragment(z, 0.0f);\n  load_matrix_sync(x, a, 16);\n"
            "  load_matrix_sync(y, b, 16);\n  mma_sync(z, x, y, z);\n"
            "  store_matrix_sync(c, z, 16, mem_row_major);\n}",
            FLAGS,
            "mma",
        ),
    ],
    ids=["defaults", "fast-math", "ftz", "exp", "atomic", "narrowing", "tensor-cores"],
)
def test_what_would_move_bits_is_refused(
    tmp_path: Path, text: str, flags: list[str], opcode: str
) -> None:
    refused = refused_opcodes(ptx_from(tmp_path, text, flags))
    assert any(opcode in op for op in refused), refused


def test_kernels_by_the_defaults_of_nvcc_are_refused() -> None:
    """Some of their products are contracted; the rest say no rounding, so that ptxas may."""
    for source in SOURCES:
        if source.stem in ("norm", "softmax"):
            refused = refused_opcodes(ptx_of(source, "80", ["-std=c++20", "-O3"]))
            assert {"mul.f32", "add.f32"} & refused, refused


def test_opcodes_that_no_compiler_flag_brings() -> None:
    lines = ["mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%f1}, {%r1};"]
    lines += ["\t@%p1 atom.global.add.f32 %f1, [%rd1], %f2;", "red.global.add.f64 [%rd1], %fd1;"]
    lines += ["wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%f1};", "call.uni helper;"]
    lines += ["cvt.rz.f32.f64 %f1, %fd1;", "max.f32 %f1, %f2, %f3;", "ld.local.f32 %f1, [%rd1];"]
    assert len(refused_opcodes("\n".join(lines))) == len(lines)


def test_a_spill_is_an_error(tmp_path: Path) -> None:
    source = tmp_path / "spill.cu"
    source.write_text(
        "__global__ void __launch_bounds__(1024, 2) k(const float* x, float* y) { float a[64];\n"
        "#pragma unroll\nfor (int i = 0; i < 64; ++i) a[i] = x[i * 1024 + threadIdx.x];\n"
        "__syncthreads();\n#pragma unroll\nfor (int i = 0; i < 64; ++i) "
        "y[i * 1024 + threadIdx.x] = a[(i * 7 + 1) % 64] / a[i]; }"
    )
    with pytest.raises(AssertionError, match="spill"):
        resources_of(source, "80")
