"""What TransformerLens notebooks do, with only the load line changed.

Each idiom is one function of a model. It runs on TransformerLens's Llama, its norms folded as
`from_pretrained` folds them, and on ours with equal weights; the difference of the numbers must
stay within the sum of both error bounds. To first order these are derivatives of the number by
each operation, from the fp64 path, times the operation's own error (error_bounds.py); what an idiom
computes itself on top of activations is bounded by its number of roundings times the sum of its
terms' magnitudes. Tensor names: B batch, P positions, S components, d d_model, h d_head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import bitlens
import pytest
import torch
import transformer_lens
import transformers
from bitlens.model.hooks.activation_cache import ActivationCache
from bitlens.model.transformer import HookedTransformer
from support.error_bounds import LogitBounds, Rounding
from support.random_models import byte_tokenizer, random_checkpoint
from support.transformer_lens_peer import transformer_lens_llama
from transformer_lens.utilities import get_act_name

Tensor = torch.Tensor

CHECKPOINT = random_checkpoint("llama", tokenizer=byte_tokenizer(prepends_bos=True))
C = CHECKPOINT.config
PROMPT = "To be or not"
CLEAN, CORRUPTED = "Abe", "Bob"
OURS, THEIRS = Rounding(), Rounding(angles=True)


@pytest.fixture(scope="module")
def model() -> HookedTransformer:
    return bitlens.load(CHECKPOINT)


@pytest.fixture(scope="module")
def lens(tmp_path_factory: pytest.TempPathFactory) -> transformer_lens.HookedTransformer:
    lens = transformer_lens_llama(CHECKPOINT, use_attn_result=False, default_prepend_bos=True)
    folder = tmp_path_factory.mktemp("tokenizer")  # TransformerLens makes it anew from its files
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=byte_tokenizer()._backend,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
    ).save_pretrained(folder)
    lens.set_tokenizer(transformers.AutoTokenizer.from_pretrained(folder))
    lens.process_weights_(fold_ln=True, center_writing_weights=False, center_unembed=False)
    return lens.requires_grad_(False)


@dataclass(frozen=True)
class InDouble:
    """Ours in fp64, where what a cache keeps stays in the graph, under the bounds it is given."""

    model: HookedTransformer
    bounds: LogitBounds

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.model(*args, **options)

    def run_with_cache(self, tokens: Any, names_filter: Any = None) -> tuple[Tensor, Any]:
        """All that the idioms read; what the model computes inside other operations, from it."""
        found: dict[str, Tensor] = {}

        def keep(tensor: Tensor, hook: Any) -> None:
            found[hook.name] = tensor

        names = [name for name in self.model.hook_names if name.endswith(READ)]
        logits = self.model.run_with_hooks(tokens, fwd_hooks=[(name, keep) for name in names])
        for i in range(C.n_layers):
            found[f"blocks.{i}.attn.hook_pattern"] = self._pattern(found, f"blocks.{i}.attn")
        resid = found[f"blocks.{C.n_layers - 1}.hook_resid_post"]
        scale = self.model.ops.rms_scale(resid, C.eps)
        found["ln_final.hook_scale"] = self.bounds.inexact(
            scale, lambda rounding: rounding.rms_scale(resid, C.eps)
        )
        return logits, ActivationCache(found, self.model)

    def _pattern(self, found: dict[str, Tensor], attn: str) -> Tensor:
        q, k = (found[f"{attn}.hook_rot_{name}"].transpose(1, 2) for name in "qk")
        hidden = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool).triu(1)
        scores = (q @ k.mT * C.attn_scale).masked_fill(hidden, -torch.inf)

        def off(rounding: Rounding) -> Tensor:
            given = rounding.scores(q, k, C.attn_scale)
            return rounding.softmax(scores, given).masked_fill(hidden, 0.0)

        return self.bounds.inexact(scores.softmax(-1), off)


READ = (
    "resid_pre",
    "resid_post",
    "attn_out",
    "mlp_out",
    "embed",
    "_z",
    "_v",
    "rot_q",
    "rot_k",
    "post",
)


def next_token(model: Any) -> Tensor:
    logits = model(PROMPT)
    return logits[0, -1]


def loss_of_each_token(model: Any) -> Tensor:
    return model(PROMPT, return_type="loss", loss_per_token=True)[0]


def attention_patterns(model: Any) -> Tensor:
    _, cache = model.run_with_cache(PROMPT, names_filter=lambda name: name.endswith("pattern"))
    return cache["pattern", 1][0]


def previous_token_heads(model: Any) -> Tensor:
    _, cache = model.run_with_cache(PROMPT)
    return torch.stack(
        [cache["attn", i].diagonal(-1, dim1=-2, dim2=-1).mean(-1)[0] for i in range(C.n_layers)]
    )


def ablate_a_head(model: Any) -> Tensor:
    def ablate(z: Tensor, hook: Any) -> Tensor:
        z[:, :, 2, :] = 0.0
        return z

    tokens = model.to_tokens(PROMPT)
    logits = model.run_with_hooks(
        tokens, return_type="logits", fwd_hooks=[(get_act_name("z", 1), ablate)]
    )
    return logits[0, -1]


def steer(model: Any) -> Tensor:
    direction = torch.linspace(-1, 1, C.d_model)

    def add(resid: Tensor, hook: Any) -> Tensor:
        return resid + 4 * direction.to(resid.dtype)

    with model.hooks(fwd_hooks=[("blocks.1.hook_resid_post", add)]):
        return model(PROMPT)[0, -1]


def logit_lens(model: Any) -> Tensor:
    _, cache = model.run_with_cache(PROMPT)
    resid, labels = cache.accumulated_resid(apply_ln=True, pos_slice=-1, return_labels=True)
    assert labels == ["0_pre", "1_pre", "2_pre", "final_post"]
    return (resid[:, 0] @ model.W_U)[:, :40]


def direct_logit_attribution(model: Any) -> Tensor:
    _, cache = model.run_with_cache(PROMPT)
    stack, labels = cache.decompose_resid(return_labels=True)
    assert labels[:3] == ["embed", "0_attn_out", "0_mlp_out"]
    return cache.logit_attrs(stack, " ", "e")[:, 0]


def head_attribution(model: Any) -> Tensor:
    tokens = model.to_tokens(PROMPT)
    _, cache = model.run_with_cache(tokens)
    answers = torch.tensor([model.to_single_token("b"), model.to_single_token("!")])
    directions = model.tokens_to_residual_directions(answers)
    heads = cache.stack_head_results(layer=-1, pos_slice=-1)
    scaled = cache.apply_ln_to_stack(heads, layer=-1, pos_slice=-1)
    return scaled[:, 0] @ (directions[0] - directions[1])


def patch_residual_stream(model: Any) -> Tensor:
    clean, corrupted = model.to_tokens(CLEAN), model.to_tokens(CORRUPTED)
    _, clean_cache = model.run_with_cache(clean)
    right, wrong = model.to_single_token("x"), model.to_single_token("y")

    def patch(resid: Tensor, hook: Any, pos: int) -> Tensor:
        resid[:, pos, :] = clean_cache[hook.name][:, pos, :]
        return resid

    found = []
    for layer in range(C.n_layers):
        for pos in range(corrupted.shape[1]):
            hooks = [(get_act_name("resid_pre", layer), partial(patch, pos=pos))]
            logits = model.run_with_hooks(corrupted, fwd_hooks=hooks)
            found.append(logits[0, -1, right] - logits[0, -1, wrong])
    return torch.stack(found)


def neuron_activations(model: Any) -> Tensor:
    _, cache = model.run_with_cache(PROMPT, names_filter=["blocks.2.mlp.hook_post"])
    return cache["post", 2][0, :, :6]


def value_output_circuit(model: Any) -> Tensor:
    _, cache = model.run_with_cache(PROMPT)
    return cache["v", 1][0, -1, 0] @ model.W_O[1, 0]


def size_of_loss(model: InDouble) -> Tensor:
    logits = model(PROMPT)[0]
    return logits[:-1].abs().amax(-1) + logits[:-1].logsumexp(-1).abs()


def size_of_mean(model: InDouble) -> Tensor:
    return previous_token_heads(model)


def size_of_lens(model: InDouble) -> Tensor:
    _, cache = model.run_with_cache(PROMPT)
    resid = cache.accumulated_resid(apply_ln=True, pos_slice=-1)
    return (resid[:, 0].abs() @ model.W_U.abs())[:, :40]


def size_of_attribution(model: InDouble) -> Tensor:
    _, cache = model.run_with_cache(PROMPT)
    stack = cache.apply_ln_to_stack(cache.decompose_resid()).abs()
    directions = [model.tokens_to_residual_directions(token).abs() for token in (" ", "e")]
    return (stack @ (directions[0] + directions[1]))[:, 0]


def size_of_heads(model: InDouble) -> Tensor:
    _, cache = model.run_with_cache(PROMPT)
    z = cache.stack_activation("z")[:, 0, -1].abs()
    heads = torch.einsum("lnh,lnhd->lnd", z, model.W_O.abs()).flatten(0, 1)
    directions = model.tokens_to_residual_directions(torch.tensor([*b"b!"])).abs().sum(0)
    return heads / cache["scale"][0, -1] @ directions


def size_of_difference(model: InDouble) -> Tensor:
    return patch_residual_stream(model).abs()


def size_of_circuit(model: InDouble) -> Tensor:
    _, cache = model.run_with_cache(PROMPT)
    return cache["v", 1][0, -1, 0].abs() @ model.W_O[1, 0].abs()


@dataclass(frozen=True)
class Idiom:
    """An idiom, and of its own arithmetic the number of roundings and the terms' magnitudes."""

    run: Callable[[Any], Tensor]
    roundings: int = 0
    size: Callable[[InDouble], Tensor] | None = None


