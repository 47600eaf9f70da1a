"""Weight views, cache methods and patching against TransformerLens's own, on equal weights.

The methods of both get the same activations, so each difference is the error of one method.
"""

from __future__ import annotations

from typing import Any

import bitlens
import pytest
import torch
import transformer_lens
from bitlens.model.hooks import activation_patching as patching
from bitlens.model.hooks.activation_cache import ActivationCache
from bitlens.model.hooks.activation_names import get_act_name
from bitlens.model.transformer import HookedTransformer
from support.error_bounds import Rounding
from support.random_models import byte_tokenizer, random_checkpoint
from support.transformer_lens_peer import transformer_lens_llama
from transformer_lens import patching as their_patching
from transformer_lens.utilities import get_act_name as their_act_name

CHECKPOINT = random_checkpoint("llama", tokenizer=byte_tokenizer(), n_key_value_heads=1)
TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2], [6, 5, 3, 5, 8, 9, 7]])
R = Rounding()
D, H = CHECKPOINT.config.d_model, CHECKPOINT.config.n_heads


@pytest.fixture(scope="module")
def model() -> HookedTransformer:
    return bitlens.load(CHECKPOINT)


@pytest.fixture(scope="module")
def lens() -> transformer_lens.HookedTransformer:
    return transformer_lens_llama(CHECKPOINT, use_attn_result=False)


@pytest.fixture(scope="module")
def folded() -> transformer_lens.HookedTransformer:
    """As `from_pretrained` folds norms into the matrices after them."""
    lens = transformer_lens_llama(CHECKPOINT, use_attn_result=False)
    lens.process_weights_(fold_ln=True, center_writing_weights=False, center_unembed=False)
    return lens.requires_grad_(False)


@pytest.fixture
def cache(model: HookedTransformer) -> ActivationCache:
    return model.run_with_cache(TOKENS)[1]


@pytest.fixture
def theirs(cache: ActivationCache, lens: Any) -> transformer_lens.ActivationCache:
    return transformer_lens.ActivationCache(dict(cache), lens)


WEIGHTS = [
    "W_E",
    "W_U",
    "b_U",
    "W_Q",
    "W_K",
    "W_V",
    "W_O",
    "b_Q",
    "b_K",
    "b_V",
    "b_O",
    "W_gate",
    "W_in",
    "W_out",
    "b_in",
    "b_out",
]


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_are_theirs(name: str, model: HookedTransformer, lens: Any) -> None:
    assert torch.equal(getattr(model, name), getattr(lens, name))


@pytest.mark.parametrize("name", ["W_Q", "W_K", "W_V", "W_O", "b_K"])
def test_so_are_a_block_s(name: str, model: HookedTransformer, lens: Any) -> None:
    block: Any = model.blocks[2]
    assert torch.equal(getattr(block.attn, name), getattr(lens.blocks[2].attn, name))
    assert torch.equal(block.mlp.W_out, lens.blocks[2].mlp.W_out)
    assert torch.equal(block.ln1.w, lens.blocks[2].ln1.w)


def test_cfg(model: HookedTransformer, lens: Any) -> None:
    names = (
        "n_layers d_model n_heads n_key_value_heads d_head d_mlp d_vocab d_vocab_out n_ctx eps"
        " act_fn attn_scale rotary_dim rotary_base normalization_type final_rms gated_mlp attn_only"
        " positional_embedding_type rotary_adjacent_pairs use_attn_scale dtype"
        " use_normalization_before_and_after default_prepend_bos"
    )
    for name in names.split():
        assert getattr(model.cfg, name) == pytest.approx(getattr(lens.cfg, name)), name
    assert model.cfg.device == torch.device(lens.cfg.device)


SHORT = [
    *((name, None, None) for name in ("embed", "scale", "normalized", "k6", "scale4ln1", "pre5")),
    *(
        (name, 2, None)
        for name in [
            "q",
            "k",
            "v",
            "z",
            "rot_q",
            "rot_k",
            "result",
            "pattern",
            "attn_scores",
            "attn",
            "attn_logits",
            "pre",
            "post",
            "pre_linear",
            "resid_pre",
            "resid_mid",
            "resid_post",
            "attn_out",
            "mlp_out",
            "mlp_in",
        ]
    ),
    ("scale", 1, "ln1"),
    ("normalized", 0, "ln2"),
    ("k", 6, "a"),
    ("hook_embed", None, None),
    ("blocks.1.attn.hook_q", None, None),
]


