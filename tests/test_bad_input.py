"""Bad input ends in an error that names the file, tensor or argument; nothing is left half done."""

from __future__ import annotations

import gc
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import bitlens
import numpy as np
import pytest
import torch
from bitlens.model.cache.kv_cache import KVCache
from bitlens.model.transformer import HookedTransformer
from bitlens.model.weights.checkpoint import CheckpointError
from safetensors.torch import save_file
from support.gguf_writer import LLAMA_METADATA, Raw, dense, gguf_bytes, llama_tensors
from support.random_models import MemoryReader, byte_tokenizer, random_checkpoint, random_model

N_VOCAB, N_CTX = 260, 128  # of the random models


@pytest.fixture(scope="module", params=["native", "torch"])
def model(request: pytest.FixtureRequest) -> HookedTransformer:
    return random_model("qwen3", backend=request.param, tokenizer=byte_tokenizer())


def ids(*rows: list[int], dtype: torch.dtype = torch.int64) -> torch.Tensor:
    return torch.tensor(rows, dtype=dtype)


BAD_TOKENS = {
    "id beyond the vocabulary": (ids([1, N_VOCAB]), f"tokens: id {N_VOCAB} .* 0 to {N_VOCAB - 1}"),
    "negative id": (ids([1, -1]), "tokens: id -1 is not in the vocabulary"),
    "huge id": (ids([2**62]), "tokens: id"),
    "too many": (torch.zeros(1, N_CTX + 1, dtype=torch.int64), f"129 .*context of {N_CTX}"),
    "no positions": (torch.empty(1, 0, dtype=torch.int64), "tokens: empty prompt"),
    "no rows": (torch.empty(0, 3, dtype=torch.int64), "tokens: empty prompt"),
    "empty text": ("", "tokens: empty prompt"),
    "no texts": ([], "tokens: empty prompt"),
    "one empty text": (["a", ""], "tokens: empty prompt"),
    "int32": (ids([1], dtype=torch.int32), "tokens: expected int64"),
    "floats": (torch.ones(1, 2), "tokens: expected int64"),
    "three axes": (torch.ones(1, 1, 1, dtype=torch.int64), "tokens: expected int64"),
}


@pytest.mark.parametrize("case", BAD_TOKENS)
def test_bad_tokens(model: HookedTransformer, case: str) -> None:
    tokens, message = BAD_TOKENS[case]
    before = model(ids([1, 2, 3]))
    for call in (model, model.run_with_cache, model.run_with_hooks):
        with pytest.raises(ValueError, match=message):
            call(tokens)
    if case != "too many":
        with pytest.raises(ValueError, match=message):
            model.generate(tokens, max_new_tokens=2)
    assert torch.equal(model(ids([1, 2, 3])), before)


def test_the_whole_context_can_be_used(model: HookedTransformer) -> None:
    assert model(torch.zeros(1, N_CTX, dtype=torch.int64)).shape == (1, N_CTX, N_VOCAB)
    out = model.generate([1] * (N_CTX - 2), max_new_tokens=2, min_new_tokens=2)
    assert out.tokens.shape == (1, N_CTX)
    with pytest.raises(ValueError, match=f"max_new_tokens = 3 .* context of {N_CTX}"):
        model.generate([1] * (N_CTX - 2), max_new_tokens=3)


def test_ids_on_padding_are_not_looked_at(model: HookedTransformer) -> None:
    logits = model(ids([-100, 5, 6]), attention_mask=ids([0, 1, 1]))
    assert torch.equal(logits[0, 1:], model(ids([5, 6]))[0])


BAD_MASKS = {
    "shape": (ids([1, 1]), "attention_mask: shape"),
    "values": (ids([1, 1, 2], [1, 1, 1]), "attention_mask: expected only 0 and 1"),
    "nan": (torch.full((2, 3), torch.nan), "attention_mask: expected only 0 and 1"),
    "hole": (ids([1, 1, 1], [1, 0, 1]), "attention_mask: row 1 has a hole"),
    "all padding": (ids([1, 1, 1], [0, 0, 0]), "attention_mask: row 1 is all padding"),
}


