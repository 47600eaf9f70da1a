"""Evaluation of dictionaries: its definitions in plain fp64, and SAELens's evaluator."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import bitlens
import pytest
import torch
from bitlens.interp.activations import Packing, open_text
from bitlens.interp.dictionaries import Dictionary, DictionaryError
from bitlens.interp.evaluation import (
    EvalResult,
    evaluate,
    random_dictionary,
)
from bitlens.interp.evaluation.evaluated_text import padded_batches
from bitlens.model.transformer import HookedTransformer
from support.judged_dictionaries import (
    CHECKPOINT,
    HOOK,
    MLP_IN,
    MLP_OUT,
    OPTIONS,
    PACKING,
    TEXT,
    D,
    dictionary,
    draw,
    rows_of,
    sequences,
)
from support.random_models import byte_tokenizer, random_checkpoint

FP64 = 1e-9
"""Between two orders of the same sums in fp64."""
FP32 = 1e-4
"""SAELens sums rows of 42 and of 260 values, and log-probabilities, in fp32: at most 260 roundings
of 2^-24 each, on sums up to 6 times their result."""


@pytest.fixture(scope="module")
def model() -> HookedTransformer:
    return bitlens.load(CHECKPOINT)


def exact_dictionary() -> Dictionary:
    """Reconstructs every row bit for bit: a feature for each sign of each dimension."""
    eye = torch.eye(D)
    config = dataclasses.replace(dictionary("standard").cfg, d_sae=2 * D)
    both = torch.cat([eye, -eye])
    tensors = {"W_enc": both.T, "W_dec": both, "b_enc": torch.zeros(2 * D), "b_dec": torch.zeros(D)}
    return Dictionary(config, tensors)


def losses(model: HookedTransformer, logits: list[torch.Tensor]) -> float:
    found = [
        torch.nn.functional.cross_entropy(x[0, :-1].double(), ids[0, 1:], reduction="none")
        for x, ids in zip(logits, sequences(model), strict=True)
    ]
    return math.fsum(torch.cat(found).tolist()) / sum(map(len, found))


def run_replaced(
    model: HookedTransformer, name: str, rows: torch.Tensor, where: torch.Tensor
) -> list[torch.Tensor]:
    """The logits of each sequence with these rows in place of the model's, where the mask says."""
    found, at = [], 0
    for ids in sequences(model):
        span = slice(at, at := at + ids.shape[1])
        new, mask = rows[span], where[span]

        def write(tensor: torch.Tensor, *, hook: Any, new: Any = new, mask: Any = mask) -> Any:
            return torch.where(mask[None, :, None], new[None].float(), tensor)

        found.append(model.run_with_hooks(ids, [(name, write)]))
    return found


def by_definition(model: HookedTransformer, d: Dictionary, limits: bool = True) -> dict[str, float]:
    """The figures from their definitions."""
    x, y = rows_of(model, d.cfg.hook_name), rows_of(model, d.cfg.hook_name_out)
    kept = torch.ones(len(x), dtype=torch.bool)
    for rows in (x, y) if limits else ():
        norms = rows.double().norm(dim=1).float()
        kept &= norms <= 3 * norms.median()
    acts = d.encode(x)
    y_hat = d.decode(acts, x)
    active = (acts != 0)[kept]

    def explained(some: torch.Tensor) -> float:
        a, b = y[some].double(), y_hat[some].double()
        return 1 - float((a - b).square().sum() / (a - a.mean(0)).square().sum())

    mean = y[kept].double().mean(0).float().expand_as(y)
    plain = [model(ids) for ids in sequences(model)]
    spliced = run_replaced(model, d.cfg.hook_name_out, y_hat, kept)
    runs = {
        "without_sae": plain,
        "with_sae": spliced,
        "with_ablation": run_replaced(model, d.cfg.hook_name_out, torch.zeros_like(y), kept),
        "with_mean_ablation": run_replaced(model, d.cfg.hook_name_out, mean, kept),
        "with_sae_all": run_replaced(model, d.cfg.hook_name_out, y_hat, torch.ones_like(kept)),
    }
    ce = {f"ce_loss_{name}": losses(model, logits) for name, logits in runs.items()}
    log_p, log_q = (torch.cat([x[0] for x in some]).double().log_softmax(-1) for some in
                    (plain, spliced))  # fmt: skip
    base, with_sae = ce["ce_loss_without_sae"], ce["ce_loss_with_sae"]
    zero, average = ce["ce_loss_with_ablation"], ce["ce_loss_with_mean_ablation"]
    cosines = torch.cosine_similarity(y[kept].double(), y_hat[kept].double())
    return ce | {
        "l0": float(active.double().sum(1).mean()),
        "explained_variance": explained(kept),
        "explained_variance_all": explained(torch.ones_like(kept)),
        "mse": float((y - y_hat.double())[kept].square().sum(1).mean()),
        "cossim": float(cosines.mean()),
        "delta_ce": with_sae - base,
        "delta_ce_all": ce["ce_loss_with_sae_all"] - base,
        "ce_loss_score": (zero - with_sae) / (zero - base),
        "ce_loss_score_mean": (average - with_sae) / (average - base),
        "kl_div_with_sae": float((log_p.exp() * (log_p - log_q)).sum(1).mean()),
        "dead_share": float((~active.any(0)).double().mean()),
        "n_tokens": len(x),
        "n_excluded": int((~kept).sum()),
        "n_dead_tokens": len(x),
    }


