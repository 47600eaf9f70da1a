"""Judges kernels of one's own by a contract: an RMS norm that widens bf16, and one that forgets to.

python docs/examples/first_verdict.py
"""

from __future__ import annotations

import torch
from bitlens.precision import PrecisionContract, check


def norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    wide = x.float()
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return (wide * scale * weight.float()).to(x.dtype)


def narrow_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight


def main() -> None:
    contract = PrecisionContract("rms_norm", storage="bf16")  # bf16 in and out, fp32 between
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 512, generator=generator).bfloat16()
    inputs = {"x": x, "weight": torch.ones(512, dtype=torch.bfloat16), "eps": 1e-6}
    for kernel in (norm, narrow_norm):
        verdict = check(kernel(**inputs), inputs, contract)
        print(f"{kernel.__name__}: {'kept' if verdict.ok else 'broken'}. {verdict.reason}")


if __name__ == "__main__":
    main()