IDIOMS = [
    Idiom(next_token),
    Idiom(loss_of_each_token, C.d_vocab + 8, size_of_loss),
    Idiom(attention_patterns),
    Idiom(previous_token_heads, len(PROMPT) + 2, size_of_mean),
    Idiom(ablate_a_head),
    Idiom(steer),
    Idiom(logit_lens, 2 * C.d_model + 16, size_of_lens),
    Idiom(direct_logit_attribution, C.d_model + 4, size_of_attribution),
    Idiom(head_attribution, C.d_head + C.d_model + 5, size_of_heads),
    Idiom(patch_residual_stream, 1, size_of_difference),
    Idiom(neuron_activations),
    Idiom(value_output_circuit, C.d_head, size_of_circuit),
]


def bound_of(idiom: Idiom) -> Tensor:
    double = bitlens.load(CHECKPOINT, backend="torch", dtype="fp64")
    bounds = LogitBounds(double, (OURS, THEIRS))
    _, (ours, theirs) = bounds.of(lambda model: idiom.run(InDouble(model, bounds)))
    if idiom.size is None:
        return ours + theirs
    size = idiom.size(InDouble(double, bounds)).detach()
    return ours + theirs + 2 * OURS.gamma(idiom.roundings) * size


@pytest.mark.parametrize("idiom", IDIOMS, ids=lambda idiom: idiom.run.__name__)
def test_an_idiom(idiom: Idiom, model: HookedTransformer, lens: Any) -> None:
    ours, theirs, bound = idiom.run(model), idiom.run(lens), bound_of(idiom)
    assert ours.shape == theirs.shape == bound.shape
    difference = (ours.double() - theirs.double()).abs()
    assert bool((difference <= bound).all()), float((difference / bound).max())
    # The bound says something: it is far below the numbers.
    assert float(bound.norm()) < 1e-2 * float(theirs.norm())


