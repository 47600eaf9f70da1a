"""Training: right gradients, fixed bits, and runs that any interruption leaves as they were."""

from __future__ import annotations

import json
import math
import resource
from pathlib import Path
from typing import Any

import bitlens
import pytest
import torch
from bitlens import _core
from bitlens.interp.activations import open_text
from bitlens.interp.activations.store import ActivationStore
from bitlens.interp.dictionaries import load_dictionary
from bitlens.interp.training import TrainConfig, TrainingDiverged, train, train_all
from bitlens.interp.training.config import ARCHITECTURES
from bitlens.interp.training.objectives import objective_of
from bitlens.interp.training.parameters import Parameters
from bitlens.interp.training.train import harvest_for
from bitlens.interp.training.trainer import Trainer, initial_values
from bitlens.model.hooks.registry import same_bits
from bitlens.model.parallel import Group, run_in_threads
from bitlens.model.transformer import HookedTransformer
from support.training_runs import HOOK, config, documents, speaking_model

OUT = "blocks.1.hook_mlp_out"


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    speaking_model(folder)
    return folder


@pytest.fixture(scope="module")
def model(model_folder: Path) -> HookedTransformer:
    return speaking_model(model_folder)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bitlens.interp.activations.harvesting.BATCH_TOKENS", 256)
    monkeypatch.setattr("bitlens.interp.activations.harvesting.SHARD_TOKENS", 1024)


@pytest.fixture(scope="module")
def store(model: HookedTransformer, tmp_path_factory: pytest.TempPathFactory) -> ActivationStore:
    folder = tmp_path_factory.mktemp("run")
    both = {"a": config(architecture="topk_transcoder", hook_name_out=OUT)}
    harvest_for(model, both, text=documents(), output=folder)
    return ActivationStore(folder / "harvest")


def of(architecture: str, **changes: Any) -> TrainConfig:
    if architecture.endswith("transcoder"):
        changes["hook_name_out"] = OUT
    if architecture.startswith("jumprelu"):
        changes = {"l0_target": 6.0, **changes}
    return config(architecture=architecture, **changes)


def trained(
    c: TrainConfig, store: ActivationStore, folder: Path, until: int | None = None
) -> Trainer:
    folder.mkdir(exist_ok=True)
    trainer = Trainer(c, store, folder)
    trainer.run(until=until)
    return trainer


def log_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


# Gradients


