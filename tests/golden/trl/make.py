"""Makes losses.safetensors with TRL itself.

It brings libraries that bitlens does not need, so what it computes is committed. In an environment
of its own:

    pip install torch==2.13.0 trl==1.16.0 safetensors
    PYTHONPATH=tests python tests/golden/trl/make.py

Keys are "layout/input" and "layout/case/type/loss" or ".../gradient"; the case's name says which
of TRL's losses it is (support/trl_losses.py).
"""

from __future__ import annotations

from pathlib import Path

import torch
import trl
from safetensors.torch import save_file
from support.trl_losses import CASES, LAYOUTS, draw_inputs, trl_loss

TYPES = {"fp64": torch.float64, "fp32": torch.float32}


def main() -> None:
    found = {}
    for layout in LAYOUTS:
        inputs = draw_inputs(layout)
        found |= {f"{layout}/{name}": x for name, x in inputs.items()}
        for name, case in CASES.items():
            for label, dtype in TYPES.items():
                loss, gradient = trl_loss(case, inputs, dtype)
                found[f"{layout}/{name}/{label}/loss"] = loss
                found[f"{layout}/{name}/{label}/gradient"] = gradient
    versions = {"trl": trl.__version__, "torch": torch.__version__}
    save_file(found, Path(__file__).with_name("losses.safetensors"), versions)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
