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

from bitlens import load
from bitlens.interp.probes import Probe
from bitlens.interp.probes.data import open_dataset
from bitlens.interp.probes.protocol.scoring import score_texts

HERE = Path(__file__).resolve().parent / "bitlens_smollm2_probes"
MARGIN_OF, MARGIN_TOKENS = 100, 64


def main(folders: list[Path]) -> None:
    """Writes each probe with its reports, and the largest distance between bf16 and fp32 scores of
    benign texts as its margin."""
    models = [load("smollm2-135m-instruct", dtype=dtype) for dtype in ("fp32", "bf16")]
    probes = [Probe.load(folder, models[0]) for folder in folders]
    texts = open_dataset("english").take(range(MARGIN_OF))
    fp32, bf16 = (score_texts(model, texts, probes, MARGIN_TOKENS) for model in models)
    for folder, probe, a, b in zip(folders, probes, fp32, bf16, strict=True):
        gaps = [float((x - y).abs().max()) for x, y in zip(a, b, strict=True)]
        probe.metadata_["margin"] = max(gaps)
        probe.metadata_["margin_of"] = (
            f"the largest distance of a bf16 score from its fp32 one on {MARGIN_OF} texts of "
            f"{texts.name}, {sum(map(len, a))} tokens"
        )
        probe.save(HERE / folder.name)
        for name in ("report.json", "report.html"):
            shutil.copyfile(folder / name, HERE / folder.name / name)


if __name__ == "__main__":
    main([Path(folder) for folder in sys.argv[1:]])
