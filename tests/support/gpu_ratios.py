"""First ratios of the CUDA kernels on one GPU: shares of what its memory, or another library's
kernel, does in the same run. Reported as found: nothing is asserted.

`python -m support.gpu_ratios`, in tests/, writes build/gpu_ratios.json.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from bitlens.model.build import packed_matrices
from bitlens.model.ops.cuda.kernels import CudaKernels
from bitlens.model.ops.cuda.sampler import sample_rows
from bitlens.model.ops.packed import PackedWeight, pack
from bitlens.model.sampling import SamplingParams
from bitlens.model.sampling.batch import Batch
from bitlens.model.transformer import HookedTransformer
from bitlens.model.weights.checkpoint import Checkpoint, Format, StoredMatrix
from support.cuda_host import host_library, host_model
from support.random_models import CONFIGS, random_checkpoint

RECORD = Path(__file__).resolve().parents[2] / "build" / "gpu_ratios.json"


@dataclass(frozen=True)
class Sizes:
    """Shapes of what is measured.

    Attributes:
        flushed: Bytes that are written between two runs, more than the last cache holds.
    """

    rows: int = 8192
    width: int = 4096
    matrix: int = 4096
    vocabulary: int = 131072
    batch: int = 64
    d_model: int = 4096
    d_mlp: int = 11008
    n_heads: int = 32
    flushed: int = 512 << 20
    repeats: int = 9


@dataclass(frozen=True)
class Bench:
    """Times bodies on the kernels' device."""

    kernels: CudaKernels
    sizes: Sizes

    def draw(self, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        generator = torch.Generator().manual_seed(len(shape))
        return torch.randn(shape, generator=generator).to(self.kernels.device, dtype)

    def seconds(self, body: Callable[[], object]) -> float:
        """The median of runs, each with nothing of its data in the caches."""
        body()
        waste = torch.empty(self.sizes.flushed, dtype=torch.uint8, device=self.kernels.device)
        found = []
        for _ in range(self.sizes.repeats):
            waste.fill_(1)
            self._wait()
            started = time.perf_counter()
            body()
            self._wait()
            found.append(time.perf_counter() - started)
        return statistics.median(found)

    def _wait(self) -> None:
        if self.kernels.device.type == "cuda":
            torch.cuda.synchronize(self.kernels.device)

    def bandwidth(self) -> float:
        """Bytes a second that a copy reads and writes."""
        x = self.draw(self.sizes.rows, self.sizes.width)
        return 2 * 4 * x.numel() / self.seconds(x.clone)


def norm(bench: Bench) -> float:
    """RMS norm: share of a copy's bandwidth."""
    x = bench.draw(bench.sizes.rows, bench.sizes.width, dtype=torch.bfloat16)
    weight = bench.draw(bench.sizes.width)
    took = bench.seconds(lambda: bench.kernels.rms_norm(x, weight, 1e-5, torch.bfloat16))
    return 2 * 2 * x.numel() / took / bench.bandwidth()


def linear_fp32(bench: Bench) -> float:
    """fp32 linear: share of the speed of torch's matmul without TF32."""
    n = bench.sizes.matrix
    x, w = bench.draw(n, n), bench.draw(n, n)
    weight = _packed(bench, w, Format.F32)
    torch.backends.cuda.matmul.allow_tf32 = False
    theirs = bench.seconds(lambda: x @ w.T)
    ours = bench.seconds(
        lambda: bench.kernels.linear(x, weight.data, Format.F32, n, None, torch.float32)
    )
    return theirs / ours


def decode(bench: Bench) -> float:
    """Two layers of the shape of a 7B model, one token: share of what memory could feed."""
    model = host_model(_seven_billion(bench.sizes), "bf16")
    cache, token = model.new_cache(1), torch.tensor([[1]])
    with torch.inference_mode():
        for _ in range(3):
            model(token, kv_cache=cache)
        took = bench.seconds(lambda: model(token, kv_cache=cache))
    return _weight_bytes(model) / took / bench.bandwidth()


def sampler(bench: Bench) -> float:
    """The sampler: how many times what a maximum of the same rows takes."""
    rows, n = bench.sizes.batch, bench.sizes.vocabulary
    logits = bench.draw(rows, n)
    params = SamplingParams(temperature=0.9, top_p=0.95, top_k=50, seed=1)
    batch = Batch.make(params, [0] * rows, None, None, None, size=rows, seeds_must_agree=False)
    ours = bench.seconds(lambda: sample_rows(bench.kernels, logits, batch))
    return ours / bench.seconds(lambda: logits.max(-1))


RATIOS = {each.__name__: each for each in (norm, linear_fp32, decode, sampler)}


def _packed(bench: Bench, w: torch.Tensor, format: Format) -> PackedWeight:
    packed = pack(StoredMatrix(format, *w.shape, w.cpu().contiguous()))
    return PackedWeight(packed.format, packed.n, packed.k, packed.data.to(bench.kernels.device))


def _seven_billion(sizes: Sizes) -> Checkpoint:
    config = CONFIGS["llama"]
    return random_checkpoint(
        "llama", n_layers=2, layers=config.layers[:2], d_model=sizes.d_model, d_mlp=sizes.d_mlp,
        n_heads=sizes.n_heads, n_key_value_heads=sizes.n_heads,
        d_head=sizes.d_model // sizes.n_heads,
    )  # fmt: skip


def _weight_bytes(model: HookedTransformer) -> int:
    matrices = {id(x): x for x in packed_matrices(model.modules()).values()}
    return sum(x.data.numel() for x in matrices.values())


def measured(sizes: Sizes) -> dict[str, object]:
    """Returns the ratios, and what was measured."""
    bench = Bench(CudaKernels(host_library()), sizes)
    ratios = {name: {"what": body.__doc__, "ratio": body(bench)} for name, body in RATIOS.items()}
    return {"device": str(bench.kernels.device), "sizes": asdict(sizes), "ratios": ratios}


if __name__ == "__main__":
    RECORD.parent.mkdir(exist_ok=True)
    RECORD.write_text(json.dumps(measured(Sizes()), indent=1) + "\n")
    print(RECORD.read_text())
