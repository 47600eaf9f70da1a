"""Transcoders of every layer under training: gradients, resumption, determinism, memory, files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import bitlens
import pytest
import torch
from bitlens.interp import LayersTrainConfig, evaluate_layers, trace, train_layers
from bitlens.interp.activations import open_text
from bitlens.interp.dictionaries import CrossLayerTranscoder, load_cross_layer
from bitlens.interp.training.layers.objective import (
    gradients,
    output_gradient,
    predict,
)
from bitlens.interp.training.layers.stream import RowStream
from bitlens.interp.training.layers.trainer import LayersTrainer
from bitlens.interp.training.parameters import Parameters
from bitlens.model.transformer import HookedTransformer
from support.random_models import random_model
from support.training_runs import documents, layers_config, speaking_model

KINDS: dict[str, dict[str, Any]] = {
    "cross": {},
    "per_layer": {"max_reach": 1},
    "near": {"max_reach": 2},
    "jumprelu": {"activation": "jumprelu", "k": None, "bandwidth": 0.5},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("model")


@pytest.fixture(scope="module")
def model(folder: Path) -> HookedTransformer:
    return speaking_model(folder)


def trained(
    config: LayersTrainConfig, model: HookedTransformer, folder: Path, until: int | None = None
) -> LayersTrainer:
    folder.mkdir(parents=True, exist_ok=True)
    trainer = LayersTrainer(config, RowStream(model, open_text(documents()), config), folder)
    trainer.run(until=until)
    return trainer


# Gradients.


def random_step(
    config: LayersTrainConfig, n_layers: int, d: int, rows: int
) -> tuple[list[Parameters], torch.Tensor, list[torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(3)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    layers = []
    for i in range(n_layers):
        values = {
            "W_enc": randn(config.d_sae, d) / d**0.5,
            "b_enc": 0.1 * randn(config.d_sae),
            "W_dec": 0.3 * randn(config.d_sae, config.reach(i, n_layers) * d),
        }
        if config.activation == "jumprelu":
            values["threshold"] = 0.2 + 0.1 * randn(config.d_sae).abs()
        layers.append(Parameters(values, unit_decoder=False))
    x = [randn(rows, d) for _ in range(n_layers)]
    return layers, randn(n_layers, d), x, randn(rows, n_layers * d)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_the_loss_in_fp64(kind: str) -> None:
    """The loss once more, from the formulas, differentiated by autograd."""
    config = layers_config(d_sae=12, **{"k": 3, **KINDS[kind]})
    n_layers, d, rows, sparsity = 3, 10, 7, 0.4
    layers, b_dec, x, y = random_step(config, n_layers, d, rows)
    found = predict(config, layers, b_dec, x, y)
    ours = list(gradients(config, layers, found, x, sparsity))
    exact = [{n: v.double().requires_grad_() for n, v in layer.values.items()} for layer in layers]
    bias = b_dec.double().requires_grad_()
    loss = torch.zeros((), dtype=torch.float64)
    total = bias.reshape(1, -1).repeat(rows, 1)
    for i, p in enumerate(exact):
        pre = x[i].double() @ p["W_enc"].T + p["b_enc"]
        if config.activation == "topk":
            assert config.k is not None
            chosen = torch.zeros_like(pre).scatter(1, pre.topk(config.k).indices, 1.0)
            acts = (pre * chosen).clamp(min=0)
        else:
            acts = pre * (pre > p["threshold"])
            norms = p["W_dec"].detach().norm(dim=1)
            loss = loss + sparsity / rows * torch.tanh(config.tanh_c * norms * acts).sum()
        n = config.reach(i, n_layers)
        part = torch.zeros(rows, n_layers * d, dtype=torch.float64)
        part[:, i * d : (i + n) * d] = acts @ p["W_dec"]
        total = total + part
    loss = loss + (total - y.double()).square().sum() / (rows * d)
    loss.backward()
    for p, g in zip(exact, ours, strict=True):
        for name in ("W_enc", "b_enc", "W_dec"):
            expected = p[name].grad
            assert expected is not None
            limit = 1e-5 * float(expected.abs().max())
            assert float((g[name] - expected).abs().max()) < limit
    assert bias.grad is not None
    b = output_gradient(found, n_layers)["b_dec"]
    assert float((b - bias.grad).abs().max()) < 1e-5 * float(bias.grad.abs().max())
    assert sum(found.nmse) * rows * d == pytest.approx(
        float((total - y).detach().square().sum()), rel=1e-5
    )


def test_the_thresholds_gradient_is_the_papers_estimate() -> None:
    config = layers_config(d_sae=12, activation="jumprelu", k=None, bandwidth=0.5)
    layers, b_dec, x, y = random_step(config, 2, 10, 7)
    found = predict(config, layers, b_dec, x, y)
    (ours, _) = list(gradients(config, layers, found, x, 0.4))
    p = {name: v.double() for name, v in layers[0].values.items()}
    pre = x[0].double() @ p["W_enc"].T + p["b_enc"]
    near = (pre - p["threshold"]).abs() < config.bandwidth / 2
    norms = p["W_dec"].norm(dim=1)
    pull = found.gradient.double() @ p["W_dec"].T * p["threshold"]
    jump = pull + 0.4 / 7 * torch.tanh(config.tanh_c * norms * p["threshold"])
    expected = -(jump * near).sum(0) / config.bandwidth
    assert bool(near.any())
    assert float((ours["threshold"] - expected).abs().max()) < 1e-5 * float(expected.abs().max())


# Runs.


@pytest.mark.parametrize("kind", KINDS)
def test_training_learns_and_files_hold_what_was_trained(
    kind: str, model: HookedTransformer, tmp_path: Path
) -> None:
    config = layers_config(**KINDS[kind])
    lines: list[dict[str, Any]] = []
    result = train_layers(
        model, config, text=documents(), output=tmp_path, progress=lambda s, n, x: lines.append(x)
    )
    assert lines[-1]["step"] == config.n_steps == 20
    assert lines[-1]["loss"] < 0.97 * lines[0]["loss"]
    assert isinstance(result.transcoders, CrossLayerTranscoder) == (kind != "per_layer")
    assert not list(tmp_path.glob("checkpoint*"))
    again = train_layers(model, config, text=documents(), output=tmp_path)  # is done
    assert again.metrics == result.metrics
    judged = evaluate_layers(
        model, result.transcoders, text=documents(), split="all", n_tokens=300, layers_alone=[1]
    )
    assert sum(judged.nmse) / 2 < 0.98
    assert 0 < judged.top1_agreement < 1
    assert judged.delta_ce_alone[1] != judged.delta_ce
    graph = trace(model, torch.tensor([[5, 6, 7, 8, 9]]), result.transcoders)
    assert any(node.kind == "feature" for node in graph.nodes)


def test_predictions_of_the_run_are_those_of_the_files(
    model: HookedTransformer, tmp_path: Path
) -> None:
    """The scaling is folded in: what the trainer predicts, the files do, up to roundings."""
    config = layers_config(max_reach=1)
    result = train_layers(model, config, text=documents(), output=tmp_path / "files")
    trainer = trained(config, model, tmp_path / "run")
    assert trainer.digest() in (tmp_path / "files" / "result.json").read_text()
    rows = trainer.stream.read(next(trainer.stream.batches()), trainer.calibration.limits)
    scales = trainer.calibration
    x = [each * scales.x_scale[i] for i, each in enumerate(rows.x)]
    p = predict(config, trainer.layers, trainer.outputs["b_dec"], x, torch.zeros_like(rows.y))
    assert isinstance(result.transcoders, dict)
    for i, each in enumerate(result.transcoders.values()):
        d = model.config.d_model
        error = p.gradient[:, i * d : (i + 1) * d] * (len(rows.y) * d / 2)
        expected = error / scales.y_scale[i]
        assert torch.allclose(each(rows.x[i]), expected, rtol=1e-4, atol=1e-5)


def test_an_interrupted_run_has_the_bits_of_one_that_was_not(
    model: HookedTransformer, tmp_path: Path
) -> None:
    config = layers_config()
    whole = trained(config, model, tmp_path / "whole").digest()
    trained(config, model, tmp_path / "parts", until=17)  # its last checkpoint is of step 14
    bitlens.set_num_threads(1)
    torch.set_num_threads(1)
    assert trained(config, model, tmp_path / "parts").digest() == whole
    other = layers_config(seed=1)
    assert trained(other, model, tmp_path / "other").digest() != whole
    with pytest.raises(ValueError, match="seed"):
        trained(other, model, tmp_path / "whole")


def test_a_killed_run_goes_on(folder: Path, model: HookedTransformer, tmp_path: Path) -> None:
    """kill -9 as soon as a checkpoint is named; the run after it ends with the same bits."""
    command = [sys.executable, "-m", "support.training_runs", "layers", folder, tmp_path / "killed"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(command, env=environment)
    pointer = tmp_path / "killed" / "checkpoint.json"
    until = time.monotonic() + 240
    while not pointer.exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed" / "result.json").exists()
    config = layers_config(n_tokens=30 * 128, checkpoint_every=2)
    train_layers(model, config, text=documents(), output=tmp_path / "killed")
    expected = trained(config, model, tmp_path / "whole").digest()
    assert expected in (tmp_path / "killed" / "result.json").read_text()


def test_damaged_checkpoints_are_refused(model: HookedTransformer, tmp_path: Path) -> None:
    config = layers_config()
    trained(config, model, tmp_path, until=8)
    part = next(tmp_path.glob("checkpoint_*/part_000.safetensors"))
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(ValueError, match="damaged"):
        trained(config, model, tmp_path)


def test_what_is_held_is_within_the_stated_bound(model: HookedTransformer, tmp_path: Path) -> None:
    """12 bytes a weight: no gradient of all layers, no second copy."""
    config = layers_config(d_sae=256)
    trainer = trained(config, model, tmp_path, until=2)
    parts = [*trainer.layers, trainer.outputs]
    n_weights = sum(x.numel() for part in parts for x in part.values.values())
    held = sum(x.numel() * 4 for part in parts for x in part.tensors().values())
    assert held == 12 * n_weights


def test_limited_reach_writes_nothing_beyond(tmp_path: Path) -> None:
    config = layers_config(max_reach=2, hook_in="hook_resid_mid", d_sae=24)
    model = speaking_model(tmp_path / "model", num_hidden_layers=4)
    train_layers(model, config, text=documents(), output=tmp_path / "run")
    clt = load_cross_layer(tmp_path / "run" / "transcoders")
    W_dec: torch.Tensor = clt.W_dec_0
    assert not bool(W_dec[:, 2:].any())
    assert bool(W_dec[:, 1].any())


# Refused.


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"k": None}, "k = None"),
        ({"k": 97}, "k = 97"),
        ({"activation": "gelu"}, "activation"),
        ({"max_reach": 0}, "max_reach"),
        ({"lr": 0.0}, "lr"),
        ({"n_tokens": 0}, "n_tokens"),
        ({"decay": 2.0}, "decay"),
    ],
)
def test_bad_configs(changes: dict[str, Any], names: str) -> None:
    with pytest.raises(ValueError, match=names):
        layers_config(**changes)


def test_runs_that_cannot_be(model: HookedTransformer, tmp_path: Path) -> None:
    def attempt(text: Any = None, **changes: Any) -> None:
        train_layers(model, layers_config(**changes), text=text or documents(), output=tmp_path)

    with pytest.raises(KeyError, match="hook_mpl_in"):
        attempt(hook_in="hook_mpl_in")
    with pytest.raises(ValueError, match="wide"):
        attempt(hook_in="mlp.hook_post")
    with pytest.raises(ValueError, match="context_size"):
        attempt(context_size=1000)
    with pytest.raises(ValueError, match="long enough"):
        attempt(text=["short"])
    with pytest.raises(ValueError, match="tokenizer"):
        train_layers(random_model("llama"), layers_config(), text=documents(), output=tmp_path)