def check_definitions(result: EvalResult, expected: dict[str, float]) -> None:
    found = result.to_dict()
    assert found.keys() - {"density"} == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=FP64, abs=FP64), name


@pytest.mark.parametrize("architecture", ["topk", "standard", "jumprelu", "gated"])
def test_definitions(architecture: str, model: HookedTransformer) -> None:
    d = dictionary(architecture)
    result = evaluate(model, d, **OPTIONS)
    check_definitions(result, by_definition(model, d))
    active = (d.encode(rows_of(model, HOOK)) != 0).double()
    assert torch.equal(result.density, active.mean(0))
    assert json.loads(json.dumps(result.to_dict())) == result.to_dict()


def with_outliers(factor: float) -> HookedTransformer:
    """Every "o" has an embedding many times as long as it was, as some models' first tokens do."""
    checkpoint = random_checkpoint("llama", tokenizer=byte_tokenizer())
    embedding = checkpoint.reader.tensors["embed.weight"]  # type: ignore[attr-defined]
    embedding[ord("o")] *= factor
    return bitlens.load(checkpoint)


def test_outliers_keep_their_activation() -> None:
    model, d = with_outliers(40), dictionary()
    result = evaluate(model, d, **OPTIONS)
    expected = by_definition(model, d)
    assert result.n_excluded == sum(text.count("o") for text in TEXT)
    check_definitions(result, expected)
    # What they would have made of the figures.
    assert result.explained_variance_all != pytest.approx(result.explained_variance, abs=0.05)
    assert result.delta_ce_all != pytest.approx(result.delta_ce, abs=0.01)
    included = evaluate(model, d, exclude_outliers=False, **OPTIONS)
    check_definitions(included, by_definition(model, d, limits=False))
    assert included.explained_variance == included.explained_variance_all
    assert included.delta_ce == included.delta_ce_all


@pytest.mark.parametrize("architecture", ["topk_transcoder", "jumprelu_skip_transcoder"])
def test_transcoders_replace_the_mlps_output(architecture: str, model: HookedTransformer) -> None:
    d = dictionary(architecture, read=MLP_IN, written=MLP_OUT)
    result = evaluate(model, d, **OPTIONS)
    check_definitions(result, by_definition(model, d))
    ablated = run_replaced(model, MLP_OUT, torch.zeros(result.n_tokens, D), torch.ones(
        result.n_tokens, dtype=torch.bool))  # fmt: skip
    if not result.n_excluded:
        assert result.ce_loss_with_ablation == pytest.approx(losses(model, ablated), rel=FP64)


def test_heads_are_one_row(model: HookedTransformer) -> None:
    name = "blocks.0.attn.hook_z"
    width = CHECKPOINT.config.n_heads * CHECKPOINT.config.d_head
    wide = dataclasses.replace(
        dictionary().cfg, hook_name=name, hook_name_out=name, d_in=width, d_out=width
    )
    tensors = {n: draw(*s, seed=3) for n, s in wide.tensor_shapes().items()}
    result = evaluate(model, Dictionary(wide, tensors), **OPTIONS)
    assert result.l0 == pytest.approx(8)
    assert result.delta_ce != 0


def test_an_exact_dictionary_costs_nothing(model: HookedTransformer) -> None:
    result = evaluate(model, exact_dictionary(), **OPTIONS)
    assert result.explained_variance == result.explained_variance_all == 1
    assert result.delta_ce == result.delta_ce_all == result.kl_div_with_sae == result.mse == 0
    assert result.ce_loss_score == result.ce_loss_score_mean == 1
    assert result.cossim == pytest.approx(1, abs=FP64)
    assert result.ce_loss_with_ablation != result.ce_loss_without_sae