@pytest.mark.parametrize("short", SHORT, ids=str)
def test_short_names(short: tuple[str, int | None, str | None]) -> None:
    assert get_act_name(*short) == their_act_name(*short)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"layer": 0},
        {"layer": 2, "mlp_input": True},
        {"incl_mid": True, "pos_slice": -1},
        {"layer": 1, "apply_ln": True, "pos_slice": (1, 4)},
        {"layer": 1, "apply_ln": True, "mlp_input": True},
    ],
    ids=str,
)
def test_accumulated_resid(arguments: Any, cache: ActivationCache, theirs: Any) -> None:
    ours, labels = cache.accumulated_resid(return_labels=True, **arguments)
    expected, their_labels = theirs.accumulated_resid(return_labels=True, **arguments)
    assert labels == their_labels
    assert torch.equal(ours, expected)


def test_the_logit_lens_norm(cache: ActivationCache, theirs: Any) -> None:
    ours = cache.accumulated_resid(apply_ln=True)
    stack = cache.accumulated_resid().double()
    weight = CHECKPOINT.vector("ln_final.weight").double()
    bound = 2 * R.rms_norm(stack, weight, CHECKPOINT.config.eps)
    assert bool(((ours - theirs.accumulated_resid(apply_ln=True)).double().abs() <= bound).all())


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"layer": 0},
        {"layer": 2, "mlp_input": True},
        {"mode": "mlp", "incl_embeds": False},
        {"mode": "attn", "pos_slice": [0, 3], "apply_ln": True},
        {"layer": 1, "mlp_input": True, "apply_ln": True},
    ],
    ids=str,
)
def test_decompose_resid(arguments: Any, cache: ActivationCache, theirs: Any) -> None:
    ours, labels = cache.decompose_resid(return_labels=True, **arguments)
    expected, their_labels = theirs.decompose_resid(return_labels=True, **arguments)
    assert labels == their_labels
    assert torch.equal(ours, expected)


