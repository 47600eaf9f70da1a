"""Makes a probe out of six texts, and has it watch a model while it writes.

python docs/examples/first_alarm.py smollm2-135m-instruct
"""

from __future__ import annotations

import sys

import bitlens
import torch
from bitlens.interp.monitors import Monitor
from bitlens.interp.probes import MeanDifferenceProbe

HOOK = "blocks.15.hook_resid_post"
CAKES = ["Whisk the eggs and sugar.", "Bake the cake for an hour.", "Melt butter, add flour."]
OTHERS = ["The train leaves at nine.", "He wrote a long letter.", "It rained all afternoon."]


def main() -> None:
    model = bitlens.load(*sys.argv[1:2] or ["smollm2-135m-instruct"])
    texts = [*CAKES, *OTHERS]
    caches = [model.run_with_cache(text, names_filter=HOOK)[1] for text in texts]
    means = torch.stack([cache[HOOK][0].mean(0) for cache in caches])
    probe = MeanDifferenceProbe(HOOK).fit(means, [1, 1, 1, 0, 0, 0])
    monitor = Monitor(probe, threshold=0.0)
    prompt = [{"role": "user", "content": "How do I bake a cake?"}]
    answer = model.generate(prompt, max_new_tokens=40, monitors=[monitor])
    print(answer.text[0])
    print(answer.finish_reason[0], [(alarm.position, alarm.score) for alarm in answer.alarms])


if __name__ == "__main__":
    main()