def exact_loss(
    c: TrainConfig, p: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor
) -> torch.Tensor:
    """The loss in fp64 autograd, written from the papers' formulas."""
    centred = x if c.is_transcoder else x - p["b_dec"]
    skip = x @ p["W_skip"].T if "W_skip" in p else 0.0
    l1 = c.l1_coefficient * math.sqrt(y.shape[1]) / y.numel()

    def error(acts: torch.Tensor, W_dec: torch.Tensor, b_dec: torch.Tensor) -> torch.Tensor:
        return (acts @ W_dec + b_dec + skip - y).square().mean()

    product = centred @ p["W_enc"].T
    if c.architecture == "gated":
        gate = product + p["b_gate"]
        magnitude = torch.relu(product * p["r_mag"].exp() + p["b_mag"]) * (gate > 0)
        frozen = p["W_dec"].detach(), p["b_dec"].detach()
        main = error(magnitude, p["W_dec"], p["b_dec"]) + error(torch.relu(gate), *frozen)
        return main + l1 * torch.relu(gate).sum()
    pre = product + p["b_enc"]
    if c.architecture.startswith("topk"):
        chosen = torch.zeros_like(pre).scatter(1, pre.topk(c.k or 0, 1).indices, 1.0)
    elif "batchtopk" in c.architecture:
        chosen = (pre >= pre.flatten().topk((c.k or 0) * len(x)).values[-1]).double()
    elif c.architecture.startswith("jumprelu"):
        chosen = (pre > p["threshold"].detach()).double()
    else:
        chosen = torch.ones_like(pre)
    acts = torch.relu(pre) * chosen
    if c.architecture.startswith("matryoshka"):
        widths = [c.d_sae // part for part in (16, 8, 4, 2, 1)]
        first = torch.arange(c.d_sae)
        losses = [error(acts * (first < w), p["W_dec"], p["b_dec"]) for w in widths]
        return torch.stack(losses).mean()
    penalty = (
        l1 * acts.sum() if c.architecture in ("standard", "transcoder", "skip_transcoder") else 0.0
    )
    return error(acts, p["W_dec"], p["b_dec"]) + penalty


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_gradients_are_those_of_the_loss(architecture: str) -> None:
    generator = torch.Generator().manual_seed(3)
    x, other = (torch.randn(64, 24, generator=generator) for _ in range(2))
    y = other if architecture.endswith("transcoder") else x
    c = of(architecture, d_sae=48, batch_size=64)
    values = {
        name: value + 0.1 * torch.randn(value.shape, generator=generator)
        for name, value in initial_values(c, x, y).items()
    }
    outcome = objective_of(c)(Parameters(values), x, y, torch.zeros(48, dtype=torch.bool))
    exact = {name: value.double().requires_grad_() for name, value in values.items()}
    exact_loss(c, exact, x.double(), y.double()).backward()
    assert outcome.gradients.keys() == values.keys()
    for name in values.keys() - {"threshold"}:
        expected = exact[name].grad
        assert expected is not None
        largest = expected.abs().max()
        assert largest > 0, name
        assert (outcome.gradients[name] - expected).abs().max() < 2e-6 * largest, name


def test_the_threshold_moves_as_the_estimate_says() -> None:
    c = of(
        "jumprelu", d_sae=1, k=None, batch_size=4, bandwidth=0.5, l0_target=0.75, l0_coefficient=0.1
    )
    x = torch.tensor([[0.9], [1.1], [2.0], [1.24]])
    ones, zeros = torch.ones, torch.zeros
    values = {"W_enc": ones(1, 1), "W_dec": ones(1, 1), "b_enc": zeros(1), "b_dec": zeros(1)}
    values["threshold"] = ones(1)
    outcome = objective_of(c)(Parameters(values), x, x, torch.zeros(1, dtype=torch.bool))
    # Row 0 lies below the threshold: its error is -0.9. Rows 0, 1 and 3 lie in the rectangle.
    sparsity = 3 * c.l0_coefficient / 4
    expected = -(2 / 4 * -0.9 * 1.0 + sparsity) / 0.5
    assert outcome.gradients["threshold"].item() == pytest.approx(expected, rel=1e-5)


def test_dead_features_are_revived() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 24, generator=generator)
    c = of("topk", d_sae=48)
    p = Parameters(initial_values(c, x, x))
    dead = torch.zeros(48, dtype=torch.bool)
    dead[:5] = True
    plain = of("topk", d_sae=48, auxk_coefficient=0.0)
    with_aux = objective_of(c)(p, x, x, dead).gradients["W_dec"]
    without = objective_of(plain)(p, x, x, dead).gradients["W_dec"]
    assert not torch.equal(with_aux[:5], without[:5])
    assert same_bits(with_aux[5:], without[5:])


# Bits


def test_equal_seeds_give_equal_bits_at_any_threads_and_instruction_set(
    store: ActivationStore, tmp_path: Path
) -> None:
    digests = set()
    settings = [(isa, 1) for isa in _core.available_isas()] + [(_core.isa(), 2), (_core.isa(), 3)]
    for i, (isa, threads) in enumerate(settings):
        run_with(isa, threads)
        digests.add(trained(config(), store, tmp_path / str(i), until=12).digest())
    assert len(digests) == 1
    assert trained(config(seed=1), store, tmp_path / "seed", until=12).digest() not in digests


def run_with(isa: str, threads: int) -> None:
    _core.set_isa(isa)
    bitlens.set_num_threads(threads)
    torch.set_num_threads(threads)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_trains_to_the_same_bits(
    architecture: str, store: ActivationStore, tmp_path: Path
) -> None:
    c, best = of(architecture), _core.isa()
    digests = []
    for isa, threads in ((best, 2), ("generic", 1)):
        run_with(isa, threads)
        digests.append(trained(c, store, tmp_path / isa, until=4).digest())
    assert digests[0] == digests[1]


@pytest.mark.parametrize("architecture", ["topk", "matryoshka_batchtopk", "jumprelu", "gated"])
def test_a_run_that_stopped_ends_with_the_bits_of_one_that_did_not(
    architecture: str, store: ActivationStore, tmp_path: Path
) -> None:
    c = of(architecture)
    whole = trained(c, store, tmp_path / "whole")
    for stop in (3, 17):  # away from a checkpoint, and some steps after one
        trainer = Trainer(c, store, _made(tmp_path / str(stop)))
        with pytest.raises(KeyboardInterrupt):
            trainer.run(_interrupt_at(stop))
        again = trained(c, store, tmp_path / str(stop))
        assert again.digest() == whole.digest()
        assert _steps(tmp_path / str(stop)) == _steps(tmp_path / "whole")


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _interrupt_at(step: int) -> Any:
    def report(line: dict[str, Any]) -> None:
        if line["step"] >= step:
            raise KeyboardInterrupt

    return report


