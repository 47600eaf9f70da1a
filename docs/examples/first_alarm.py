"""Makes a probe out of six texts, and has it watch a model while it writes.

python docs/examples/first_alarm.py smollm2-135m-instruct
"""

from __future__ import annotations

import sys

import bitlens
import torch
from bitlens.interp.monitors import Monitor
from bitlens.interp.probes import MeanDifferenceProbe
from torch.nn.utils.rnn import pad_sequence

HOOK = "blocks.15.hook_resid_post"
CAKES = ["Whisk the eggs and sugar.", "Bake the cake for an hour.", "Melt butter, add flour."]
PROMPT = "Whisk the eggs and sugar, then melt the butter and"
OTHERS = ["The train leaves at nine.", "He wrote a long letter.", "It rained all afternoon."]


def main() -> None:
    model = bitlens.load(*sys.argv[1:2] or ["smollm2-135m-instruct"])
    texts = [*CAKES, *OTHERS]
    rows = [model.run_with_cache(text, names_filter=HOOK)[1][HOOK][0] for text in texts]
    mask = pad_sequence([torch.ones(len(x)) for x in rows], batch_first=True)
    probe = MeanDifferenceProbe(HOOK, skip_first=1)  # the first token's norm dwarfs all others
    probe.fit(pad_sequence(rows, batch_first=True), [1, 1, 1, 0, 0, 0], mask=mask)
    monitor = Monitor(probe, threshold=0.0)
    answer = model.generate(PROMPT, max_new_tokens=40, monitors=[monitor])
    print(answer.text[0])
    print(answer.finish_reason[0], [(alarm.position, alarm.score) for alarm in answer.alarms])


if __name__ == "__main__":
    main()