@pytest.mark.parametrize("case", BAD_MASKS)
def test_bad_masks(model: HookedTransformer, case: str) -> None:
    mask, message = BAD_MASKS[case]
    tokens = ids([1, 2, 3], [4, 5, 6])
    with pytest.raises(ValueError, match=message):
        model(tokens, attention_mask=mask)
    with pytest.raises(ValueError, match=message):
        model.generate(tokens, attention_mask=mask, max_new_tokens=1)


BAD_OPTIONS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"return_type": "logit"}, ValueError, "return_type = 'logit'"),
    ({"return_type": "loss"}, ValueError, "return_type: a loss needs"),
    ({"stop_at_layer": 4}, ValueError, "stop_at_layer = 4: the model has 3 layers"),
]
BAD_SAMPLING: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"max_new_tokens": 0}, ValueError, "max_new_tokens = 0"),
    ({"min_new_tokens": 99}, ValueError, "min_new_tokens = 99"),
    ({"temperature": -1.0}, ValueError, "temperature = -1"),
    ({"temperature": float("nan")}, ValueError, "temperature = nan"),
    ({"top_k": 0}, ValueError, "top_k = 0"),
    ({"top_p": 1.5}, ValueError, "top_p = 1.5"),
    ({"seed": -1}, ValueError, "seed = -1"),
    ({"n": 0}, ValueError, "n = 0"),
    ({"stop": ""}, ValueError, "stop: an empty string"),
    ({"capture": "hook_embde"}, KeyError, "'hook_embde': did you mean 'hook_embed'"),
]


