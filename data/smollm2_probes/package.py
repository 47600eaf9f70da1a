r"""From finished trainings to the files of this package: probes, reports, and margins for bf16.

bitlens probe train smollm2-135m-instruct pyrit-harm --hook blocks.15.hook_resid_post \
    --benign english -o harm
bitlens probe train smollm2-135m-instruct strongreject+rho-overrefusal \
    --hook blocks.15.hook_resid_post --benign english -o refusal
python data/smollm2_probes/package.py harm refusal
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import torch
from bitlens import load
from bitlens.interp.probes import Probe
from bitlens.interp.probes.data import open_dataset
from bitlens.interp.probes.golden import with_golden_scores
from bitlens.interp.probes.protocol.scoring import score_texts

HERE = Path(__file__).resolve().parent / "bitlens_smollm2_probes"
MARGIN_OF, MARGIN_TOKENS, MARGIN_SHARE = 100, 64, 0.99


def main(folders: list[Path]) -> None:
    """Writes each probe with its reports, its golden scores under both policies, and as its margin
    the distance between bf16 and fp32 that 1% of the scores of benign texts exceed. The largest is
    of a name's massive activations, far from any threshold."""
    models = [load("smollm2-135m-instruct", dtype=dtype) for dtype in ("fp32", "bf16")]
    probes = [Probe.load(folder, models[0]) for folder in folders]
    texts = open_dataset("english").take(range(MARGIN_OF))
    fp32, bf16 = (score_texts(model, texts, probes, MARGIN_TOKENS) for model in models)
    for folder, probe, a, b in zip(folders, probes, fp32, bf16, strict=True):
        gaps = torch.cat([(x - y).abs() for x, y in zip(a, b, strict=True)]).double()
        probe.metadata_["margin"] = float(gaps.quantile(MARGIN_SHARE))
        probe.metadata_["margin_of"] = (
            f"the distance of a bf16 score from its fp32 one that {1 - MARGIN_SHARE:.0%} of "
            f"{len(gaps)} tokens of {MARGIN_OF} texts of {texts.name} exceed; the largest is "
            f"{float(gaps.max()):.3f}"
        )
        for model in models:
            probe.metadata_ = with_golden_scores(probe, model)
        probe.save(HERE / folder.name)
        for name in ("report.json", "report.html"):
            shutil.copyfile(folder / name, HERE / folder.name / name)


if __name__ == "__main__":
    main([Path(folder) for folder in sys.argv[1:]])
