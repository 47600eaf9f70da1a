"""The torch backend: against Hugging Face and TransformerLens, gradients, inputs and overrides."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from bitlens.model import HookedTransformer, ModelConfig
from support.random_models import (
    CONFIGS,
    byte_tokenizer,
    random_checkpoint,
    random_model,
    random_tensors,
)

TOKENS_BP = torch.randint(0, 256, (2, 9), generator=torch.Generator().manual_seed(1))

HF_CLASSES = {
    "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
    "mistral": (transformers.MistralConfig, transformers.MistralForCausalLM),
    "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
    "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM),
    "gemma2": (transformers.Gemma2Config, transformers.Gemma2ForCausalLM),
    "gemma3": (transformers.Gemma3TextConfig, transformers.Gemma3ForCausalLM),
}
HF_NAMES = {
    "embed": "model.embed_tokens",
    "ln_final": "model.norm",
    "unembed": "lm_head",
    "attn.q": "self_attn.q_proj",
    "attn.k": "self_attn.k_proj",
    "attn.v": "self_attn.v_proj",
    "attn.o": "self_attn.o_proj",
    "attn.q_norm": "self_attn.q_norm",
    "attn.k_norm": "self_attn.k_norm",
    "mlp.gate": "mlp.gate_proj",
    "mlp.up": "mlp.up_proj",
    "mlp.down": "mlp.down_proj",
    "ln1": "input_layernorm",
    "ln2": "post_attention_layernorm",
}
GEMMA_NORMS = {
    "ln1_post": "post_attention_layernorm",
    "ln2": "pre_feedforward_layernorm",
    "ln2_post": "post_feedforward_layernorm",
}


@pytest.fixture(autouse=True)
def _one_torch_thread() -> None:
    """The tensors are tiny: threads would only wait for each other."""
    torch.set_num_threads(1)


def hf_name(name: str, config: ModelConfig) -> str:
    names = HF_NAMES | (GEMMA_NORMS if config.sandwich_norms else {})
    stem, kind = name.rsplit(".", 1)
    if not stem.startswith("blocks."):
        return f"{names[stem]}.{kind}"
    _, layer, stem = stem.split(".", 2)
    return f"model.layers.{layer}.{names[stem]}.{kind}"


def hf_model(architecture: str) -> Any:
    """Hugging Face's model of the same random weights, in fp64 but for its norms and rotary."""
    config = CONFIGS[architecture]
    config_class, model_class = HF_CLASSES[architecture]
    options: dict[str, Any] = {}
    if architecture == "gemma3":
        options = {
            "query_pre_attn_scalar": 12,
            "layer_types": ["sliding_attention"] * 2 + ["full_attention"],
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            },
        }
    elif architecture == "gemma2":
        options = {
            "query_pre_attn_scalar": 12,
            "attn_logit_softcapping": config.attn_logit_softcap,
            "final_logit_softcapping": config.final_logit_softcap,
        }
    elif architecture == "qwen2":
        options = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}
    if (window := config.layers[0].window) is not None:
        options["sliding_window"] = window
    model = model_class(
        config_class(
            hidden_size=config.d_model,
            intermediate_size=config.d_mlp,
            num_hidden_layers=config.n_layers,
            num_attention_heads=config.n_heads,
            num_key_value_heads=config.n_key_value_heads,
            head_dim=config.d_head,
            vocab_size=config.d_vocab,
            max_position_embeddings=config.n_ctx,
            rms_norm_eps=config.eps,
            tie_word_embeddings=config.tie_embeddings,
            attn_implementation="eager",
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=None,
            **options,
        )
    )
    tensors = {hf_name(n, config): x for n, x in random_tensors(config).items()}
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert not unexpected
    assert set(missing) <= ({"lm_head.weight"} if config.tie_embeddings else set())
    return model.double().eval()


@pytest.mark.parametrize("architecture", CONFIGS)
def test_fp64_agrees_with_hugging_face(architecture: str) -> None:
    """`.double()` leaves Hugging Face's norms and rotary in fp32: about 1e-6 of difference."""
    model = random_model(architecture, dtype="fp64", backend="torch")
    with torch.no_grad():
        ours, theirs = model(TOKENS_BP), hf_model(architecture)(TOKENS_BP).logits
    assert ours.dtype == torch.float64
    torch.testing.assert_close(ours, theirs.double(), atol=2e-5, rtol=0)


