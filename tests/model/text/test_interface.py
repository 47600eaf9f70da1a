"""Text in and out of a model where there is one id, or padding that nothing masks."""

from __future__ import annotations

import warnings

import pytest
import torch
from bitlens.model import HookedTransformer
from support.random_models import PAD, byte_tokenizer, random_model


@pytest.fixture(scope="module")
def model() -> HookedTransformer:
    return random_model("llama", tokenizer=byte_tokenizer())


def test_one_id_is_a_sequence_of_one(model: HookedTransformer) -> None:
    for one in ([97], torch.tensor([97]), torch.tensor([[97]]), torch.tensor(97)):
        assert model.to_str_tokens(one) == ["a"]
    for one in ([97], torch.tensor([97]), torch.tensor(97), 97):
        assert model.to_string(one) == "a"
    logits = torch.zeros(300)
    logits[98] = 1
    assert model.to_string(logits.argmax()) == "b"
    with pytest.raises(ValueError, match=r"expected ids \[P\] or \[1, P\], got \[2, 1\]"):
        model.to_str_tokens(torch.tensor([[97], [98]]))


def test_padding_that_nothing_masks_warns(model: HookedTransformer) -> None:
    texts = ["a", "abcdef"]
    tokens = model.to_tokens(texts)
    with pytest.warns(UserWarning, match=f"0 to 5 tokens of id {PAD}.*attention_mask"):
        unmasked = model(tokens)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        masked = model(tokens, attention_mask=(tokens != PAD).long())
        assert torch.equal(masked, model(texts))
        model(tokens[:1])
        model(model.to_tokens(["ab", "cd"]))
    assert not torch.equal(unmasked[0, -1], masked[0, -1])


def test_components_of_padding_are_0(model: HookedTransformer) -> None:
    texts = ["a", "abcdef"]
    _, cache = model.run_with_cache(texts)
    stack = cache.decompose_resid()
    found = cache.logit_attrs(stack, "b")
    assert torch.isfinite(found).all()
    assert not found[:, 0, :5].any()
    alone = model.run_with_cache("a")[1]
    expected = alone.logit_attrs(alone.decompose_resid(), "b")
    assert torch.equal(found[:, 0, 5:], expected[:, 0])
