"""`python -m bitlens.benchmarks.dictionary_quality RUN`: what our trainer and SAELens's reach.

RUN is the folder of a run of `bitlens sae train --keep-harvest`. Both trainers see the same rows in
the same batches, from the same seed, at the same learning rate with the same rise and fall, and
count the same share of steps as warm-up. Explained variance is that of rows neither has seen: the
harvest's last shard, which is kept out. More active features explain more, so SAELens's JumpReLU,
which is steered towards k, is first, and ours is given the L0 that it arrived at. There
the sparsity's gradient reaches the encoder, with a wide bandwidth: at SAELens's defaults so few
steps leave 979 of 1152 features active where 32 are wanted.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from ..interp.activations.store import ActivationStore
from ..interp.training import TrainConfig
from ..interp.training.trainer import Trainer, schedule


class Raced(StrEnum):
    topk = "topk"
    jumprelu = "jumprelu"


def main(
    run: Annotated[Path, typer.Argument(help="The folder of a run with its harvest.")],
    d_sae: int = 1152,
    k: int = 32,
    steps: int = 300,
    lr: float = 1.5e-3,
    seed: int = 0,
    architecture: Annotated[list[Raced] | None, typer.Option(help="Default: all of them.")] = None,
) -> None:
    """Train SAEs both ways; print the explained variance of each."""
    store = ActivationStore(run / "harvest")
    (hook,) = store.description["hook_names"]
    held_out = store.shards.pop()
    rows = store.read([held_out])[hook][:32_768]
    for raced in architecture or list(Raced):
        config = TrainConfig(
            architecture=raced,
            hook_name=hook,
            d_sae=d_sae,
            k=k if raced is Raced.topk else None,
            l0_target=float(k),
            n_tokens=steps * 2048,
            lr=lr,
            seed=seed,
            checkpoint_every=steps,
        )
        theirs = _sae_lens(config, store, rows)
        ours = _ours(dataclasses.replace(config, l0_target=theirs["l0"]), store, rows)
        typer.echo(json.dumps({"architecture": raced, "bitlens": ours, "SAELens": theirs}))


def _ours(config: TrainConfig, store: ActivationStore, rows: torch.Tensor) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(config, store, Path(folder))
        trainer.run()
    sae = trainer.dictionary({})
    return _judged(rows, sae(rows), sae.encode(rows))


def _sae_lens(config: TrainConfig, store: ActivationStore, rows: torch.Tensor) -> dict[str, float]:
    from sae_lens.saes.sae import TrainStepInput

    torch.manual_seed(config.seed)
    sae: Any = _peer(config, rows.shape[1])
    # SAELens's expected_average_only_in: rows of a mean norm of sqrt(d).
    scale = rows.shape[1] ** 0.5 / float(store.sample(32_768)[config.hook_name].norm(dim=1).mean())
    optimizer = torch.optim.Adam(sae.parameters(), lr=config.lr)
    batches = store.batches(config.batch_size, config.seed)
    fired = torch.zeros(config.d_sae, dtype=torch.int64)
    for step in range(config.n_steps):
        for group in optimizer.param_groups:
            group["lr"] = config.lr * schedule(config, step)
        out = sae.training_forward_pass(
            TrainStepInput(
                sae_in=next(batches)[config.hook_name] * scale,
                coefficients={name: c.value for name, c in sae.get_coefficients().items()},
                dead_neuron_mask=step - fired > 1000,
                n_training_steps=step,
                is_logging_step=False,
            )
        )
        optimizer.zero_grad()
        out.loss.backward()
        torch.nn.utils.clip_grad_norm_(sae.parameters(), 1.0)
        optimizer.step()
        fired[(out.feature_acts.detach() > 0).any(0)] = step
    with torch.no_grad():
        acts = sae.encode(rows * scale)
        return _judged(rows, sae.decode(acts) / scale, acts)


def _peer(config: TrainConfig, d_in: int) -> Any:
    from sae_lens.saes.jumprelu_sae import JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig

    if config.architecture == "topk":
        return TopKTrainingSAE(TopKTrainingSAEConfig(d_in=d_in, d_sae=config.d_sae, k=config.k))
    return JumpReLUTrainingSAE(
        JumpReLUTrainingSAEConfig(
            d_in=d_in,
            d_sae=config.d_sae,
            jumprelu_init_threshold=0.1,
            jumprelu_bandwidth=2.0,
            jumprelu_ste_to_input=True,
            jumprelu_sparsity_loss_mode="quadratic",
            target_l0=config.l0_target,
        )
    )


def _judged(x: torch.Tensor, x_hat: torch.Tensor, acts: torch.Tensor) -> dict[str, float]:
    total = (x.double() - x.double().mean(0)).square().sum()
    missed = (x.double() - x_hat.double()).square().sum()
    return {
        "explained_variance": round(float(1 - missed / total), 4),
        "l0": round(float((acts > 0).sum(1).double().mean()), 2),
    }


if __name__ == "__main__":
    typer.run(main)
