"""Everybody's files: layouts that are written here, parity with SAELens's loaders, refusals."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bitlens.interp.dictionaries import (
    CrossLayerConfig,
    CrossLayerTranscoder,
    Dictionary,
    DictionaryError,
    load_cross_layer,
    load_dictionaries,
    load_dictionary,
)
from bitlens.interp.dictionaries.config import NORMALIZATIONS
from bitlens.interp.dictionaries.formats.flat_yaml import read_flat_yaml
from bitlens.interp.dictionaries.formats.folding import fold_input_scale
from bitlens.interp.dictionaries.formats.npz import read_npz
from bitlens.model.hooks import same_bits
from safetensors.torch import save_file
from support.format_cases import (
    READ,
    D,
    F,
    K,
    U,
    agree,
    dictionary,
    gemma_tensors,
    generator,
    rows,
    same,
)

# Written and read again


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("architecture", ["topk", "topk_transcoder", "topk_skip_transcoder"])
def test_sparsify_round_trips_bit_by_bit(
    architecture: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    d = dictionary(architecture, dtype)
    d.save_model(tmp_path / "layers.3.mlp", "sparsify")
    same(load_dictionary(tmp_path / "layers.3.mlp"), d)


TRANSCODERS = [
    prefix + skip + "transcoder" for prefix in ("", "topk_", "jumprelu_") for skip in ("", "skip_")
]


@pytest.mark.parametrize("architecture", TRANSCODERS)
def test_a_set_of_transcoders_round_trips_bit_by_bit(architecture: str, tmp_path: Path) -> None:
    made = {}
    for layer in (0, 2, 11):
        hooks = {
            n: f"blocks.{layer}.{h}"
            for n, h in (("hook_name", "mlp.hook_in"), ("hook_name_out", "mlp.hook_out"))
        }
        d = dictionary(architecture, torch.bfloat16, **hooks)
        d.save_model(tmp_path, "circuit_tracer")
        made[d.cfg.hook_name] = d
    found = load_dictionaries(tmp_path)
    assert list(found) == list(made)  # by layer, 2 before 11
    for name, d in found.items():
        same(d, made[name])
    same(load_dictionary(tmp_path / "layer_2.safetensors"), made["blocks.2.mlp.hook_in"])
    other = dictionary("topk_transcoder" if "topk" not in architecture else "transcoder")
    with pytest.raises(ValueError, match="activation is"):
        other.save_model(tmp_path, "circuit_tracer")
    with pytest.raises(FileNotFoundError, match="load_dictionaries reads all of it"):
        load_dictionary(tmp_path)


def test_circuit_tracers_formula(tmp_path: Path) -> None:
    """relu(x W_enc' + b_enc) above the threshold, times W_dec, plus b_dec and x W_skip'."""
    g, x = generator(2), rows()
    tensors = {
        "W_enc": torch.randn(F, D, generator=g),
        "W_dec": torch.randn(F, D, generator=g),
        "b_enc": torch.randn(F, generator=g),
        "b_dec": torch.randn(D, generator=g),
        "activation_function.threshold": torch.rand(F, generator=g),
        "W_skip": torch.randn(D, D, generator=g),
    }
    save_file(tensors, tmp_path / "layer_4.safetensors")
    (tmp_path / "config.yaml").write_text(
        "model_name: google/gemma-2-2b  # of Gemma\nmodel_kind: transcoder_set\n"
        "feature_input_hook: \"ln2.hook_normalized\"\nfeature_output_hook: 'hook_mlp_out'\n"
        "transcoders:\n  - hf://a/b/c\n- hf://a/b/d\nscan: null\n"
    )
    d = load_dictionary(tmp_path / "layer_4.safetensors")
    assert (d.cfg.hook_name, d.cfg.hook_name_out) == (
        "blocks.4.ln2.hook_normalized",
        "blocks.4.hook_mlp_out",
    )
    t = {n: w.double() for n, w in tensors.items()}
    pre = x.double() @ t["W_enc"].T + t["b_enc"]
    acts = pre * (pre > t["activation_function.threshold"])
    assert torch.allclose(d.encode(x).double(), acts, rtol=1e-5, atol=1e-5)
    exact = acts @ t["W_dec"] + t["b_dec"] + x.double() @ t["W_skip"].T
    assert torch.allclose(d(x).double(), exact, rtol=1e-4, atol=1e-4)
    tensors["activation_function.threshold"][3] = -0.1
    save_file(tensors, tmp_path / "layer_4.safetensors")
    with pytest.raises(DictionaryError, match="below 0"):
        load_dictionary(tmp_path / "layer_4.safetensors")


def test_a_cross_layer_transcoder_of_circuit_tracer(tmp_path: Path) -> None:
    cfg = CrossLayerConfig(n_layers=2, d_model=D, d_sae=F)
    g = generator()
    tensors = {n: torch.rand(s, generator=g) for n, s in cfg.tensor_shapes().items()}
    CrossLayerTranscoder(cfg, tensors).save_model(tmp_path)
    (tmp_path / "config.yaml").write_text(
        "model_name: tiny\nmodel_kind: cross_layer_transcoder\n"
        "feature_input_hook: hook_resid_mid\nfeature_output_hook: hook_mlp_out\n"
    )
    found = load_cross_layer(tmp_path)
    assert found.cfg.activation == "jumprelu"
    assert found.cfg.feature_input_hook == "hook_resid_mid"
    assert all(same_bits(getattr(found, name), tensors[name]) for name in tensors)
    save_file({**tensors, "W_skip_0": torch.ones(D, D)}, tmp_path / "W_enc_0.safetensors")
    with pytest.raises(DictionaryError, match="has a use for tensor 'W_skip_0'"):
        load_cross_layer(tmp_path)


@pytest.mark.parametrize(
    ("architecture", "format", "message"),
    [
        ("jumprelu", "sparsify", "holds topk dictionaries"),
        ("topk", "circuit_tracer", "holds transcoders"),
        ("topk", "onnx", "expected one of sae_lens, sparsify, circuit_tracer"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(
    architecture: str, format: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        dictionary(architecture).save_model(tmp_path, format)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="takes b_dec from an SAE's input"):
        dictionary("topk", apply_b_dec_to_input=False).save_model(tmp_path, "sparsify")


# SAELens


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
@pytest.mark.parametrize("architecture", ["standard", "topk", "jumprelu", "gated", "abstopk"])
def test_sae_lens_normalises_rows_alike(architecture: str, normalize: str, tmp_path: Path) -> None:
    import sae_lens

    d = dictionary(architecture, normalize_activations=normalize)
    d.save_model(tmp_path)
    theirs = sae_lens.SAE.load_from_disk(tmp_path, device="cpu")
    assert theirs.cfg.normalize_activations == normalize
    agree(d, theirs, rows(), factor=12.0)
    same(load_dictionary(tmp_path), d)
    if normalize != "none":
        with pytest.raises(ValueError, match="needs x"):
            d.decode(d.encode(rows()))
        with pytest.raises(ValueError, match="no gradients"):
            d(rows().requires_grad_())


def test_abstopk_features_have_both_signs() -> None:
    d, x = dictionary("abstopk"), rows()
    acts, pre = d.encode(x), d.pre_activations(x)
    assert ((acts != 0).sum(1) == K).all()
    assert (acts < 0).any()
    assert same_bits(acts[acts != 0], pre[acts != 0])
    assert (
        pre.abs().masked_fill(acts != 0, 0).amax(1) <= pre.abs().masked_fill(acts == 0, 9).amin(1)
    ).all()


@pytest.mark.parametrize("architecture", ["standard", "topk", "jumprelu", "gated"])
@pytest.mark.parametrize("scale", [0.37, 4.0])
def test_a_scaling_is_folded_b_dec_included(
    architecture: str, scale: float, tmp_path: Path
) -> None:
    """Pre-activations of x are those of scale * x before, reconstructions are 1 / scale of them."""
    import sae_lens

    before = dictionary(architecture)
    before.save_model(tmp_path)
    told = json.loads((tmp_path / "cfg.json").read_text())
    told["normalize_activations"] = "expected_average_only_in"
    (tmp_path / "cfg.json").write_text(json.dumps(told))
    with pytest.raises(DictionaryError, match="no norm_scaling_factor"):
        load_dictionary(tmp_path)
    theirs = sae_lens.SAE.load_from_disk(tmp_path, device="cpu")
    theirs.fold_activation_norm_scaling_factor(scale)
    (tmp_path / "cfg.json").write_text(json.dumps(told | {"norm_scaling_factor": scale}))
    folded = load_dictionary(tmp_path)
    assert folded.cfg.normalize_activations == "none"
    x = rows()
    agree(folded, theirs, x, factor=scale)
    scaled = (x.double() * scale).float()
    bound = 8 * (D + F) * U * (1 + float(before.encode(scaled).abs().max()))
    assert ((folded.encode(x) - before.encode(scaled)).abs() <= bound * 10).all()
    assert ((folded(x) - before(scaled) / scale).abs() <= bound * 100 / min(1, scale)).all()
    # The control is the field's own bug: b_dec forgotten.
    tensors = {n: p.detach().clone() for n, p in folded.named_parameters()}
    missed = Dictionary(folded.cfg, tensors | {"b_dec": before.b_dec.detach().clone()})
    assert not ((missed(x) - before(scaled) / scale).abs() <= bound * 100 / min(1, scale)).all()


def test_a_factor_that_is_a_power_of_two_moves_no_bit() -> None:
    tensors = {n: p.detach() for n, p in dictionary("topk", torch.bfloat16).named_parameters()}
    there = fold_input_scale(tensors, 0.25)
    assert there["W_enc"].dtype == torch.bfloat16
    back = fold_input_scale(there, 4.0)
    assert all(same_bits(back[n], x) for n, x in tensors.items())


def test_a_folder_from_before_sae_lens_6(tmp_path: Path) -> None:
    import sae_lens

    d = dictionary("topk")
    d.save_model(tmp_path)
    old = {
        "d_in": D, "d_sae": F, "dtype": "float32", "device": "cpu", "hook_point": READ,
        "model_name": "tiny", "activation_fn_str": "topk", "activation_fn_kwargs": {"k": K},
        "apply_b_dec_to_input": True, "normalize_activations": False, "context_size": 64,
    }  # fmt: skip
    (tmp_path / "cfg.json").write_text(json.dumps(old))
    found = load_dictionary(tmp_path)
    assert (found.cfg.architecture, found.cfg.k, found.cfg.hook_name) == ("topk", K, READ)
    assert found.cfg.metadata == {"model_name": "tiny", "context_size": 64}
    agree(found, sae_lens.SAE.load_from_disk(tmp_path, device="cpu"), rows())


# What is refused


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model_kind: {a: 1}", "more YAML than is read"),
        ("a: &x 1", "more YAML"),
        ("a: 1\na: 2", "'a' appears twice"),
        ("a:\n  b: 1", "expected `name: value`"),
        ("- 1", "expected `name: value`"),
        ("a: 1\n- 2", "which has a value"),
        ('a: "', "line 1"),
        ("a: [[1]]", "plain values"),
        ("{", "not JSON"),
        ("!!python/object/apply:os.system [x]", "line 1"),
    ],
)
def test_more_than_plain_yaml_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(DictionaryError, match=message):
        read_flat_yaml(path)


def test_plain_yaml(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "---\n# a comment\na: 12\nb: 1.5e-3\nc: yes it is # one\nd: 'it''s'\ne: \"#\\n\"\n"
        'f: true\ng:\nh: [1, "x"]\ni:\n- 1\n - hf://a/b#c\n\nj: ~\n'
    )
    assert read_flat_yaml(path) == {
        "a": 12, "b": 1.5e-3, "c": "yes it is", "d": "it's", "e": "#\n", "f": True, "g": None,
        "h": [1, "x"], "i": [1, "hf://a/b#c"], "j": None,
    }  # fmt: skip


def write_npz(path: Path, header: bytes, data: bytes = b"") -> None:
    with zipfile.ZipFile(path, "w") as archive:
        size = len(header).to_bytes(2, "little")
        archive.writestr("W_enc.npy", b"\x93NUMPY\x01\x00" + size + header + data)


def test_arrays_that_are_none_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "params.npz"
    np.savez(path, W_enc=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DictionaryError, match=r"values of type '\|O'"):
        read_npz(path)
    head = b"{'descr': '<f4', 'fortran_order': %s, 'shape': %s}"
    for header, data, message in (
        (head % (b"False", b"(4,)"), b"\0" * 8, "more bytes than there are"),
        (head % (b"False", b"(9999999999, 99)"), b"", "more bytes than there are"),
        (head % (b"False", b"(-1,)"), b"", "shape"),
        (head % (b"True", b"(2,)"), b"\0" * 8, "column by column"),
        (b"__import__('os')", b"", "no description"),
        (b"{'descr': '<i4', 'fortran_order': False, 'shape': (1,)}", b"\0" * 4, "'<i4'"),
    ):
        write_npz(path, header, data)
        with pytest.raises(DictionaryError, match=message):
            read_npz(path)
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(DictionaryError, match=r"no sound \.npz"):
        read_npz(path)
    np.savez(path, a=np.float32([1, 2]), b=np.float16([3]))
    found = read_npz(path)
    assert found["a"].tolist() == [1, 2]
    assert found["b"].dtype == torch.float16


def test_a_pickle_is_refused_with_the_way_to_convert_it(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "ae.pt"):
        (tmp_path / "ae.pt").write_bytes(b"pickle")
        with pytest.raises(
            (FileNotFoundError, DictionaryError), match=r"safetensors\.torch\.save_file"
        ):
            load_dictionary(path)


def test_where_no_name_says_the_hook_it_is_asked_for(tmp_path: Path) -> None:
    np.savez(tmp_path / "params.npz", **{n: x.numpy() for n, x in gemma_tensors().items()})
    with pytest.raises(DictionaryError, match=r"says what it reads|says which layer"):
        load_dictionary(tmp_path)
    dictionary("topk").save_model(tmp_path / "odd", "sparsify")
    told = json.loads((tmp_path / "odd" / "cfg.json").read_text())
    del told["bitlens"]
    (tmp_path / "odd" / "cfg.json").write_text(json.dumps(told))
    with pytest.raises(DictionaryError, match=r"'odd' says which module is read, as layers\.10"):
        load_dictionary(tmp_path / "odd")
    (tmp_path / "odd").rename(tmp_path / "layers.10")
    assert load_dictionary(tmp_path / "layers.10").cfg.hook_name == "blocks.10.hook_resid_post"