def _steps(folder: Path) -> list[int]:
    return [line["step"] for line in log_of(folder)]


# What comes out


def test_the_scaling_is_folded_away(store: ActivationStore, tmp_path: Path) -> None:
    for architecture in ("topk", "jumprelu", "gated", "topk_skip_transcoder"):
        c = of(architecture)
        trainer = trained(c, store, tmp_path / architecture, until=10)
        dictionary = trainer.dictionary({})
        p, scaling = trainer.parameters, trainer.scaling
        rows = store.sample(50)
        x = rows[HOOK] * scaling.x
        run = _as_dictionary(c, p.values)
        assert torch.allclose(
            dictionary.encode(rows[HOOK]) * scaling.y, run.encode(x), rtol=1e-4, atol=1e-4
        )
        assert torch.allclose(dictionary(rows[HOOK]) * scaling.y, run(x), rtol=1e-4, atol=1e-4)
        norms = dictionary.W_dec.norm(dim=1)
        assert torch.allclose(norms, torch.ones_like(norms), atol=1e-5)


def _as_dictionary(c: TrainConfig, values: dict[str, torch.Tensor]) -> Any:
    from bitlens.interp.dictionaries import Dictionary, DictionaryConfig

    d_sae, d_in = values["W_enc"].shape
    tensors = {**values, "W_enc": values["W_enc"].T.contiguous()}
    cfg = DictionaryConfig(
        architecture=c.architecture, d_in=d_in, d_sae=d_sae, d_out=values["W_dec"].shape[1],
        k=c.k, hook_name=c.hook_name, hook_name_out=c.target_hook,
        apply_b_dec_to_input=not c.is_transcoder,
    )  # fmt: skip
    return Dictionary(cfg, tensors)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_learns_and_is_kept(
    architecture: str, store: ActivationStore, tmp_path: Path
) -> None:
    c = of(architecture, n_tokens=120 * 128, lr=4e-3, l0_target=6.0)
    trainer = trained(c, store, tmp_path)
    lines = log_of(tmp_path)
    assert lines[-1]["explained_variance"] > max(0.3, lines[0]["explained_variance"] + 0.1)
    trainer.dictionary({"model_name": "random"}).save_model(tmp_path / "saved")
    again = load_dictionary(tmp_path / "saved")
    rows = store.sample(100)
    y = again(rows[HOOK])
    target = rows[c.target_hook]
    variance = (target - target.mean(0)).square().sum()
    assert 1 - (y - target).square().sum() / variance > 0.25
    if architecture.endswith("topk"):
        assert again.encode_sparse(rows[HOOK]).l0() < 2.5 * 4


@pytest.mark.parametrize(
    ("target", "first"), [(3.0, 0.0), pytest.param(12.0, 0.005, marks=pytest.mark.nightly)]
)
def test_jumprelu_arrives_at_its_l0(
    target: float, first: float, store: ActivationStore, tmp_path: Path
) -> None:
    """In few steps of a usual size, of which a threshold's are larger than a weight's."""
    c = of("jumprelu", n_tokens=300 * 128, lr=1.5e-3, l0_target=target, l0_coefficient=first)
    trained(c, store, tmp_path)
    late = [line["l0"] for line in log_of(tmp_path)[-10:]]
    assert target * 0.8 < sum(late) / len(late) < target * 1.25


def test_train_saves_what_load_reads_and_knows_when_it_is_done(
    model: HookedTransformer, tmp_path: Path
) -> None:
    seen: list[str] = []
    result = train(
        model, config(), text=documents(), output=tmp_path, progress=lambda *a: seen.append(a[0])
    )
    assert {"harvest", "training"} == set(seen)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "dictionary", "log.jsonl"]
    loaded = load_dictionary(result.path, model=model)
    assert loaded.cfg.metadata["model_fingerprint"] == model.fingerprint()
    assert loaded.cfg.metadata["training"]["seed"] == 0
    assert result.metrics["step"] == 40
    again = train(model, config(), text=documents(), output=tmp_path)
    assert same_bits(again.dictionary.W_enc, result.dictionary.W_enc)
    with pytest.raises(ValueError, match="another config"):
        train(model, config(seed=1), text=documents(), output=tmp_path)
    anew = train(model, config(seed=1), text=documents(), output=tmp_path, resume=False)
    assert not same_bits(anew.dictionary.W_enc, result.dictionary.W_enc)


