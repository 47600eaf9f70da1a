"""Generation is repeated forward passes, and a row does not feel the others."""

from __future__ import annotations

import torch
from bitlens.audit.invariance.observation import observe
from bitlens.model.sampling import SamplingParams, sample
from bitlens.model.transformer import HookedTransformer
from invariance.subjects import assert_same, draw_tokens, padded

N_NEW = 8
TEMPERATURE = 20.0  # tied random embeddings favour the token they read; this gives others a chance


def test_greedy_is_the_argmax_of_forward(model: HookedTransformer) -> None:
    ids = draw_tokens(model, 60).tolist()
    out = model.generate(ids, max_new_tokens=N_NEW)
    for _ in range(N_NEW):
        logits_BPV = model(torch.tensor([ids]))
        ids.append(int(logits_BPV[0, -1].argmax()))
    assert out.tokens[0].tolist() == ids


def test_sampling_is_repeated_forward(model: HookedTransformer) -> None:
    prompt = draw_tokens(model, 5).tolist()
    out = model.generate(
        prompt, max_new_tokens=N_NEW, temperature=TEMPERATURE, top_k=50, seed=3, n=3
    )
    for draw in range(3):
        ids = list(prompt)
        for _ in range(N_NEW):
            logits_V = model(torch.tensor([ids]))[0, -1]
            p = SamplingParams(temperature=TEMPERATURE, top_k=50, seed=3)
            chosen = sample(logits_V[None], p, positions=[len(ids)], draws=[draw])
            ids.append(int(chosen.tokens[0]))
        assert out.tokens[draw].tolist() == ids
    assert len({tuple(row.tolist()) for row in out.tokens}) > 1, "the samples do not differ"


def test_rows_do_not_feel_each_other(model: HookedTransformer) -> None:
    prompts = [draw_tokens(model, n, seed=n).tolist() for n in (4, 63, 1, 4, 20)]
    options = {"max_new_tokens": N_NEW, "temperature": TEMPERATURE, "seed": 11}
    alone = [model.generate(ids, n=2, **options).tokens[:, -N_NEW:] for ids in prompts]
    for order in ([0, 1, 2, 3, 4], [4, 2, 0, 1], [3]):
        out = model.generate([prompts[i] for i in order], n=2, **options)
        expected = torch.cat([alone[i] for i in order])
        assert torch.equal(out.tokens[:, -N_NEW:], expected)
    other = model.generate(prompts[0], n=2, **(options | {"seed": 12}))
    assert not torch.equal(other.tokens[:, -N_NEW:], alone[0]), "the seed does nothing"


def test_captured_activations_are_those_of_forward(model: HookedTransformer) -> None:
    prompts = [draw_tokens(model, n, seed=n) for n in (6, 62)]
    names = model.hook_names
    out = model.generate([p.tolist() for p in prompts], max_new_tokens=N_NEW, capture=names)
    for b, prompt in enumerate(prompts):
        tokens_P = out.tokens[b, -N_NEW - len(prompt) : -1]
        assert torch.equal(tokens_P[: len(prompt)], prompt)
        (expected,) = observe(model, tokens_P[None], names)
        n = len(tokens_P)
        for name in names:
            x = out.captured[name][b]
            keys = name.endswith(("hook_attn_scores", "hook_pattern"))
            found = x[:, -n:, -n:] if keys else x[-n:]
            assert_same({name: found}, {name: expected[name]})


def test_padded_tensors_are_lists_of_prompts(model: HookedTransformer) -> None:
    rows = [draw_tokens(model, n, seed=n) for n in (7, 2)]
    expected = model.generate([row.tolist() for row in rows], max_new_tokens=4).tokens[:, -4:]
    for side in ("left", "right"):
        tokens_BP, mask_BP = padded(rows, side)
        out = model.generate(tokens_BP, attention_mask=mask_BP, max_new_tokens=4)
        assert torch.equal(out.tokens[:, -4:], expected)
