"""The cache by short names, without a batch axis, in parts; what it refuses."""

from __future__ import annotations

import pytest
import torch
from bitlens.model.hooks.activation_cache import ActivationCache
from bitlens.model.transformer import HookedTransformer
from support.random_models import byte_tokenizer, random_model

TOKENS = torch.tensor([[3, 1, 4, 1], [5, 9, 2, 6]])


@pytest.fixture(scope="module")
def model() -> HookedTransformer:
    return random_model("llama", tokenizer=byte_tokenizer(prepends_bos=True))


@pytest.fixture
def cache(model: HookedTransformer) -> ActivationCache:
    return model.run_with_cache(TOKENS)[1]


def test_short_names(cache: ActivationCache) -> None:
    assert cache["pattern", 0] is cache["blocks.0.attn.hook_pattern"]
    assert cache["resid_post", -1] is cache["blocks.2.hook_resid_post"]
    assert cache["scale", 1, "ln2"] is cache["blocks.1.ln2.hook_scale"]
    assert cache["embed"] is cache["hook_embed"]
    assert cache["k2"] is cache["blocks.2.attn.hook_k"]
    assert ("z", 1) in cache
    assert ("z", 7) not in cache
    with pytest.raises(KeyError, match=r"blocks\.0\.attn\.hook_pattern"):
        cache["patern", 0]


def test_the_batch_axis_comes_off_once(model: HookedTransformer) -> None:
    _, batched = model.run_with_cache(TOKENS[:1])
    _, cache = model.run_with_cache(TOKENS[:1], remove_batch_dim=True, device="cpu")
    assert not cache.has_batch_dim
    assert cache.remove_batch_dim() is cache
    for name in batched:
        assert torch.equal(cache[name], batched[name][0])
    with pytest.raises(ValueError, match="2 sequences"):
        model.run_with_cache(TOKENS, remove_batch_dim=True)
    with pytest.raises(ValueError, match="no batch axis"):
        cache.apply_slice_to_batch_dim(0)


def test_some_sequences(cache: ActivationCache) -> None:
    one, some = cache.apply_slice_to_batch_dim(1), cache.apply_slice_to_batch_dim([1])
    assert (one.has_batch_dim, some.has_batch_dim) == (False, True)
    assert torch.equal(one["z", 0], cache["z", 0][1])
    assert torch.equal(some["z", 0], cache["z", 0][1:])
    stack = cache.decompose_resid()
    for part in (1, [1], (1, 2)):
        found = cache.logit_attrs(stack, 7, batch_slice=part)
        expected = cache.logit_attrs(stack, 7)[:, 1:]
        assert torch.equal(found, expected[:, 0] if part == 1 else expected)


def test_to_keeps_the_cache(cache: ActivationCache) -> None:
    assert cache.to("cpu") is cache


def test_what_cannot_be_decomposed(model: HookedTransformer, cache: ActivationCache) -> None:
    with pytest.raises(ValueError, match="layer = 4: the model has 3 layers"):
        cache.accumulated_resid(4)
    with pytest.raises(ValueError, match="mode"):
        cache.decompose_resid(mode="heads")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="layer 0"):
        cache.decompose_resid(0, incl_embeds=False)
    with pytest.raises(ValueError, match="different shapes"):
        cache.logit_attrs(cache.decompose_resid(), torch.tensor([1, 2]), 3)
    _, partial = model.run_with_cache(TOKENS, names_filter="blocks.0.attn.hook_z")
    with pytest.raises(KeyError, match=r"hook_resid_pre"):
        partial.accumulated_resid()


def test_no_layer_has_no_heads(cache: ActivationCache) -> None:
    stack, labels = cache.stack_head_results(0, return_labels=True, incl_remainder=True)
    assert labels == ["remainder"]
    assert torch.equal(stack[0], cache["resid_pre", 0])


def test_losses_of_tokens(model: HookedTransformer) -> None:
    """Padding's own and those of tokens that padding would predict are 0, on either side."""
    mask = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])
    left = model(TOKENS, attention_mask=mask, return_type="loss", loss_per_token=True)
    tokens, flipped = TOKENS.clone(), mask.flip(1)
    tokens[1] = TOKENS[1].roll(2)
    right = model(tokens, attention_mask=flipped, return_type="loss", loss_per_token=True)
    assert torch.equal(left[0], right[0])
    assert left[1].tolist() == [0.0, 0.0, float(right[1, 0])]
    assert right[1, 1:].tolist() == [0.0, 0.0]
    mean = model(TOKENS, attention_mask=mask, return_type="loss")
    torch.testing.assert_close(left.sum() / 4, mean)
    alone = model(TOKENS[:1]).log_softmax(-1)[0, :-1].gather(1, TOKENS[0, 1:, None])[:, 0]
    torch.testing.assert_close(left[0], -alone)


def test_bos_can_be_chosen(model: HookedTransformer) -> None:
    without = model("ab", prepend_bos=False)
    assert torch.equal(without, model(torch.tensor([[97, 98]])))
    assert model("ab").shape[1] == 3
    _, cache = model.run_with_cache("ab", names_filter="hook_embed", prepend_bos=False)
    assert cache["embed"].shape[1] == 2


def test_positions_of_tokens(model: HookedTransformer) -> None:
    assert model.get_token_position("b", "abcb") == 2
    assert model.get_token_position(98, torch.tensor([[97, 98, 98]]), mode="last") == 2
    with pytest.raises(ValueError, match="does not occur"):
        model.get_token_position("z", "abcb")
    with pytest.raises(ValueError, match="one sequence"):
        model.get_token_position("z", TOKENS)
    with pytest.raises(ValueError, match="mode"):
        model.get_token_position("b", "abcb", mode="middle")  # type: ignore[arg-type]