def test_saelens_evaluator_agrees(model: HookedTransformer, tmp_path: Path) -> None:
    """On the same tokens, through the adapter, without the tokens that it leaves out."""
    # Imported here: they take longer than all the tests.
    import datasets
    import sae_lens
    from bitlens.model.interop.sae_lens_model import SAELensModel
    from sae_lens.evals import EvalConfig, run_evals
    from sae_lens.training.activation_scaler import ActivationScaler

    d = dictionary("topk", model_name="random", context_size=24, prepend_bos=False)
    d.save_model(tmp_path)
    sae = sae_lens.SAE.load_from_disk(tmp_path)
    # Bytes above 127 would be two tokens each.
    tokens = draw(6, 24, seed=7).mul(1e4).long() % 95 + 32
    texts = [bytes(x).decode("ascii") for x in tokens.tolist()]
    result = evaluate(model, d, text=texts, split="all", packing=PACKING, exclude_outliers=False)
    assert result.n_tokens == tokens.numel()
    store = sae_lens.ActivationsStore.from_sae(
        SAELensModel(model),
        sae,
        datasets.Dataset.from_dict({"tokens": tokens.tolist()}),
        store_batch_size_prompts=2,
        total_tokens=8,
    )
    config = EvalConfig(
        batch_size_prompts=2,
        n_eval_reconstruction_batches=3,
        compute_kl=True,
        compute_ce_loss=True,
        n_eval_sparsity_variance_batches=3,
        compute_sparsity_metrics=True,
        compute_variance_metrics=True,
        compute_featurewise_density_statistics=True,
    )
    metrics, by_feature = run_evals(
        sae, store, SAELensModel(model), ActivationScaler(), config, exclude_special_tokens=False
    )
    theirs = {name: value for group in metrics.values() for name, value in group.items()}
    ours = result.to_dict()
    shared = (
        "l0", "explained_variance", "mse", "cossim", "ce_loss_without_sae", "ce_loss_with_sae",
        "ce_loss_with_ablation", "ce_loss_score", "kl_div_with_sae",
    )  # fmt: skip
    for name in shared:
        assert ours[name] == pytest.approx(theirs[name], rel=FP32, abs=FP32), name
    assert ours["density"] == pytest.approx(by_feature["feature_density"], rel=FP32, abs=FP32)
    legacy = theirs["explained_variance_legacy"]
    assert ours["explained_variance"] != pytest.approx(legacy, rel=FP32, abs=FP32)


def test_random_directions_explain_far_less(model: HookedTransformer) -> None:
    """Of rows that are sums of eight planted directions: all that a dictionary can know of them."""
    planted = dictionary(d_sae=1024, seed=11)
    directions = torch.nn.functional.normalize(draw(1024, D, seed=12))
    generator = torch.Generator().manual_seed(13)
    chosen = torch.stack([torch.randperm(1024, generator=generator)[:8] for _ in range(200)])
    rows = (directions[chosen] * (1 + torch.rand(200, 8, 1, generator=generator))).sum(1)
    for architecture in ("topk", "standard", "jumprelu", "gated"):
        d = dictionary(architecture, d_sae=1024, seed=11)
        control = random_dictionary(d, 0, rows=rows)
        assert control.cfg == d.cfg
        assert not torch.equal(control.W_dec, random_dictionary(d, 1, rows=rows).W_dec)
        assert control.encode_sparse(rows).l0() == d.encode_sparse(rows).l0()
    assert torch.equal(random_dictionary(planted, 0).W_dec, random_dictionary(planted, 0).W_dec)
    with pytest.raises(ValueError, match="jumprelu needs rows"):
        random_dictionary(dictionary("jumprelu"), 0)


def test_the_control_is_far_below(model: HookedTransformer) -> None:
    """The leading directions of the text's own rows, against random ones of the same L0."""
    rows = rows_of(model, HOOK)
    mean = rows.mean(0)
    basis = torch.linalg.svd(rows - mean, full_matrices=False).Vh
    both = torch.cat([basis, -basis])
    config = dataclasses.replace(dictionary(k=16).cfg, d_sae=len(both))
    tensors = {
        "W_enc": both.T.contiguous(),
        "W_dec": both,
        "b_enc": torch.zeros(len(both)),
        "b_dec": mean,
    }
    good = Dictionary(config, tensors)
    ours = evaluate(model, good, **OPTIONS)
    control = evaluate(model, random_dictionary(good, 0), **OPTIONS)
    assert ours.l0 == control.l0 == 16
    assert ours.explained_variance > 0.7
    assert control.explained_variance < ours.explained_variance - 0.3
    assert control.delta_ce > ours.delta_ce