@pytest.mark.parametrize("layer", [-1, 2])
@pytest.mark.parametrize("pos_slice", [None, -1, (2, 5)], ids=str)
def test_stack_head_results(
    layer: int, pos_slice: Any, model: HookedTransformer, cache: ActivationCache, theirs: Any
) -> None:
    options = {"layer": layer, "pos_slice": pos_slice, "return_labels": True}
    ours, labels = cache.stack_head_results(**options)
    expected, their_labels = theirs.stack_head_results(**options)
    assert labels == their_labels
    size = torch.stack(
        [
            (cache["z", i].double().abs()[..., None] * model.W_O[i].double().abs()).sum(-2)
            for i in range(len(labels) // H)
        ]
    )  # [L, B, P, H, d]
    size = size.movedim(3, 1).flatten(0, 1)
    if pos_slice is not None:
        size = size[:, :, slice(*pos_slice) if isinstance(pos_slice, tuple) else pos_slice]
    bound = 2 * R.gamma(CHECKPOINT.config.d_head + 1) * size
    assert bool(((ours - expected).double().abs() <= bound).all())


def test_head_results_are_what_the_hook_shows(
    model: HookedTransformer, cache: ActivationCache
) -> None:
    names = [f"blocks.{i}.attn.hook_result" for i in range(CHECKPOINT.config.n_layers)]
    _, shown = model.run_with_cache(TOKENS, names_filter=names)
    cache.compute_head_results()
    for name in names:
        assert torch.equal(cache[name].view(torch.int32), shown[name].view(torch.int32))


def test_remainder_and_norm_of_heads(cache: ActivationCache) -> None:
    stack, labels = cache.stack_head_results(return_labels=True, incl_remainder=True, apply_ln=True)
    assert labels[-1] == "remainder"
    whole = cache["resid_post", -1] / cache["scale"]
    torch.testing.assert_close(stack.sum(0), whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["z", "pattern", "resid_pre"])
def test_stack_activation(name: str, cache: ActivationCache, theirs: Any) -> None:
    assert torch.equal(cache.stack_activation(name), theirs.stack_activation(name))
    assert torch.equal(cache.stack_activation(name, 2), theirs.stack_activation(name, 2))


def test_neuron_results(cache: ActivationCache, theirs: Any) -> None:
    options = {"layer": 1, "neuron_slice": [3, 5], "pos_slice": -1}
    assert torch.equal(cache.get_neuron_results(**options), theirs.get_neuron_results(**options))


@pytest.mark.parametrize("fold_ln", [False, True])
@pytest.mark.parametrize(
    ("tokens", "incorrect", "pos_slice"),
    [("a", None, None), (65, 66, None), (torch.tensor([7, 8]), torch.tensor([9, 1]), -1)],
    ids=["text", "difference", "one a sequence"],
)
def test_logit_attrs(
    tokens: Any,
    incorrect: Any,
    pos_slice: Any,
    fold_ln: bool,
    model: HookedTransformer,
    cache: ActivationCache,
    lens: Any,
    folded: Any,
) -> None:
    peer = folded if fold_ln else lens
    given = {"tokens": tokens, "incorrect_tokens": incorrect}
    numbers = {
        key: model.to_single_token(token) if isinstance(token, str) else token
        for key, token in given.items()
    }
    stack = cache.decompose_resid(pos_slice=pos_slice)
    ours = cache.logit_attrs(stack, **given, pos_slice=pos_slice, fold_ln=fold_ln)
    theirs = transformer_lens.ActivationCache(dict(cache), peer)
    expected = theirs.logit_attrs(stack, **numbers, pos_slice=pos_slice)
    scaled = cache.apply_ln_to_stack(stack, pos_slice=pos_slice).double().abs()
    directions = sum(
        model.tokens_to_residual_directions(token, fold_ln=fold_ln).double().abs()
        for token in numbers.values()
        if token is not None
    )
    # Roundings of a product: the direction's fold and difference, the division, the product.
    bound = 2 * R.gamma(D + 4) * (scaled * directions).sum(-1)
    assert ours.shape == expected.shape
    assert bool(((ours - expected).double().abs() <= bound).all())


def test_attributions_add_up_to_the_logit(model: HookedTransformer) -> None:
    logits, cache = model.run_with_cache(TOKENS)
    total = cache.logit_attrs(cache.decompose_resid(), 65).sum(0)
    torch.testing.assert_close(total, logits[..., 65], rtol=1e-5, atol=1e-5)
    unfolded = cache.logit_attrs(cache.decompose_resid(), 65, fold_ln=False).sum(0)
    assert not torch.allclose(unfolded, logits[..., 65], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("tokens", [5, torch.tensor([[4]]), torch.tensor([[1, 2], [3, 4]])])
def test_residual_directions(tokens: Any, model: HookedTransformer, lens: Any) -> None:
    ours = model.tokens_to_residual_directions(tokens, fold_ln=False)
    assert torch.equal(ours, lens.tokens_to_residual_directions(tokens))


def test_without_the_batch_axis(model: HookedTransformer, lens: Any) -> None:
    _, cache = model.run_with_cache(TOKENS[:1], remove_batch_dim=True)
    theirs = transformer_lens.ActivationCache(dict(cache), lens, has_batch_dim=False)
    for name, arguments in (
        ("accumulated_resid", {"layer": 1, "apply_ln": True}),
        ("decompose_resid", {"apply_ln": True, "pos_slice": -1}),
    ):
        found, expected = (getattr(c, name)(**arguments) for c in (cache, theirs))
        assert torch.equal(found, expected)
    assert cache.stack_head_results().shape == theirs.stack_head_results().shape


def metric(logits: torch.Tensor) -> torch.Tensor:
    return (logits[:, -1, 65] - logits[:, -1, 66]).mean()


@pytest.mark.parametrize("name", [n for n in dir(patching) if n.startswith("get_act_patch")])
def test_patching(name: str, model: HookedTransformer) -> None:
    """The same runs as TransformerLens's own functions do on the same model, to the bit."""
    clean, corrupted = TOKENS[:1, :3], TOKENS[1:, :3]
    _, cache = model.run_with_cache(clean)
    ours = getattr(patching, name)(model, corrupted, cache, metric)
    theirs = getattr(their_patching, name)(model, corrupted, cache, metric)
    assert ours.shape == theirs.shape
    assert torch.equal(ours, theirs)
    assert len(ours.unique()) > 1


def test_patching_chosen_indices(model: HookedTransformer) -> None:
    _, cache = model.run_with_cache(TOKENS[:1])
    whole = patching.get_act_patch_resid_pre(model, TOKENS[1:], cache, metric)
    some = patching.generic_activation_patch(
        model,
        TOKENS[1:],
        cache,
        metric,
        patching.layer_pos_patch_setter,
        "resid_pre",
        indices=[(2, 6), (0, 1)],
    )
    assert torch.equal(some, torch.stack([whole[2, 6], whole[0, 1]]))
    with pytest.raises(ValueError, match="either"):
        patching.generic_activation_patch(
            model, TOKENS[1:], cache, metric, patching.layer_pos_patch_setter, "resid_pre"
        )
