"""Attacks rewrite as they say, the search lowers a score, and no text gets out."""

from __future__ import annotations

import base64
import json
import random

import pytest
import torch
from bitlens.interp.probes import LogisticProbe
from bitlens.interp.probes.attack import REWRITES, AttackConfig, attack_probe, hide
from bitlens.interp.probes.causal import causal_check
from bitlens.interp.probes.data import Dataset, Example, LeakError
from bitlens.interp.probes.reading import read, tokenize
from bitlens.model.transformer import HookedTransformer
from support.random_models import byte_tokenizer, random_model

HOOK = "blocks.1.hook_resid_post"
MARKED = "zzqz"
"""What positives say and nothing else does."""


def texts(n: int = 24) -> Dataset:
    source = random.Random(2)
    made = []
    for i in range(n):
        words = ["".join(source.choices("abcdefgh", k=4)) for _ in range(4)]
        made.append(" ".join([*words, MARKED, MARKED] if i % 2 else [*words, "hhaa"]))
    return Dataset("made", tuple(Example(f"m{i}", t, i % 2, f"m{i}") for i, t in enumerate(made)))


@pytest.fixture(scope="module")
def model() -> HookedTransformer:
    return random_model("llama", seed=4, tokenizer=byte_tokenizer())


@pytest.fixture(scope="module")
def probe(model: HookedTransformer) -> LogisticProbe:
    data = texts()
    rows = read(model, tokenize(model, data), [HOOK])[HOOK]
    found = LogisticProbe(HOOK, C=1.0).fit(rows, torch.from_numpy(data.y))
    scores = found.decision_function(rows)
    found.threshold_ = float((scores[data.y == 0].max() + scores[data.y == 1].min()) / 2)
    return found


def test_rewrites_keep_the_matter() -> None:
    text = "How do I make bread? First you need flour. Then use water."
    assert REWRITES["rot13"](REWRITES["rot13"](text)) == text
    assert base64.b64decode(REWRITES["base64"](text)).decode() == text
    assert REWRITES["spaced"](text)[::2] == text
    assert (
        REWRITES["leet"](text).lower()
        == "h0w d0 1 m4k3 br34d? f1r57 y0u n33d fl0ur. 7h3n u53 w473r."
    )
    assert REWRITES["reworded"](text).startswith("what is the way to produce bread?")
    assert REWRITES["listed"](text).splitlines()[0] == "- Then use water."
    assert REWRITES["reworded"](text) in REWRITES["framed"](text)
    assert len({f(text) for f in REWRITES.values()}) == len(REWRITES)


def test_the_search_lowers_the_score_more_than_chance(
    model: HookedTransformer, probe: LogisticProbe
) -> None:
    ids = tokenize(model, texts(), 64).ids[1]
    found = hide(model, probe, ids, n_prefix=4, steps=4, n_tries=8)
    assert found.tries == 1 + 4 * 8
    assert found.after < min(found.before, found.random)
    again = hide(model, probe, ids, n_prefix=4, steps=4, n_tries=8)
    assert again == found
    by_chance = [
        hide(model, probe, ids, n_prefix=4, steps=1, n_tries=1, seed=s).random for s in range(33)
    ]
    assert found.after < min(by_chance)  # as many prefixes, drawn at random
    with pytest.raises(ValueError, match="expected 1"):
        hide(model, probe, ids, steps=0)


def test_an_attack_reports_figures_and_no_text(
    model: HookedTransformer, probe: LogisticProbe, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = AttackConfig(("rot13", "spaced"), n_hidden=2, n_prefix=3, steps=3, n_tries=4)
    report = attack_probe(model, probe, texts(), config)
    assert set(report["rewrites"]) == {"as they are", "rot13", "spaced"}
    plain = report["rewrites"]["as they are"]
    assert plain["auroc"] > 0.9
    assert report["rewrites"]["rot13"]["recall"]["value"] < plain["recall"]["value"]
    search = report["search"]
    assert search["flagged"] == 2
    assert search["tries"] == 2 * (1 + 3 * 4), "what is not flagged is not searched"
    assert search["score_after"] < search["score_before"]
    assert MARKED not in json.dumps(report)
    with pytest.raises(ValueError, match="both classes"):
        attack_probe(model, probe, texts().where(lambda e: e.label == 1), config)
    with pytest.raises(ValueError, match="expected reworded"):
        AttackConfig(("rot14",))
    trained_on = [texts().examples[3].digest()[:16]]
    monkeypatch.setitem(probe.metadata_, "text_digests", trained_on)
    with pytest.raises(LeakError, match="what the probe was trained on, 'm3' among them"):
        attack_probe(model, probe, texts(), config)


def test_a_direction_that_writes_an_answer_is_found_causal(model: HookedTransformer) -> None:
    """The last block's stream along the difference of two tokens' unembeddings says the first of
    them; random directions say neither."""
    hook = f"blocks.{model.config.n_layers - 1}.hook_resid_post"
    probe = LogisticProbe(hook)
    says, rather = [65], [66]
    probe.coef_ = (model.W_U[:, 65] - model.W_U[:, 66]).detach().float()[None].contiguous()
    probe.intercept_ = torch.zeros(1)
    prompts = [[(i * 7 + s) % 250 for i in range(6)] for s in range(12)]
    found = causal_check(model, probe, prompts, says, rather, strength=2.0)
    steered, ablated = found["steered"], found["ablated"]
    assert steered["low"] > max(0, *(abs(c) for c in steered["control"]))
    assert steered["low"] < steered["mean"] < steered["high"]
    # Without the direction little is left of it; the final norm's weights turn it a little.
    assert abs(found["log_odds"] + ablated["mean"]) < 0.1 * abs(found["log_odds"])
    assert max(abs(c) for c in ablated["control"]) < 0.5 * abs(found["log_odds"])
    with pytest.raises(ValueError, match="two prompts"):
        causal_check(model, probe, prompts[:1], says, rather)
    probe.hook_names = ("blocks.0.hook_mlp_out",)
    with pytest.raises(ValueError, match="residual stream"):
        causal_check(model, probe, prompts, says, rather)