@pytest.mark.parametrize(("options", "kind", "message"), BAD_OPTIONS)
def test_bad_options_of_a_pass(
    model: HookedTransformer, options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        model(ids([1]), **options)


@pytest.mark.parametrize(("options", "kind", "message"), BAD_SAMPLING)
def test_bad_options_of_generation(
    model: HookedTransformer, options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        model.generate("a", **options)


def test_unknown_names_come_with_near_ones(model: HookedTransformer) -> None:
    with pytest.raises(KeyError, match=r"did you mean 'blocks\.0\.hook_resid_post'"):
        model.run_with_cache("a", "blocks.0.hook_residpost")
    with pytest.raises(KeyError, match="did you mean 'blocks"):
        model.run_with_hooks("a", [("blocks.3.hook_resid_post", print)])
    with (
        pytest.raises(KeyError, match=r"did you mean 'blocks\.0\.mlp\.down'"),
        model.override("blocks.0.mlp.dwn", print),
    ):
        pass
    with pytest.raises(IndexError, match="pos_slice: position 5 of 1"):
        model.run_with_cache(ids([1]), "hook_embed", 5)


def test_a_pass_that_raises_leaves_cache_and_hooks_alone(model: HookedTransformer) -> None:
    """Prefill, then passes that fail at the start, half way, and at the end; then go on."""
    tokens = ids([3, 1, 4, 1, 5, 9, 2, 6])
    expected = model(tokens)
    kind = model.ops.policy.activation
    cache, reference = (KVCache(model.config, 1, kind) for _ in range(2))
    for each in (cache, reference):
        model(tokens[:, :5], kv_cache=each)

    def fail(tensor: torch.Tensor, hook: Any) -> None:
        raise RuntimeError("from a hook")

    for bad in (ids([N_VOCAB]), torch.zeros(1, N_CTX - 4, dtype=torch.int64), ids([1], [2])):
        with pytest.raises(ValueError, match=r"tokens|kv_cache"):
            model(bad, kv_cache=cache)
    for name in ("hook_embed", "blocks.1.attn.hook_pattern", "unembed.hook_out"):
        with pytest.raises(RuntimeError, match="from a hook"):
            model.run_with_hooks(ids([7] * 70), [(name, fail)], kv_cache=cache)
        assert cache.lengths == [5]
    with pytest.raises(ValueError, match="loss needs"):
        model(ids([7]), kv_cache=cache, return_type="loss")
    logits = model(tokens[:, 5:], kv_cache=reference)
    assert torch.equal(model(tokens[:, 5:], kv_cache=cache), logits)
    assert torch.equal(model(tokens), expected)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"dtype": "fp16"}, ValueError, "dtype = 'fp16': expected one of 'fp32', 'bf16', 'fp64'"),
        ({"dtype": torch.float32}, ValueError, "dtype = torch.float32"),
        ({"dtype": "fp64"}, ValueError, "dtype = 'fp64' .*backend=\"torch\""),
        ({"backend": "mkl"}, ValueError, "backend = 'mkl'"),
        ({"device": "meta"}, ValueError, 'device = "meta": .*backend="torch"'),
        ({"device": "quantum"}, ValueError, "device = 'quantum'"),
        ({"storage": "q3"}, ValueError, "storage = 'q3'"),
        ({"storage": "fp32", "backend": "torch"}, ValueError, "storage: only the native"),
    ],
)
def test_bad_options_of_load(
    tmp_path: Path, options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    """Options are checked before anything is read: there is no such file."""
    with pytest.raises(kind, match=message):
        bitlens.load(tmp_path / "model.gguf", **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this torch has a CUDA device")
def test_a_device_there_is_not() -> None:
    with pytest.raises(ValueError, match='device = "cuda": this torch finds no CUDA device'):
        random_model("llama", backend="torch", device="cuda")


def fails_to_load(source: Any, *messages: str, kind: type[Exception] = CheckpointError) -> None:
    """Loading raises, and the message holds every part."""
    for dtype in ("fp32", "bf16"):
        with pytest.raises(kind) as caught:
            bitlens.load(source, dtype=dtype)
        for part in messages:
            assert part in str(caught.value)
        assert isinstance(caught.value, ValueError | FileNotFoundError)


def write_gguf(path: Path, replaced: Mapping[str, Raw | None] = {}) -> Path:
    tensors = llama_tensors(np.random.default_rng(0)) | dict(replaced)
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    path.write_bytes(gguf_bytes(LLAMA_METADATA, kept))
    return path


def test_missing_files(tmp_path: Path) -> None:
    fails_to_load(tmp_path / "no.gguf", "no.gguf", "alias", kind=FileNotFoundError)
    fails_to_load("smollm2-136m", "smollm2-136m", "smollm2-135m", kind=FileNotFoundError)
    fails_to_load(tmp_path, str(tmp_path), "config.json")
    (tmp_path / "model.bin").write_bytes(b"PK")
    fails_to_load(tmp_path / "model.bin", "model.bin", "pickles are not read")


def test_truncated_gguf(tmp_path: Path) -> None:
    whole = write_gguf(tmp_path / "whole.gguf").read_bytes()
    assert bitlens.load(tmp_path / "whole.gguf")(ids([1, 2])).isfinite().all()
    for n in {0, 3, 4, 24, 100, 1000, len(whole) // 2, len(whole) - 40, len(whole) - 1}:
        cut = tmp_path / "cut.gguf"
        cut.write_bytes(whole[:n])
        fails_to_load(cut, "cut.gguf")


def test_missing_misshapen_and_damaged_tensors_of_a_gguf(tmp_path: Path) -> None:
    wrong = dense(np.ones((96, 32), dtype="f4"))
    nan = np.ones((64, 96), dtype="f4")
    nan[63, 95] = np.nan
    infinite = np.full(64, np.inf, dtype="f4")
    for name, tensor in {
        "blk.0.ffn_up.weight": wrong,
        "blk.0.attn_q.weight": None,
        "blk.0.ffn_down.weight": dense(nan),
        "output_norm.weight": dense(infinite),
        "token_embd.weight": None,
    }.items():
        path = write_gguf(tmp_path / "bad.gguf", {name: tensor})
        fails_to_load(path, "bad.gguf", "" if tensor is not None else name)


def half_loaded_models() -> int:
    gc.collect()
    return sum(type(x) is HookedTransformer for x in gc.get_objects())


@pytest.mark.parametrize("name", ["embed.weight", "blocks.2.mlp.down.weight", "ln_final.weight"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_leave_no_model(name: str, bad: float) -> None:
    """The last tensor read is as deadly as the first."""
    before = half_loaded_models()
    checkpoint = random_checkpoint("llama")
    assert isinstance(checkpoint.reader, MemoryReader)
    checkpoint.reader.tensors[name].view(-1)[-1] = bad  # type: ignore[index]
    fails_to_load(checkpoint, "random llama", name, "NaN or infinity")
    assert half_loaded_models() == before


HUGGING_FACE = {
    "model_type": "llama",
    "vocab_size": 48,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "hidden_act": "silu",
}
LAYER = "model.layers.0."


def huggingface_tensors() -> dict[str, torch.Tensor]:
    shapes = {
        "model.embed_tokens": (48, 32),
        "model.norm": (32,),
        LAYER + "input_layernorm": (32,),
        LAYER + "post_attention_layernorm": (32,),
        LAYER + "self_attn.q_proj": (32, 32),
        LAYER + "self_attn.k_proj": (16, 32),
        LAYER + "self_attn.v_proj": (16, 32),
        LAYER + "self_attn.o_proj": (32, 32),
        LAYER + "mlp.gate_proj": (40, 32),
        LAYER + "mlp.up_proj": (40, 32),
        LAYER + "mlp.down_proj": (32, 40),
    }
    return {f"{name}.weight": torch.full(shape, 0.1) for name, shape in shapes.items()}


def write_directory(
    path: Path, tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any] = HUGGING_FACE
) -> Path:
    (path / "config.json").write_text(json.dumps(dict(config)))
    save_file(dict(tensors), path / "model.safetensors")
    return path


def test_bad_directories(tmp_path: Path) -> None:
    good = huggingface_tensors()
    assert bitlens.load(write_directory(tmp_path, good))(ids([1, 2])).isfinite().all()
    down = LAYER + "mlp.down_proj.weight"
    missing = {name: x for name, x in good.items() if name != down}
    fails_to_load(write_directory(tmp_path, missing), str(tmp_path), down)
    for shape in ((40, 32), (32, 41), (32,)):
        bad = good | {down: torch.full(shape, 0.1)}
        fails_to_load(write_directory(tmp_path, bad), str(tmp_path), down)
    nan = good | {down: torch.full((32, 40), torch.nan)}
    fails_to_load(write_directory(tmp_path, nan), str(tmp_path), "NaN or infinity")
    integers = good | {down: torch.ones(32, 40, dtype=torch.int32)}
    fails_to_load(write_directory(tmp_path, integers), str(tmp_path), down)
    for field, value in {"hidden_size": 0, "hidden_act": "relu", "num_key_value_heads": 3}.items():
        write_directory(tmp_path, good, HUGGING_FACE | {field: value})
        fails_to_load(tmp_path, "config.json", kind=ValueError)
    scaled = HUGGING_FACE | {"rope_scaling": {"rope_type": "yarn", "factor": "two"}}
    fails_to_load(write_directory(tmp_path, good, scaled), "config.json", "factor", kind=ValueError)


def test_truncated_safetensors(tmp_path: Path) -> None:
    file = write_directory(tmp_path, huggingface_tensors()) / "model.safetensors"
    whole = file.read_bytes()
    for n in {0, 7, 8, 100, len(whole) // 2, len(whole) - 1}:
        file.write_bytes(whole[:n])
        fails_to_load(tmp_path, "model.safetensors")


def test_arguments_of_another_kind_are_named() -> None:
    with pytest.raises(TypeError, match="source"):
        bitlens.load(None)  # type: ignore[arg-type]
    model = random_model("llama")
    with pytest.raises(ValueError, match="tokens"):
        model.generate([2**70], max_new_tokens=1)
    with pytest.raises(TypeError, match="stop"):
        model.generate([1, 2], stop=1.5, max_new_tokens=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="attention_mask"):
        model(torch.tensor([[1, 2]]), attention_mask=[[1, 1]])
