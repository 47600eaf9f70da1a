"""A transformers model in memory: the bits of saving and loading it, as a copy, or an error."""

from __future__ import annotations

import copy
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bitlens
import pytest
import tokenizers
import torch
import transformers
from bitlens.audit.invariance.observation import n_different
from bitlens.model.sources import open_checkpoint
from bitlens.model.weights.checkpoint import CheckpointError, Format
from support.huggingface_cases import random_weights
from support.huggingface_configs import ARCHITECTURES, FIXED_ROPE, ROPE_OF_LENGTH
from torch import nn

EVERY = {**ARCHITECTURES, **FIXED_ROPE, **ROPE_OF_LENGTH}
TOKENS = torch.arange(12)[None]
DTYPES = {torch.float32: Format.F32, torch.bfloat16: Format.BF16, torch.float16: Format.F16}


@pytest.fixture
def llama() -> transformers.PreTrainedModel:
    return random_weights(copy.deepcopy(ARCHITECTURES["llama"]))


@pytest.mark.parametrize("name", EVERY)
def test_it_is_the_model_that_would_be_saved(name: str, tmp_path: Path) -> None:
    """Every tensor and the whole config, for every architecture and RoPE type."""
    model = random_weights(EVERY[name])
    model.save_pretrained(tmp_path)
    here, there = open_checkpoint(model), open_checkpoint(tmp_path)
    assert here.config == there.config
    assert set(here.names()) == set(there.names())
    for tensor in here.names():
        ours, theirs = here.reader.read(tensor), there.reader.read(tensor)
        assert ours.format == theirs.format
        assert n_different(ours.data, theirs.data) == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_keep_their_dtype(dtype: torch.dtype, llama: Any) -> None:
    model = bitlens.load(llama.to(dtype))
    assert set(model.storage()) == {DTYPES[dtype].name}
    wide = bitlens.load(llama.float())
    assert n_different(model(TOKENS), wide(TOKENS)) == 0


@pytest.mark.parametrize(
    ("backend", "dtype"), [("native", "fp32"), ("torch", "fp32"), ("torch", "fp64")]
)
def test_a_loaded_model_is_a_copy(backend: Any, dtype: str, llama: Any) -> None:
    model = bitlens.load(llama, backend=backend, dtype=dtype)
    before = model(TOKENS).detach().clone()
    with torch.no_grad():
        for x in llama.parameters():
            x.mul_(1.5)
    assert n_different(model(TOKENS).detach(), before) == 0
    again = bitlens.load(llama, backend=backend, dtype=dtype)
    assert n_different(again(TOKENS).detach(), before) > 0


def test_one_tensor_is_copied_at_a_time(llama: Any) -> None:
    reader = open_checkpoint(llama).reader
    name = "blocks.0.mlp.up.weight"
    source = llama.model.layers[0].mlp.up_proj.weight
    first, second = reader.read(name).data, reader.read(name).data
    assert len({x.data_ptr() for x in (first, second, source)}) == 3
    held = [x for x in vars(reader)["tensors"].values() if isinstance(x, torch.Tensor)]
    assert {x.data_ptr() for x in held} == {x.data_ptr() for x in llama.state_dict().values()}


def test_a_model_that_has_run_and_trains_is_still_one(llama: Any) -> None:
    """Recording outputs and gradients leave traces on modules, none on weights."""
    expected = bitlens.load(llama)(TOKENS)
    llama.train()
    llama(TOKENS, output_attentions=True, output_hidden_states=True).logits.sum().backward()
    assert n_different(bitlens.load(llama)(TOKENS), expected) == 0


def test_how_it_computes_attention_does_not_matter() -> None:
    """The implementation may be changed, even to one that the class cannot be built with."""
    model = random_weights(copy.deepcopy(ARCHITECTURES["gemma2, alternating windows"]))
    expected, random_state = bitlens.load(model)(TOKENS), torch.get_rng_state()
    model.config._attn_implementation = "sdpa"
    assert n_different(bitlens.load(model)(TOKENS), expected) == 0
    assert model.config._attn_implementation == "sdpa"
    assert torch.equal(torch.get_rng_state(), random_state)


def test_weights_that_are_not_finite_are_named(llama: Any) -> None:
    with torch.no_grad():
        llama.model.norm.weight[3] = torch.nan
    with pytest.raises(CheckpointError, match=r"in memory: tensor 'ln_final\.weight' holds NaN"):
        bitlens.load(llama)


def test_a_head_of_its_own_is_the_head_whatever_the_config_says(llama: Any) -> None:
    expected = bitlens.load(llama)(TOKENS)
    llama.config.tie_word_embeddings = True
    with pytest.warns(UserWarning, match="LlamaForCausalLM: tie_word_embeddings is true, but"):
        model = bitlens.load(llama)
    assert not model.config.tie_embeddings
    assert n_different(model(TOKENS), expected) == 0
    torch.testing.assert_close(model(TOKENS), llama(TOKENS).logits.detach())
    llama.tie_weights()
    assert bitlens.load(llama).config.tie_embeddings


# What is not the class's own