def test_the_bound_tells_another_layer(model: HookedTransformer, lens: Any) -> None:
    def another(model: Any) -> Tensor:
        return model.run_with_cache(PROMPT)[1]["pattern", 0][0]

    bound = bound_of(Idiom(attention_patterns))
    assert bool(((another(model) - attention_patterns(lens)).abs() > bound).any())


def test_tokens_and_strings(model: HookedTransformer, lens: Any) -> None:
    texts = ["Hé llo", "abcdefg"]
    for text in [texts[0], texts]:
        for prepend_bos in (True, False):
            ours = model.to_tokens(text, prepend_bos=prepend_bos)
            assert torch.equal(ours, lens.to_tokens(text, prepend_bos=prepend_bos))
            strings = model.to_str_tokens(text, prepend_bos=prepend_bos)
            assert strings == lens.to_str_tokens(text, prepend_bos=prepend_bos)
    tokens = model.to_tokens(texts)
    assert model.to_string(tokens) == lens.to_string(tokens)
    assert model.to_string(tokens[0]) == lens.to_string(tokens[0])
    assert model.to_str_tokens(tokens[:1]) == lens.to_str_tokens(tokens[:1])
    assert model.to_single_token("a") == lens.to_single_token("a")
    assert model.to_single_str_token(70) == lens.to_single_str_token(70)
    for mode in ("first", "last"):
        found = model.get_token_position("l", texts[0], mode=mode)
        assert found == lens.get_token_position("l", texts[0], mode=mode)


def test_hooks_that_stay(model: HookedTransformer, lens: Any) -> None:
    for each in (model, lens):
        seen: list[str] = []
        hooks = [("blocks.0.hook_mlp_out", lambda tensor, hook, seen=seen: seen.append(hook.name))]
        each.run_with_hooks(PROMPT, fwd_hooks=hooks, reset_hooks_end=False)
        each(PROMPT)
        assert len(seen) == 2
        each.reset_hooks()
        each(PROMPT)
        assert len(seen) == 2
