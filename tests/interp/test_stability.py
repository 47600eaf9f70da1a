"""Stability of features: what flips, what is certified, and that the certificates hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bitlens
import pytest
import torch
from bitlens.interp import load_dictionary, stability
from bitlens.interp.activations import Packing
from bitlens.interp.activations.read import read_rows
from bitlens.interp.activations.sequences import Batch, batches
from bitlens.interp.dictionaries import Dictionary, DictionaryError
from bitlens.interp.dictionaries.config import ARCHITECTURES
from bitlens.interp.stability import Movement, StabilityResult, Tally, certify, limit_of
from bitlens.interp.stability.stability import places_of
from bitlens.interp.stability.tally import Places
from bitlens.model.transformer import HookedTransformer
from support.random_dictionaries import random_dictionary
from support.training_runs import HOOK, documents, speaking_model

OUT = "blocks.0.hook_mlp_out"
SHIPPED = "smollm2-135m-instruct/blocks.15.hook_resid_post"
TEXT = documents(60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("speaking")


@pytest.fixture(scope="module")
def models(folder: Path) -> tuple[HookedTransformer, HookedTransformer]:
    return speaking_model(folder), bitlens.load(folder, dtype="bf16")


def made(model: HookedTransformer, architecture: str) -> Dictionary:
    out = OUT if architecture.endswith("transcoder") else None
    return random_dictionary(model, HOOK, out, architecture, seed=3)


def compared(a: HookedTransformer, b: HookedTransformer, d: Dictionary) -> StabilityResult:
    return stability(a, b, d, text=TEXT, split="all", n_tokens=600, packing=Packing(32))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_counts_are_those_of_both_runs(
    architecture: str, models: tuple[HookedTransformer, HookedTransformer]
) -> None:
    a, b = models
    dictionary = made(a, architecture)
    found = compared(a, b, dictionary)
    assert a.tokenizer is not None
    (batch,) = batches(list(Packing(32).sequences(TEXT, a.tokenizer))[:24], 10_000)
    acts = [dictionary.encode(read_rows(m, batch, [HOOK])[HOOK]) for m in models]
    active_a, active_b = (x[: found.n_tokens] != 0 for x in acts)
    lost, gained = active_a & ~active_b, active_b & ~active_a
    assert found.n_tokens >= 600
    assert (found.active, found.lost, found.gained) == (
        int(active_a.sum()),
        int(lost.sum()),
        int(gained.sum()),
    )
    assert torch.equal(found.by_feature.lost, lost.sum(0))
    assert torch.equal(found.by_token.gained, gained.sum(1))
    assert torch.equal(found.by_token.token, batch.tokens[batch.mask][: found.n_tokens])
    assert found.lost + found.gained > 0  # so that there was something to certify against
    assert found.wrong == 0
    assert 0 < found.certified < found.pairs
    assert int(found.by_token.certified.sum()) == found.certified
    flips = int((lost | gained).sum())
    assert found.changed_share == flips / int((active_a | active_b).sum())
    assert len(found.examples) == min(20, flips)
    for flip in found.examples:
        assert flip.margin <= flip.bound or dictionary.cfg.selects_top_k
        mask = lost if flip.kind == "lost" else gained
        row = (
            (found.by_token.sequence == flip.sequence) & (found.by_token.position == flip.position)
        ).nonzero()
        assert mask[int(row), flip.feature]


def test_two_runs_of_the_same_bits_have_no_flips(
    models: tuple[HookedTransformer, HookedTransformer],
) -> None:
    a, _ = models
    found = compared(a, a, made(a, "topk"))
    assert (found.gained, found.lost, found.wrong, found.unpaired) == (0, 0, 0, 0)
    assert found.certified_share > 0.99
    assert found.examples == ()


@pytest.mark.parametrize("architecture", ["topk", "jumprelu", "gated", "standard"])
@pytest.mark.parametrize("size", [1e-7, 1e-3, 30.0])
def test_the_bound_holds_and_needs_the_kernels_part(
    architecture: str, size: float, models: tuple[HookedTransformer, HookedTransformer]
) -> None:
    dictionary = made(models[0], architecture)
    generator = torch.Generator().manual_seed(0)
    x_a = torch.randn(64, dictionary.cfg.d_in, generator=generator)
    x_b = x_a + size * torch.randn(x_a.shape, generator=generator)
    scores_a, scores_b = (dictionary.encoder.scores(x).double() for x in (x_a, x_b))
    moved = (scores_a - scores_b).abs()
    assert (moved <= Movement(dictionary)(x_a, x_b)).all()
    distance = (x_a.double() - x_b.double()).abs() @ dictionary.W_enc.detach().double().abs()
    assert bool((moved > distance).any()) == (size == 1e-7)


def crafted(architecture: str, threshold: float = 1.0) -> Dictionary:
    """Three features that read one coordinate each."""
    from bitlens.interp.dictionaries import DictionaryConfig

    cfg = DictionaryConfig(
        architecture=architecture,
        d_in=3,
        d_sae=3,
        d_out=3,
        k=1 if architecture == "topk" else None,
        hook_name=HOOK,
        hook_name_out=HOOK,
    )
    tensors = {name: torch.zeros(shape) for name, shape in cfg.tensor_shapes().items()}
    tensors |= {"W_enc": torch.eye(3), "W_dec": torch.eye(3)}
    if architecture == "jumprelu":
        tensors["threshold"] = torch.full((3,), threshold)
    return Dictionary(cfg, tensors)


@pytest.mark.parametrize(
    ("architecture", "row", "bound", "certified"),
    [
        ("topk", [3.0, 2.0, 0.0], 0.49, [True, True, True]),
        ("topk", [3.0, 2.0, 0.0], 0.5, [False, False, True]),
        ("topk", [3.0, 2.0, 1.0], 0.7, [False, False, True]),
        ("topk", [0.4, -1.0, -2.0], 0.5, [False, True, True]),
        ("topk", [2.0, 2.0, 0.0], 0.01, [False, False, True]),
        ("jumprelu", [3.0, 1.0, 0.0], 0.5, [True, False, True]),
        ("jumprelu", [1.5, 1.0, 0.5], 0.5, [False, False, True]),
        ("standard", [0.5, 0.4, -0.5], 0.5, [False, False, True]),
    ],
)
def test_what_is_certain_by_hand(
    architecture: str, row: list[float], bound: float, certified: list[bool]
) -> None:
    dictionary = crafted(architecture)
    scores = torch.tensor([row])
    active = dictionary.encoder.select(scores, (1, 3)).dense() != 0
    limit = limit_of(dictionary)
    sure = limit.certain(scores.double(), torch.full((1, 3), bound, dtype=torch.float64))
    assert (sure.active | sure.inactive)[0].tolist() == certified
    assert not (sure.active & ~active).any()
    assert not (sure.inactive & active).any()
    pairs = certify(scores, active, torch.full((1, 3), bound, dtype=torch.float64), limit)
    assert pairs.certified.sum() <= sum(certified)


def test_a_tie_is_decided_by_the_index_and_certified_for_neither() -> None:
    dictionary = crafted("topk")
    tally = Tally(dictionary, lambda sequence, position: "")
    zero = torch.zeros(1, dtype=torch.int64)
    x_a = torch.tensor([[2.0, 2.0, 0.0]])
    x_b = torch.tensor([[2.0, 2.0000002, 0.0]])
    tally.add(x_a, x_b, Places(zero, zero, zero))
    found = tally.result()
    assert (found.lost, found.gained, found.wrong) == (1, 1, 0)
    assert [(f.kind, f.feature, f.margin) for f in found.examples] == [
        ("lost", 0, 0.0),
        ("gained", 1, 0.0),
    ]


def rows_of(models: Any, dictionary: Dictionary, n_tokens: int) -> Iterator[tuple[Any, ...]]:
    from bitlens.interp.activations import open_text
    from bitlens.interp.evaluation.evaluated_text import padded_batches, read_text

    text = read_text(models[0], open_text(None), Packing(256), "held_out", n_tokens, n_tokens)
    first = 0
    hook = dictionary.cfg.hook_name
    for batch in padded_batches(text.sequences, 1024):
        yield (*(read_rows(m, batch, [hook])[hook] for m in models), places_of(batch, first))
        first += len(batch.tokens)


def judged(n_tokens: int, path: Path, monkeypatch: pytest.MonkeyPatch) -> list[StabilityResult]:
    """The shipped dictionary, fp32 against bf16: by its bound, and the first rows by a tenth."""
    models = bitlens.load(path), bitlens.load(path, dtype="bf16")
    dictionary = load_dictionary(SHIPPED, model=models[0])
    tallies = [Tally(dictionary, lambda sequence, position: "") for _ in range(2)]
    bound = Movement.__call__
    for x_a, x_b, places in rows_of(models, dictionary, n_tokens):
        tallies[0].add(x_a, x_b, places)
        if int(places.sequence[0]):
            continue
        with monkeypatch.context() as patch:
            patch.setattr(Movement, "__call__", lambda self, *x: bound(self, *x) / 10)
            tallies[1].add(x_a, x_b, places)
    return [tally.result() for tally in tallies]


def check(found: list[StabilityResult], n_pairs: int) -> None:
    whole, tenth = found
    assert whole.pairs >= n_pairs
    assert whole.wrong == 0
    assert whole.certified_share >= 0.5
    assert whole.lost > 0
    assert tenth.wrong > 0, "a tenth of the bound must err, or the bound is too loose to mean much"


def test_no_certified_feature_flips(smollm2_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(judged(1_600, smollm2_path, monkeypatch), 10**5)


@pytest.mark.nightly
def test_no_certified_feature_flips_in_a_million(
    smollm2_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(judged(15_900, smollm2_path, monkeypatch), 10**6)


def test_bad_input_is_named(
    models: tuple[HookedTransformer, HookedTransformer],
) -> None:
    a, b = models
    dictionary = made(a, "topk")
    zero = torch.zeros(2, dtype=torch.int64)
    tally = Tally(dictionary, lambda sequence, position: "")
    rows = torch.zeros(2, dictionary.cfg.d_in)
    with pytest.raises(ValueError, match="run b: the activations are not finite"):
        tally.add(rows, rows.clone().fill_(torch.inf), Places(zero, zero, zero))
    with pytest.raises(ValueError, match="run a: rows"):
        tally.add(rows[:, 1:], rows, Places(zero, zero, zero))
    with pytest.raises(ValueError, match="no rows"):
        tally.result()
    elsewhere = random_dictionary(
        a, "blocks.1.hook_resid_post", metadata={"model_fingerprint": "x" * 64}
    )
    with pytest.raises(DictionaryError, match="fingerprint"):
        compared(a, b, elsewhere)
    with pytest.raises(ValueError, match="no document"):
        stability(a, b, dictionary, text=["short"], split="all", packing=Packing(32))


def test_places_count_sequences_across_batches() -> None:
    mask = torch.tensor([[True, True], [True, False]])
    places = places_of(Batch(torch.tensor([[5, 6], [7, 0]]), mask), 4)
    assert places.sequence.tolist() == [4, 4, 5]
    assert places.position.tolist() == [0, 1, 0]
    assert places.token.tolist() == [5, 6, 7]
