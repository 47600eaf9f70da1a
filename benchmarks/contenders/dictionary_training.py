"""One step of training a TopK SAE: bitlens', and SAELens's, on the same random rows.

A step is forward, loss with AuxK, backward, clipping, Adam and, where the trainer keeps them so,
unit decoder rows. Both sides count the same features as dead, weigh AuxK by the same factor and
rank by the decoder's norms or have these at 1.
"""

from __future__ import annotations

from typing import Any

import torch

from ... import set_num_threads
from .timing import Clock, seconds_per_call

AUXK = 1 / 32


def rows(batch: int, d: int) -> torch.Tensor:
    """The same rows for everyone, of mean square norm d, fp32 [batch, d]."""
    return torch.randn(batch, d, generator=torch.Generator().manual_seed(0))


def dead_features(d_sae: int, share: float) -> torch.Tensor:
    """Bool [d_sae], the first ones."""
    return torch.arange(d_sae) < round(share * d_sae)


class BitlensTraining:
    """The trainer's objective and optimiser."""

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        set_num_threads(threads)

    def step(
        self,
        batch: int,
        d: int,
        d_sae: int,
        k: int,
        dead: float,
        at_least: float = 2.0,
        clock: Clock = "wall",
    ) -> dict[str, float]:
        """Seconds of a step."""
        from ...interp.training import TrainConfig
        from ...interp.training.objectives import objective_of
        from ...interp.training.parameters import Parameters
        from ...interp.training.trainer import initial_values

        config = TrainConfig(
            hook_name="blocks.0.hook_resid_post",
            d_sae=d_sae,
            k=k,
            n_tokens=batch,
            batch_size=batch,
            auxk_coefficient=AUXK,
        )
        x, mask = rows(batch, d), dead_features(d_sae, dead)
        parameters = Parameters(initial_values(config, x, x))
        objective = objective_of(config)

        def call() -> None:
            outcome = objective(parameters, x, x, mask)
            parameters.step(outcome.gradients, 1e-4, 1.0)

        return {"seconds": seconds_per_call(call, at_least, clock)}


class SAELensTraining:
    """`TopKTrainingSAE` as SAELens's trainer drives it."""

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)

    def step(
        self,
        batch: int,
        d: int,
        d_sae: int,
        k: int,
        dead: float,
        autocast: bool = False,
        at_least: float = 2.0,
        clock: Clock = "wall",
    ) -> dict[str, float]:
        """Seconds of a step, in fp32 or with bf16 autocast."""
        from sae_lens.saes.sae import TrainStepInput
        from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig

        sae = TopKTrainingSAE(
            TopKTrainingSAEConfig(d_in=d, d_sae=d_sae, k=k, aux_loss_coefficient=AUXK)
        )
        optimizer = torch.optim.Adam(sae.parameters(), lr=1e-4)
        given: Any = TrainStepInput(
            sae_in=rows(batch, d),
            coefficients={},
            dead_neuron_mask=dead_features(d_sae, dead),
            n_training_steps=0,
            is_logging_step=False,
        )

        def call() -> None:
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                loss = sae.training_forward_pass(given).loss
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(sae.parameters(), 1.0)
            optimizer.step()

        return {"seconds": seconds_per_call(call, at_least, clock)}
