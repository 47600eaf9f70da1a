"""SAELens 6.54 on our model, against its own HookedSAETransformer with equal weights."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bitlens
import datasets
import pytest
import sae_lens
import torch
from bitlens.model.interop.sae_lens_model import SAELensModel
from support.random_models import BOS, byte_tokenizer, random_checkpoint
from support.sae_lens_cases import hooked_sae_transformer, random_sae, random_transcoder

CHECKPOINT = random_checkpoint("llama", tokenizer=byte_tokenizer())
C = CHECKPOINT.config
HOOK = "blocks.1.hook_resid_post"
TOKENS = torch.tensor([[BOS, 3, 1, 4, 1, 5], [BOS, 9, 2, 6, 5, 3]])
TOLERANCE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(scope="module")
def sae() -> Any:
    return random_sae(HOOK, C.d_model)


@pytest.fixture
def model() -> SAELensModel:
    return SAELensModel(bitlens.load(CHECKPOINT))


@pytest.fixture
def lens() -> Any:
    return hooked_sae_transformer(CHECKPOINT, SAELensModel(bitlens.load(CHECKPOINT)))


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours.detach(), theirs.detach(), **TOLERANCE)


def test_splicing(model: SAELensModel, lens: Any, sae: Any) -> None:
    clean = model(TOKENS)
    for use_error_term in (False, True):
        options = {"saes": [sae], "use_error_term": use_error_term}
        ours = model.run_with_saes(TOKENS, **options)
        close(ours, lens.run_with_saes(TOKENS, **options))
        assert torch.allclose(ours, clean, **TOLERANCE) == use_error_term
    assert torch.equal(model(TOKENS), clean)


def test_caching_latents(model: SAELensModel, lens: Any, sae: Any) -> None:
    inner = [f"{HOOK}.hook_sae_{name}" for name in ("input", "acts_pre", "acts_post", "output")]
    names = ["blocks.2.hook_resid_post", *inner]
    options = {"saes": [sae], "names_filter": names}
    _, ours = model.run_with_cache_with_saes(TOKENS, **options)
    _, theirs = lens.run_with_cache_with_saes(TOKENS, **options)
    assert set(ours) == set(names)
    for name in names:
        close(ours[name], theirs[name])
    _, sliced = model.run_with_cache_with_saes(TOKENS, pos_slice=-1, **options)
    assert torch.equal(sliced[inner[2]], ours[inner[2]][:, -1:])
    _, everything = model.run_with_cache_with_saes(TOKENS[:1], saes=sae, remove_batch_dim=True)
    assert everything[inner[2]].shape == (6, 64)


def test_ablating_a_latent(model: SAELensModel, lens: Any, sae: Any) -> None:
    def ablate(acts: torch.Tensor, hook: Any) -> torch.Tensor:
        acts[:, :, 7] = 0
        return acts

    options = {"saes": [sae], "fwd_hooks": [(f"{HOOK}.hook_sae_acts_post", ablate)]}
    ours = model.run_with_hooks_with_saes(TOKENS, **options)
    close(ours, lens.run_with_hooks_with_saes(TOKENS, **options))
    assert not torch.equal(ours, model.run_with_saes(TOKENS, saes=[sae]))


def test_transcoders(model: SAELensModel, lens: Any) -> None:
    read, written = "blocks.1.ln2.hook_normalized", "blocks.1.hook_mlp_out"
    transcoder = random_transcoder(read, written, C.d_model)
    clean = model(TOKENS)
    for use_error_term in (False, True):
        options = {"saes": [transcoder], "use_error_term": use_error_term}
        ours, cache = model.run_with_cache_with_saes(TOKENS, **options)
        theirs, expected = lens.run_with_cache_with_saes(TOKENS, **options)
        close(ours, theirs)
        assert torch.allclose(ours, clean, **TOLERANCE) == use_error_term
        inner = [name for name in cache if ".hook_sae_" in name]
        assert set(inner) == {name for name in expected if ".hook_sae_" in name}
        assert f"{written}.hook_sae_acts_post" in inner
        for name in inner:
            close(cache[name], expected[name])
    assert torch.equal(model(TOKENS), clean)


def test_a_skip_transcoder_keeps_its_skip(model: SAELensModel) -> None:
    read, written = "blocks.1.hook_mlp_in", "blocks.1.hook_mlp_out"
    transcoder = random_transcoder(read, written, C.d_model, skip=True)
    seen: list[torch.Tensor] = []
    hooks: list[tuple[str, Any]] = [
        (read, lambda x, hook: seen.append(x.clone())),
        (written, lambda y, hook: transcoder(seen[0])),
    ]
    expected = model.model.run_with_hooks(TOKENS, hooks)
    assert torch.equal(model.run_with_saes(TOKENS, saes=[transcoder]), expected)


def test_generating_with_saes_in(model: SAELensModel, sae: Any) -> None:
    inside = f"{HOOK}.hook_sae_acts_post"
    names = [inside, "blocks.2.hook_resid_post"]
    clean = model.generate(TOKENS, max_new_tokens=4, capture=names[1])
    with model.saes([sae], use_error_term=False):
        result = model.generate(TOKENS, max_new_tokens=4, capture=names)
        with torch.no_grad():
            logits, cache = model.run_with_cache(result.tokens[:, :-1], names)
        with pytest.raises(ValueError, match="hook_sae_error did not fire"):
            model.generate(TOKENS, max_new_tokens=1, capture=f"{HOOK}.hook_sae_error")
    n = result.n_new
    for b in range(2):
        new = result.tokens[b, 6 : 6 + n[b]]
        assert torch.equal(logits[b, 5 : 5 + n[b]].argmax(-1), new)
    if n == [4, 4]:  # SAELens's own products differ in their last bits with the number of rows
        for name in names:
            close(result.captured[name], cache[name])
    assert not torch.equal(result.captured[names[1]][:, :6], clean.captured[names[1]][:, :6])
    assert result.captured[inside].shape == cache[inside].shape


def test_an_sae_that_stays(model: SAELensModel, lens: Any) -> None:
    heads = random_sae("blocks.0.attn.hook_z", C.n_heads * C.d_head, reshape="hook_z")
    for each in (model, lens):
        each.add_sae(heads)
    close(model(TOKENS), lens(TOKENS))
    assert model.acts_to_saes == {"blocks.0.attn.hook_z": heads}
    clean = bitlens.load(CHECKPOINT)(TOKENS)
    assert not torch.equal(model(TOKENS), clean)
    model.reset_saes()
    assert torch.equal(model(TOKENS), clean)


@pytest.mark.parametrize("column", ["tokens", "text"])
def test_the_activation_store(column: str, model: SAELensModel, lens: Any, sae: Any) -> None:
    rows: dict[str, Callable[[], Any]] = {
        "tokens": lambda: TOKENS.repeat(4, 1).tolist(),
        "text": lambda: ["To be or not to be", "that is the question"] * 4,
    }
    stores = []
    for each in (model, lens):
        dataset = datasets.Dataset.from_dict({column: rows[column]()})
        stores.append(
            sae_lens.ActivationsStore.from_sae(
                each,
                sae,
                dataset,
                store_batch_size_prompts=2,
                n_batches_in_buffer=4,
                train_batch_size_tokens=8,
                total_tokens=8,
            )
        )
    batches = [store.get_batch_tokens() for store in stores]
    assert torch.equal(*batches)
    ours, theirs = (
        store.get_activations(batch) for store, batch in zip(stores, batches, strict=True)
    )
    close(ours, theirs)
    _, cache = model.run_with_cache(batches[0], names_filter=HOOK)
    assert torch.equal(ours, cache[HOOK])
    assert stores[0].next_batch().shape == (8, C.d_model)


def test_the_evaluator(model: SAELensModel, lens: Any, sae: Any) -> None:
    from sae_lens.evals import EvalConfig, run_evals
    from sae_lens.training.activation_scaler import ActivationScaler

    config = EvalConfig(
        batch_size_prompts=2,
        n_eval_reconstruction_batches=2,
        compute_kl=True,
        compute_ce_loss=True,
        n_eval_sparsity_variance_batches=2,
        compute_l2_norms=True,
        compute_sparsity_metrics=True,
        compute_variance_metrics=True,
    )
    found = []
    for each in (model, lens):
        dataset = datasets.Dataset.from_dict({"tokens": TOKENS.repeat(4, 1).tolist()})
        store = sae_lens.ActivationsStore.from_sae(
            each, sae, dataset, store_batch_size_prompts=2, total_tokens=8
        )
        metrics, _ = run_evals(sae, store, each, ActivationScaler(), config)
        found.append(
            {(kind, name): x for kind, some in metrics.items() for name, x in some.items()}
        )
    assert found[0].keys() == found[1].keys()
    assert ("model_behavior_preservation", "kl_div_score") in found[0]
    for key, value in found[0].items():
        assert value == pytest.approx(found[1][key], rel=1e-3, abs=1e-4), key


@pytest.mark.filterwarnings("ignore:.*not tokenized")
def test_the_documented_examples(
    smollm2_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signals: None
) -> None:
    """In order and in one namespace; the SAE that the page loads is one that it trains."""
    page = Path(bitlens.__file__).parent / "docs" / "migration.md"
    blocks = re.findall(r"```python sae-lens\n(.*?)```", page.read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"bitlens": bitlens}
    for block in blocks:
        exec(compile(block, page.name, "exec"), namespace)
    assert namespace["latents"].shape[-1] == namespace["sae"].cfg.d_sae
    assert not torch.equal(namespace["ablated"], namespace["logits"])
    assert namespace["metrics"]["model_behavior_preservation"]["kl_div_with_sae"] > 0
    assert len(namespace["top_tokens"]) == 5


def test_weights_on_the_adapter(model: SAELensModel) -> None:
    assert torch.equal(model.W_U, model.model.W_U)
    with pytest.raises(AttributeError, match=r"model\.model\.W_E"):
        model.W_E  # noqa: B018


def test_what_cannot_be_spliced(model: SAELensModel, sae: Any) -> None:
    with pytest.raises(KeyError, match="did you mean"):
        model.add_sae(random_sae("blocks.1.hook_resid_pst", C.d_model))
    backwards = random_transcoder("blocks.1.hook_mlp_out", "blocks.1.hook_mlp_in", C.d_model)
    with pytest.raises(ValueError, match="comes before"):
        model.add_sae(backwards)
    one, another = (random_transcoder(f"blocks.{i}.hook_mlp_in", HOOK, C.d_model) for i in (0, 1))
    with pytest.raises(ValueError, match="written by what reads"), model.saes([one, another]):
        raise AssertionError
    with pytest.raises(KeyError), model.saes([sae]):
        model.run_with_hooks(TOKENS, [(f"{HOOK}.hook_sae_acts", print)])
    assert model.acts_to_saes == {}