def model_of(architecture: str = "llama", **options: Any) -> HookedTransformer:
    return random_model(architecture, backend="torch", **options)


@pytest.mark.parametrize("architecture", CONFIGS)
def test_gradients_survive_identity_hooks(architecture: str) -> None:
    model = model_of(architecture, dtype="fp64")
    model(TOKENS_BP, return_type="loss").backward()
    plain = {name: p.grad.clone() for name, p in model.named_parameters()}
    assert all(grad.any() for grad in plain.values())
    for names in (model.hook_names, ["blocks.1.attn.hook_result"], ["blocks.1.hook_q_input"]):
        model.zero_grad()
        hooks = [(name, lambda x, hook: x) for name in names]
        model.run_with_hooks(TOKENS_BP, hooks, return_type="loss").backward()
        for name, p in model.named_parameters():
            torch.testing.assert_close(p.grad, plain[name], atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("architecture", ["gemma2", "gemma3"])
def test_gradients_reach_every_hooked_tensor(architecture: str) -> None:
    """The derivative along a direction, by autograd at the hook and by finite differences."""
    model = model_of(architecture, dtype="fp64")
    for name in (n for n in model.hook_names[1:] if "blocks.0" not in n and "blocks.2" not in n):
        seen: list[torch.Tensor] = []

        def keep(x: torch.Tensor, hook: Any) -> torch.Tensor:
            x.retain_grad()
            seen.append(x)  # noqa: B023
            return x

        model.run_with_hooks(TOKENS_BP, [(name, keep)], return_type="loss").backward()
        (x,) = seen
        assert x.grad is not None, name
        generator = torch.Generator().manual_seed(0)
        direction = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        if name.endswith(("pattern", "scores")):
            direction = direction * (x > 0 if name.endswith("pattern") else x > float("-inf"))
        losses = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                losses.append(
                    model.run_with_hooks(
                        TOKENS_BP,
                        [
                            (
                                name,
                                lambda t, hook, s=step, v=direction: torch.where(
                                    v != 0, t + s * v, t
                                ),
                            )
                        ],
                        return_type="loss",
                    )
                )
        measured = float(losses[0] - losses[1]) / 2e-5
        assert float((x.grad * direction).sum()) == pytest.approx(measured, rel=1e-4, abs=1e-9), (
            name
        )


def test_policies_round_where_they_say() -> None:
    exact = model_of("qwen3", dtype="fp64")
    for dtype, activation, logits in (
        ("fp64", torch.float64, torch.float64),
        ("fp32", torch.float32, torch.float32),
        ("bf16", torch.bfloat16, torch.float32),
    ):
        model = model_of("qwen3", dtype=dtype)
        out, cache = model.run_with_cache(TOKENS_BP)
        compute = torch.float64 if dtype == "fp64" else torch.float32
        assert out.dtype == logits
        for name, x in cache.items():
            wide = name.endswith(("hook_scale", "hook_normalized", "scores", "pattern"))
            expected = compute if wide else logits if name == "unembed.hook_out" else activation
            if "resid" in name or name == "hook_embed":
                expected = compute  # the residual stream, which bf16 does not round
            assert x.dtype == expected, name
        expected_BPV = exact(TOKENS_BP)
        unit = {"fp64": 0, "fp32": 2**-24, "bf16": 2**-9}[dtype]
        error = float((out.double() - expected_BPV).detach().abs().max())
        assert error <= 16 * unit * float(expected_BPV.detach().abs().max())
        assert (error > 0) == (dtype != "fp64")


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_loss_is_over_real_tokens(backend: str) -> None:
    model = random_model("llama", backend=backend)
    mask = torch.ones_like(TOKENS_BP)
    mask[0, :4] = 0
    logits, loss = model(TOKENS_BP, mask, return_type="both")
    log_p = torch.log_softmax(logits[:, :-1], -1).gather(2, TOKENS_BP[:, 1:, None])[..., 0]
    kept = torch.cat([log_p[0, 4:], log_p[1]])
    torch.testing.assert_close(loss, -kept.mean())
    assert torch.equal(model(TOKENS_BP, mask, return_type="loss"), loss)
    assert model(TOKENS_BP, mask, return_type=None) is None
    with pytest.raises(ValueError, match="at least 2 tokens"):
        model(TOKENS_BP[:, :1], return_type="loss")


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_bad_input_is_named(backend: str) -> None:
    model = random_model("llama", backend=backend, tokenizer=byte_tokenizer())
    for error, message, tokens, options in (
        (ValueError, "id 260 is not in the vocabulary", torch.tensor([[1, 260]]), {}),
        (ValueError, "id -1 is not in the vocabulary", torch.tensor([[1, -1]]), {}),
        (ValueError, "beyond the context of 128", torch.zeros(1, 129, dtype=torch.int64), {}),
        (ValueError, "empty prompt", torch.zeros(1, 0, dtype=torch.int64), {}),
        (ValueError, "empty prompt", "", {}),
        (ValueError, "int64", torch.zeros(1, 2), {}),
        (ValueError, "int64", torch.zeros(1, 2, 3, dtype=torch.int64), {}),
        (TypeError, "tokens", [1, 2], {}),
        (ValueError, "return_type", TOKENS_BP, {"return_type": "logit"}),
        (ValueError, "attention_mask", "a", {"attention_mask": torch.ones(1, 1)}),
        (ValueError, "attention_mask", TOKENS_BP, {"attention_mask": torch.zeros(2, 9)}),
    ):
        with pytest.raises(error, match=message):
            model(tokens, **options)
    padding = torch.tensor([[999, 1]])  # never reaches the model
    assert model(padding, torch.tensor([[0, 1]])).shape == (1, 2, 260)


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_every_operation_can_be_observed_and_replaced(backend: str) -> None:
    model = random_model("gemma3", backend=backend)
    plain = model(TOKENS_BP)
    with torch.no_grad():
        for address in model.op_addresses:
            calls: list[int] = []

            def watch(original: Any, *args: Any, calls: list[int] = calls, **kwargs: Any) -> Any:
                calls.append(1)
                return original(*args, **kwargs)

            def zero(original: Any, *args: Any, **kwargs: Any) -> Any:
                return torch.zeros_like(original(*args, **kwargs))

            with model.override(address, watch):
                assert torch.equal(model(TOKENS_BP), plain), address
            with model.override(address, watch), model.override(address, zero):
                assert not torch.equal(model(TOKENS_BP), plain), address
            assert len(calls) == 2, address
        assert torch.equal(model(TOKENS_BP), plain)
    with pytest.raises(KeyError, match=r"blocks\.0\.mlp\.down"):
        model.override("blocks.0.mlp.dwn", watch).__enter__()


def test_text_in_and_out() -> None:
    model = model_of(tokenizer=byte_tokenizer(prepends_bos=True))
    assert model.to_tokens("ab").tolist() == [[256, 97, 98]]
    assert model.to_tokens(["ab", "c"], prepend_bos=False).tolist() == [[97, 98], [258, 99]]
    assert model.to_string(torch.tensor([97, 98])) == "ab"
    assert model.to_string(model.to_tokens(["ab", "c"])) == ["<bos>ab", "<pad><bos>c"]
    assert model.to_str_tokens("ab") == ["<bos>", "a", "b"]
    assert model.to_str_tokens(torch.tensor([[97, 98]])) == ["a", "b"]
    both = model(["ab", "c"])
    torch.testing.assert_close(both[1, 1:], model("c")[0], atol=1e-5, rtol=0)
    last = model.forward_last(["ab", "c"])
    torch.testing.assert_close(last, both[:, -1], atol=1e-5, rtol=0)


def test_what_is_resident() -> None:
    model = model_of("llama", dtype="bf16")
    matrices = sum(p.numel() for p in model.parameters() if p.ndim == 2)
    assert model.storage() == {"bfloat16": 2 * matrices}
    assert model.weight_bytes() == 2 * matrices
    assert model.n_parameters() == sum(p.numel() for p in model.parameters())
    assert random_checkpoint("llama").n_parameters() == model.n_parameters()
