"""One step of training on every layer at once: bitlens', and plain torch's of the same mathematics.

A step is encoding, prediction of all layers, loss, backward, clipping layer by layer, and Adam; the
model's own pass, which both would share, is left out.
"""

from __future__ import annotations

from typing import Any

import torch

from ... import set_num_threads
from .timing import seconds_per_call

LR, CLIP = 1e-4, 1.0


def rows(layers: int, batch: int, d: int) -> tuple[list[torch.Tensor], torch.Tensor]:
    """The same inputs and outputs for everyone: fp32 [batch, d] a layer, and [batch, L * d]."""
    g = torch.Generator().manual_seed(0)
    x = [torch.randn(batch, d, generator=g) for _ in range(layers)]
    return x, torch.randn(batch, layers * d, generator=g)


class BitlensLayers:
    """The trainer's objective and optimiser."""

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        set_num_threads(threads)

    def step(
        self,
        layers: int,
        batch: int,
        d: int,
        d_sae: int,
        k: int,
        max_reach: int | None,
        at_least: float = 2.0,
    ) -> dict[str, float]:
        """Seconds of a step."""
        from ...interp.training.layers import LayersTrainConfig
        from ...interp.training.layers.objective import gradients, output_gradient, predict
        from ...interp.training.parameters import Parameters

        config = LayersTrainConfig(d_sae=d_sae, k=k, n_tokens=batch, max_reach=max_reach)
        g = torch.Generator().manual_seed(1)
        parts = [
            Parameters(
                {
                    "W_enc": torch.randn(d_sae, d, generator=g) / d**0.5,
                    "b_enc": torch.zeros(d_sae),
                    "W_dec": torch.randn(d_sae, config.reach(i, layers) * d, generator=g) / d**0.5,
                },
                unit_decoder=False,
            )
            for i in range(layers)
        ]
        outputs = Parameters({"b_dec": torch.zeros(layers, d)}, unit_decoder=False)
        x, y = rows(layers, batch, d)

        def call() -> None:
            predicted = predict(config, parts, outputs["b_dec"], x, y)
            found = gradients(config, parts, predicted, x, 0.0)
            for part, each in zip(parts, found, strict=True):
                part.step(each, LR, CLIP)
            outputs.step(output_gradient(predicted, layers), LR, CLIP)

        return {"seconds": seconds_per_call(call, at_least)}


class TorchLayers:
    """Autograd over dense activations, and torch's Adam."""

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)

    def step(
        self,
        layers: int,
        batch: int,
        d: int,
        d_sae: int,
        k: int,
        max_reach: int | None,
        at_least: float = 2.0,
    ) -> dict[str, float]:
        """Seconds of a step."""
        reach = [min(layers - i, max_reach or layers) for i in range(layers)]
        encoders = [torch.nn.Linear(d, d_sae) for _ in range(layers)]
        decoders = [torch.nn.Parameter(torch.randn(d_sae, n * d) / d**0.5) for n in reach]
        bias = torch.nn.Parameter(torch.zeros(layers * d))
        groups = [
            [*encoder.parameters(), decoder]
            for encoder, decoder in zip(encoders, decoders, strict=True)
        ]
        optimizer = torch.optim.Adam([p for group in groups for p in group] + [bias], lr=LR)
        x, y = rows(layers, batch, d)

        def call() -> None:
            parts: list[list[torch.Tensor]] = [[] for _ in range(layers)]
            for i, encoder in enumerate(encoders):
                top: Any = encoder(x[i]).topk(k, dim=1)
                acts = torch.zeros(batch, d_sae).scatter(1, top.indices, top.values.relu())
                written = acts @ decoders[i]
                for j, part in enumerate(written.split(d, dim=1)):
                    parts[i + j].append(part)
            total = torch.cat([torch.stack(part).sum(0) for part in parts], dim=1) + bias
            loss = (total - y).square().sum() / (batch * d)
            optimizer.zero_grad()
            loss.backward()
            for group in groups:
                torch.nn.utils.clip_grad_norm_(group, CLIP)
            optimizer.step()

        return {"seconds": seconds_per_call(call, at_least)}