def test_dead_features_are_looked_for_in_the_longer_text(model: HookedTransformer) -> None:
    d = dictionary(d_sae=512, k=2)
    steps: list[tuple[str, int, int]] = []
    short = evaluate(
        model, d, n_tokens=20, n_dead_tokens=0, progress=lambda *x: steps.append(x), **OPTIONS
    )
    assert short.n_tokens == short.n_dead_tokens == 24  # whole sequences
    assert steps == [("features", 24, 24), ("losses", 24, 24)]
    long = evaluate(model, d, n_tokens=20, **OPTIONS)
    assert long.n_dead_tokens == sum(ids.numel() for ids in sequences(model))
    assert long.dead_share < short.dead_share
    differing = {"density", "dead_share", "n_dead_tokens"}
    for name, value in short.to_dict().items():
        assert (value == long.to_dict()[name]) != (name in differing), name


def test_batches_change_nothing(model: HookedTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows and logits come to the same bits; sums differ by their order at most."""
    from bitlens.interp.evaluation import behaviour, reconstruct, survey, token_losses

    d = dictionary()
    whole = evaluate(model, d, **OPTIONS).to_dict()
    for module, name, value in (
        (behaviour, "_POSITIONS", 30),
        (survey, "BATCH_TOKENS", 20),
        (reconstruct, "_ACTIVATIONS_AT_A_TIME", 500),
        (token_losses, "_VALUES_AT_A_TIME", 700),
    ):
        monkeypatch.setattr(module, name, value)
    bitlens.set_num_threads(3)
    torch.set_num_threads(1)
    for name, value in evaluate(model, d, **OPTIONS).to_dict().items():
        assert value == pytest.approx(whole[name], rel=FP64, abs=FP64), name


def test_padding_counts_in_the_bound_on_memory() -> None:
    rows = [[1] * n for n in (3, 3, 9, 2, 2, 12, 40)]
    found = list(padded_batches(rows, 18))
    assert [batch.tokens.shape for batch in found] == [(2, 3), (2, 9), (1, 2), (1, 12), (1, 40)]
    assert sum(batch.n_tokens for batch in found) == sum(map(len, rows))


def test_the_default_is_text_that_was_held_out(model: HookedTransformer) -> None:
    texts = [f"document {i}, of some length" for i in range(200)]
    held_out = list(open_text(texts).documents("held_out"))
    assert 0 < len(held_out) < 40
    d = dictionary()
    packing = Packing(128, prepend_bos=False)
    found = evaluate(model, d, text=texts, packing=packing)
    alone = evaluate(model, d, text=held_out, split="all", packing=packing)
    assert found.to_dict() == alone.to_dict()


def test_bad_input(model: HookedTransformer) -> None:
    d = dictionary()
    with pytest.raises(ValueError, match=r"no held_out document.*split='all'"):
        evaluate(model, d, text=TEXT[:1], packing=PACKING)
    for empty in ([], ["", " \n"], ["a"]):
        with pytest.raises(ValueError, match="no document"):
            evaluate(model, d, text=empty, split="all", packing=PACKING)
    with pytest.raises(ValueError, match="n_tokens = 0"):
        evaluate(model, d, n_tokens=0, **OPTIONS)
    with pytest.raises(ValueError, match="exceeds the model's"):
        evaluate(model, d, text=TEXT, split="all", packing=Packing(4096))
    with pytest.raises(ValueError, match="without a tokenizer"):
        evaluate(bitlens.load(random_checkpoint("llama")), d, **OPTIONS)
    with pytest.raises(DictionaryError, match="none of"):
        evaluate(model, dictionary(read="blocks.9.hook_resid_post"), **OPTIONS)
    with pytest.raises(DictionaryError, match="wide in"):
        evaluate(model, dictionary(read="blocks.1.mlp.hook_post"), **OPTIONS)
    stranger = dictionary(model_fingerprint="0" * 64, model_name="another")
    with pytest.raises(DictionaryError, match="fingerprint"):
        evaluate(model, stranger, **OPTIONS)
    with pytest.warns(UserWarning, match="fingerprint"):
        evaluate(model, stranger, strict=False, n_tokens=1, n_dead_tokens=0, **OPTIONS)