def test_several_dictionaries_share_a_harvest(model: HookedTransformer, tmp_path: Path) -> None:
    configs = {
        "narrow": config(d_sae=32),
        "mlp": config(
            architecture="topk_skip_transcoder", hook_name="blocks.1.mlp.hook_in", hook_name_out=OUT
        ),
    }
    results = train_all(model, configs, text=documents(), output=tmp_path)
    assert [r.dictionary.cfg.d_sae for r in results] == [32, 96]
    alone = train(model, config(d_sae=32), text=documents(), output=tmp_path / "alone")
    assert results[0].dictionary.W_enc.shape == alone.dictionary.W_enc.shape
    with pytest.raises(ValueError, match="share unique_tokens"):
        train_all(
            model,
            {"a": config(), "b": config(context_size=32)},
            text=documents(),
            output=tmp_path / "c",
        )


def test_the_log_keeps_the_digest_at_step_100(store: ActivationStore, tmp_path: Path) -> None:
    c = config(n_tokens=101 * 128)
    digests = []
    for threads in (2, 1):
        run_with(_core.isa(), threads)
        trained(c, store, tmp_path / str(threads))
        lines = log_of(tmp_path / str(threads))
        digests += [line["weights_sha256"] for line in lines if line["step"] == 100]
    assert len(digests) == 2
    assert digests[0] == digests[1]


# What is refused


def test_a_run_that_explodes_is_stopped(store: ActivationStore, tmp_path: Path) -> None:
    with pytest.raises(TrainingDiverged, match="lower lr"):
        trained(config(n_tokens=400 * 128, lr=30.0, warm_up=0.0, clip=1e9), store, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": 97}, "k = 97"),
        ({"k": None}, "k = None"),
        ({"architecture": "crosscoder"}, "architecture = 'crosscoder'"),
        ({"d_sae": 0}, "d_sae = 0"),
        ({"n_tokens": 5}, "below batch_size"),
        ({"lr": float("nan")}, "lr = nan"),
        ({"warm_up": 1.5}, "warm_up"),
        ({"architecture": "jumprelu"}, "l0_target"),
        ({"architecture": "transcoder"}, "hook_name_out"),
        ({"hook_name_out": OUT}, "writes where it reads"),
        ({"architecture": "matryoshka_batchtopk", "prefixes": (8, 4, 96)}, "prefixes"),
    ],
)
def test_a_bad_config_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**changes)


def test_unknown_and_missing_fields_are_named() -> None:
    with pytest.raises(ValueError, match="unknown field 'd_sea'"):
        TrainConfig.from_dict({"d_sea": 3})
    with pytest.raises(ValueError, match="hook_name is missing"):
        TrainConfig.from_dict({"d_sae": 3})
    assert TrainConfig.from_dict(json.loads(json.dumps(config().to_dict()))) == config()


def test_a_checkpoint_of_another_run_or_damaged_is_refused(
    store: ActivationStore, tmp_path: Path
) -> None:
    trained(config(), store, tmp_path, until=8)
    with pytest.raises(ValueError, match=r"lr = 0\.0008, not 0\.001"):
        Trainer(config(lr=1e-3), store, tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="is damaged"):
        Trainer(config(), store, tmp_path)


def test_a_disk_that_fills_up_keeps_the_last_checkpoint(
    store: ActivationStore, tmp_path: Path
) -> None:
    trainer = trained(config(), store, tmp_path, until=7)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limit[1]))
    try:
        with pytest.raises(OSError, match=r"cannot write|too large"):
            trainer.run(until=14)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before
    assert not list(tmp_path.glob(".checkpoint*"))


def test_text_without_documents_trains_nothing(model: HookedTransformer, tmp_path: Path) -> None:
    for text in ([], ["", "  "], ["short"]):
        with pytest.raises(ValueError, match="no document"):
            train(model, config(), text=open_text(text).documents(), output=tmp_path / "x")


def test_a_model_over_ranks_does_not_train(model_folder: Path, tmp_path: Path) -> None:
    def on_a_rank(group: Group) -> str:
        spread = bitlens.load(model_folder, group=group)
        with pytest.raises(ValueError, match="load without a group") as caught:
            train(spread, config(), text=documents(), output=tmp_path)
        return str(caught.value)

    assert len(run_in_threads(2, on_a_rank, timeout=60)) == 2