def _linear(model: Any, module: nn.Module) -> None:
    model.model.layers[1].mlp.up_proj = module


class Doubled(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


class OtherLlama(transformers.LlamaForCausalLM):  # type: ignore[misc]
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return super().forward(*args, **kwargs)


def _quantised(model: Any) -> None:
    model.config.quantization_config = {"quant_method": "bitsandbytes", "load_in_4bit": True}


def _adapted(model: Any) -> None:
    model.peft_config = {"default": object()}


def _replaced_forward(model: Any) -> None:
    mlp = model.model.layers[0].mlp
    mlp.forward = lambda x: x


class Wrapped(torch.Tensor):
    """As torchao's quantised weights and DTensor: a shape and a dtype, the data elsewhere."""

    @classmethod
    def __torch_dispatch__(
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return cls.of(args[0])

    @classmethod
    def of(cls, x: torch.Tensor) -> Any:
        return torch.Tensor._make_wrapper_subclass(cls, x.shape, dtype=x.dtype)


def _wrapped_weight(model: Any) -> None:
    up = model.model.layers[0].mlp.up_proj
    up.weight = nn.Parameter(Wrapped.of(up.weight.detach()), requires_grad=False)


def _hooked(model: Any) -> None:
    model.model.norm.register_forward_hook(lambda module, x, y: y * 2)


def _one_in_fp64(model: Any) -> None:
    model.model.norm.double()


CHANGES: dict[str, tuple[Callable[[Any], object], str]] = {
    "quantised": (_quantised, "quantised by another library; model.dequantize"),
    "adapters": (_adapted, "has adapters.*merge_and_unload"),
    "module": (lambda m: _linear(m, Doubled(40, 72, bias=False)), r"layers\.1\.mlp\.up_proj is a"),
    "identity": (lambda m: _linear(m, nn.Identity()), r"layers\.1\.mlp\.up_proj is a .*Identity"),
    "torch's module": (
        lambda m: setattr(m.model.layers[0].mlp, "act_fn", nn.ReLU()),
        r"layers\.0\.mlp\.act_fn is a torch\.nn\.modules\.activation\.ReLU",
    ),
    "norm": (
        lambda m: setattr(m.model, "norm", nn.RMSNorm(40, eps=1.0)),
        r"model\.norm is a torch\.nn\.modules\.normalization\.RMSNorm",
    ),
    "more modules": (lambda m: m.model.add_module("extra", nn.Dropout()), r"model\.extra is a"),
    "fewer modules": (lambda m: delattr(m.model, "norm"), r"model\.norm is missing"),
    "shape": (lambda m: _linear(m, nn.Linear(40, 71, bias=False)), r"up_proj\.weight has shape"),
    "bias": (lambda m: _linear(m, nn.Linear(40, 72)), r"no use for: model\.layers\.1\.mlp\.up"),
    "forward": (_replaced_forward, r"forward of model\.layers\.0\.mlp was replaced"),
    "hook": (_hooked, r"model\.norm has forward hooks"),
    "fp64": (_one_in_fp64, r"norm\.weight is torch\.float64.*model\.float\(\)"),
    "wrapped": (_wrapped_weight, r"mlp\.up_proj\.weight is a .*Wrapped"),
    "meta": (lambda m: m.to("meta"), "no data"),
    "activation": (lambda m: setattr(m.config, "hidden_act", "relu"), "hidden_act = 'relu'"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_not_known_is_refused(change: str, llama: Any) -> None:
    apply, message = CHANGES[change]
    apply(llama)
    with pytest.raises(CheckpointError, match=f"^LlamaForCausalLM: .*{message}"):
        bitlens.load(llama)


def _swapped_gate(self: Any, x: torch.Tensor) -> torch.Tensor:
    return self.down_proj(self.act_fn(self.up_proj(x)) * self.gate_proj(x))


def _wrapping(forward: Any) -> Any:
    @functools.wraps(forward)
    def doubled(*args: Any, **kwargs: Any) -> Any:
        return 2 * forward(*args, **kwargs)

    return doubled


def test_a_patched_class_is_refused(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Liger and Unsloth patch: the class's forward, or a function that it calls."""
    bitlens.load(llama)
    modeling = transformers.models.llama.modeling_llama
    for owner, name, replacement, message in (
        (
            modeling.LlamaMLP,
            "forward",
            _swapped_gate,
            r"LlamaMLP\.forward was replaced by _sw",
        ),
        (modeling.LlamaMLP, "forward", _wrapping(modeling.LlamaMLP.forward), r"LlamaMLP\.forward"),
        (modeling, "rotate_half", lambda x: x, r"modeling_llama\.rotate_half was replaced by"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, replacement)
            with pytest.raises(CheckpointError, match=message):
                bitlens.load(llama)
    bitlens.load(llama)


def _without_the_theta_of_its_config(model: Any) -> None:
    model.config.rope_parameters = {**model.config.rope_parameters, "rope_theta": 500000.0}


def _other_scale(model: Any) -> None:
    model.model.layers[0].self_attn.scaling *= 2


def _other_epsilon(model: Any) -> None:
    model.model.norm.variance_epsilon = 0.1


def _registered_attention(model: Any) -> None:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    def uncaused(module: Any, q: Any, k: Any, v: Any, mask: Any, **kw: Any) -> Any:
        own = transformers.models.llama.modeling_llama.eager_attention_forward
        return own(module, q, k, v, None if mask is None else 0 * mask, **kw)

    ALL_ATTENTION_FUNCTIONS["eager"] = uncaused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without_the_theta_of_its_config, r"RoPE base 10000 against 500000 at blocks\.0"),
        (_other_scale, r"attention scale .* at blocks\.0\.attn\.attention"),
        (_other_epsilon, r"norm epsilon 0\.1 against .* at ln_final"),
        (_registered_attention, r"blocks\.0\.attn\.attention computes something else"),
    ],
)
def test_what_its_code_makes_of_the_config_is_looked_at(
    change: Callable[[Any], object], message: str, llama: Any
) -> None:
    """The modules are the class's own: only a pass shows it."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    change(llama)
    try:
        with pytest.raises(CheckpointError, match=message):
            bitlens.load(llama)
    finally:
        if "eager" in ALL_ATTENTION_FUNCTIONS:
            del ALL_ATTENTION_FUNCTIONS["eager"]


def test_other_classes_are_refused() -> None:
    config = ARCHITECTURES["llama"]
    for model in (OtherLlama(config), transformers.LlamaModel(config)):
        with pytest.raises(CheckpointError, match="pass a transformers LlamaForCausalLM"):
            bitlens.load(model)
    gpt2 = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=9)
    )
    with pytest.raises(CheckpointError, match="model_type = 'gpt2': supported are llama"):
        bitlens.load(gpt2)


def test_wrapped_models_say_what_to_pass(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrapped in (nn.DataParallel(llama), torch.compile(llama), nn.Linear(2, 2)):
        with pytest.raises(TypeError, match=r"no transformers model; pass the PreTrainedModel"):
            bitlens.load(wrapped)
    monkeypatch.delitem(sys.modules, "transformers")
    with pytest.raises(TypeError, match="no transformers model"):
        bitlens.load(llama)


def test_arguments_for_other_sources_are_refused(llama: Any, tmp_path: Path) -> None:
    llama.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="revision: a model in memory has none"):
        bitlens.load(llama, revision="main")
    with pytest.raises(ValueError, match=r"tokenizer: .* brings its own"):
        bitlens.load(tmp_path, tokenizer=tokenizer())
    with pytest.raises(ValueError, match="a Checkpoint that is open takes neither"):
        bitlens.load(open_checkpoint(llama), tokenizer=tokenizer())


# Its tokenizer


def tokenizer(**options: Any) -> transformers.PreTrainedTokenizerFast:
    vocab = {"<s>": 0, "</s>": 1, "<pad>": 2} | {chr(97 + i): 3 + i for i in range(26)}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=[]))
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 0)]
    )
    backend.enable_truncation(4)
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **names | options)


TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m['content'] }}{{ eos_token }}{% endfor %}"


@pytest.mark.parametrize(
    "options",
    [{}, {"chat_template": TEMPLATE}, {"add_bos_token": False}, {"pad_token": None}],
    ids=repr,
)
def test_a_tokenizer_is_as_from_the_directory(
    options: dict[str, Any], llama: Any, tmp_path: Path
) -> None:
    theirs = tokenizer(**options)
    before = theirs.backend_tokenizer.to_str()
    llama.generation_config.eos_token_id = [1, 7]
    llama.save_pretrained(tmp_path)
    theirs.save_pretrained(tmp_path)
    model = bitlens.load(llama, tokenizer=theirs)
    there = bitlens.load(tmp_path).tokenizer
    assert model.tokenizer is not None
    assert there is not None
    facts = ("bos_id", "eos_ids", "pad_id", "prepends_bos", "chat_template", "n_tokens")
    for fact in facts:
        assert getattr(model.tokenizer, fact) == getattr(there, fact), fact
    assert model.tokenizer.eos_ids == (1, 7)
    assert model.tokenizer.encode("abcdefgh") == there.encode("abcdefgh") == list(range(3, 11))
    if "chat_template" in options:
        messages = [{"role": "user", "content": "hello"}]
        expected = theirs.apply_chat_template(messages, tokenize=False)
        assert model.tokenizer.apply_chat_template(messages) == expected
    assert theirs.backend_tokenizer.to_str() == before
    assert len(model.generate("abc", max_new_tokens=2).text) == 1


def test_a_tokenizer_that_is_none_or_does_not_fit(llama: Any) -> None:
    for other in ("tokenizer", tokenizer().backend_tokenizer, object()):
        with pytest.raises(TypeError, match="expected a fast tokenizer of transformers, got"):
            bitlens.load(llama, tokenizer=other)
    large = tokenizer()
    large.add_tokens([f"<{i}>" for i in range(60)])
    with pytest.raises(CheckpointError, match=r"^\w+/tokenizer\.json: .* vocabulary of 48"):
        bitlens.load(llama, tokenizer=large)
    assert bitlens.load(llama).tokenizer is None
