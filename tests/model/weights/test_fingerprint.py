"""A model's fingerprint: one for the same weights and config, however they are stored and run."""

from __future__ import annotations

from pathlib import Path

import bitlens
import pytest
import torch
from bitlens.model.parallel import Group, run_in_threads
from bitlens.model.sources import open_checkpoint
from bitlens.model.weights.architectures import huggingface_name
from support.gguf_writer import write_llama
from support.speaking_llama import write_speaking_llama


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_speaking_llama(tmp_path_factory.mktemp("llama"))


def test_backend_policy_storage_and_ranks_do_not_change_it(folder: Path) -> None:
    expected = bitlens.load(folder).fingerprint()
    assert len(expected) == 64
    for options in (
        {"dtype": "bf16"},
        {"dtype": "hf_bf16"},
        {"dtype": "bf16_weights"},
        {"storage": "fp32"},
        {"backend": "torch"},
        {"backend": "torch", "dtype": "fp64"},
    ):
        assert bitlens.load(folder, **options).fingerprint() == expected, options  # type: ignore[arg-type]

    def on_a_rank(group: Group) -> str:
        return bitlens.load(folder, group=group).fingerprint()

    assert set(run_in_threads(2, on_a_rank, timeout=60)) == {expected}


def test_a_quantised_file_has_that_of_the_values_it_stands_for(tmp_path: Path) -> None:
    import transformers

    file = write_llama(tmp_path / "m.gguf", "Q8_0")
    model = bitlens.load(file)
    c = model.config
    config = transformers.LlamaConfig(
        hidden_size=c.d_model, intermediate_size=c.d_mlp, num_hidden_layers=c.n_layers,
        num_attention_heads=c.n_heads, num_key_value_heads=c.n_key_value_heads, head_dim=c.d_head,
        vocab_size=c.d_vocab, max_position_embeddings=c.n_ctx, rms_norm_eps=c.eps,
        rope_theta=c.layers[0].rope_theta, tie_word_embeddings=c.tie_embeddings,
    )  # fmt: skip
    peer = transformers.LlamaForCausalLM(config)
    checkpoint = open_checkpoint(file)
    with torch.no_grad():
        for name, shape in checkpoint.reader.shapes.items():
            weight = checkpoint.reader.read(name).dequantize().view(shape)
            peer.get_parameter(huggingface_name(name, c)).copy_(weight)
    assert bitlens.load(peer).fingerprint() == model.fingerprint()


def test_one_weight_or_one_setting_changes_it(folder: Path) -> None:
    import transformers

    peer = transformers.LlamaForCausalLM.from_pretrained(folder)
    model = bitlens.load(peer)
    before = model.fingerprint()
    with torch.no_grad():
        peer.model.layers[1].mlp.up_proj.weight[3, 4] += 1e-3
    assert model.fingerprint() == before  # a copy as it was
    assert bitlens.load(peer).fingerprint() != before
    with torch.no_grad():
        peer.model.layers[1].mlp.up_proj.weight[3, 4] -= 1e-3
    peer.config.rms_norm_eps *= 2
    for module in peer.modules():
        if hasattr(module, "variance_epsilon"):
            module.variance_epsilon *= 2
    assert bitlens.load(peer).fingerprint() != before
