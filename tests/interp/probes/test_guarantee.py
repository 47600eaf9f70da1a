"""The bound on a threshold's false positives covers as often as it says, and on further text."""

from __future__ import annotations

import math
from itertools import islice
from pathlib import Path

import bitlens
import numpy as np
import numpy.typing as npt
import pytest
import torch
from bitlens.interp.activations.documents import open_text
from bitlens.interp.probes.data import Dataset, Example, open_dataset
from bitlens.interp.probes.protocol import ProbeConfig, train_probe
from bitlens.interp.probes.protocol.alarms import highest
from bitlens.interp.probes.protocol.guarantee import false_positive_guarantee
from bitlens.interp.probes.protocol.scoring import scorable, score_texts
from bitlens.interp.probes.protocol.thresholds import threshold_of
from bitlens.precision.statistics import clopper_pearson, upper_bound

N_SETTING = N_CHECKING = 60
TOKENS = 20
ALIKE = 0.8  # correlation of two tokens of a conversation
BENIGN = Dataset("benign", (Example("a", "a text", 0, "a"),))


def conversations(generator: np.random.Generator, n: int) -> npt.NDArray[np.float64]:
    """Scores [n, TOKENS] whose tokens share a term, so that they are not independent."""
    shared, own = generator.normal(size=(n, 1)), generator.normal(size=(n, TOKENS))
    return math.sqrt(ALIKE) * shared + math.sqrt(1 - ALIKE) * own


def true_rate(threshold: float) -> float:
    """P(a conversation's largest token exceeds it), by Gauss and Hermite over the shared term."""
    z, weight = np.polynomial.hermite_e.hermegauss(80)
    at = (threshold - math.sqrt(ALIKE) * z) / math.sqrt(1 - ALIKE)
    below = np.array([(1 + math.erf(a / math.sqrt(2))) / 2 for a in at])
    return float((weight * (1 - below**TOKENS)).sum() / weight.sum())


def test_the_bound_covers_as_often_as_it_says() -> None:
    """In 400 simulated probes. The controls cover too rarely: the share that was seen, and a bound
    that takes the tokens for independent."""
    covered = dict.fromkeys(("bound", "share", "tokens"), 0)
    for seed in range(400):
        generator = np.random.default_rng(seed)
        setting, checking = (
            list(torch.from_numpy(conversations(generator, n))) for n in (N_SETTING, N_CHECKING)
        )
        threshold = threshold_of(setting, 0.05)
        found = false_positive_guarantee(checking, threshold, BENIGN, TOKENS)
        rate = true_rate(threshold)
        n_above = sum(int((c > threshold).sum()) for c in checking)
        covered["bound"] += rate <= found["at_most"]
        covered["share"] += rate <= found["flagged"] / found["conversations"]
        covered["tokens"] += rate <= upper_bound(n_above, N_CHECKING * TOKENS, 0.95)
    # 95% of 400 is 380; fewer than 365 would be one in a thousand.
    assert covered["bound"] >= 365
    assert covered["share"] < 300
    assert covered["tokens"] < 300


def test_the_bound_counts_conversations() -> None:
    running = [torch.tensor([0.0, 2.0, 2.0, 2.0]), *(torch.zeros(4) for _ in range(58))]
    found = false_positive_guarantee(running, 1.0, BENIGN, 4)
    assert (found["flagged"], found["conversations"], found["tokens"]) == (1, 59, 236)
    assert found["at_most"] == pytest.approx(0.0777, abs=1e-3)
    assert false_positive_guarantee(running[1:], 1.0, BENIGN, 4)["at_most"] == pytest.approx(
        1 - 0.05 ** (1 / 58)
    )
    with pytest.raises(ValueError, match="set no threshold"):
        false_positive_guarantee([], 1.0, BENIGN, 4)


@pytest.mark.nightly
def test_the_bound_holds_on_a_million_further_tokens(smollm2_path: Path) -> None:
    """A probe of the fifth block, so that a million tokens take minutes. Their own rate is known to
    within its interval: the bound fails if that lies above it."""
    model = bitlens.load(smollm2_path)
    benign = open_dataset("english").take(range(600))
    config = ProbeConfig(
        (("blocks.4.hook_resid_post",),), aggregates=("mean",), strengths=(1e-3,), max_tokens=64
    )
    harmful = open_dataset("pyrit-harm")
    found = train_probe(model, harmful, config, benign=benign, target_fpr=0.05)
    guarantee = found.probe.metadata_["guarantee"]
    flagged = conversations_seen = tokens = 0
    # `english` is held out of what dictionaries see; the held-out rest has a quarter of a million.
    documents = islice(open_text(None).documents("train"), None, None, 5)
    while tokens < 1_000_000:
        texts = [t for t in islice(documents, 500) if t.strip()]
        assert texts, "the documents are used up"
        part = Dataset("more", tuple(Example(f"{i}", t, 0, f"{i}") for i, t in enumerate(texts)))
        part = scorable(model, part, config.max_tokens, config.skip_first)
        (running,) = score_texts(model, part, [found.probe], config.max_tokens)
        flagged += int((highest(running) > found.probe.threshold_).sum())
        conversations_seen += len(running)
        tokens += sum(map(len, running))
    rate = clopper_pearson(flagged, conversations_seen, 0.999)
    print(f"{flagged} of {conversations_seen} conversations, {tokens} tokens; {guarantee}")
    assert rate.low <= guarantee["at_most"]
    assert guarantee["at_most"] < 0.25  # it says something
