"""Probes fitted to labelled texts, as judges, filters and monitors use them."""

from __future__ import annotations

from typing import Any

import torch

from ..interp.probes import LogisticProbe, Probe
from ..interp.probes.data import Dataset
from ..interp.probes.reading import MAX_TOKENS, check_hooks, read, side_by_side, tokenize
from ..model.transformer import HookedTransformer


def fitted_probe(
    model: HookedTransformer,
    labelled: Dataset,
    hook_name: str | None = None,
    max_tokens: int = MAX_TOKENS,
    **settings: Any,
) -> LogisticProbe:
    """Returns a logistic probe of a model's activations over texts.

    Args:
        hook_name: None takes the residual stream after the middle block.
        settings: As `LogisticProbe` takes them.

    Raises ValueError for a name that is no hook, one class alone, or too few groups.
    """
    hook = hook_name or f"blocks.{model.config.n_layers // 2}.hook_resid_post"
    check_hooks(model, [hook])
    rows = read(model, tokenize(model, labelled, max_tokens), [hook])[hook]
    labels = [example.label for example in labelled]
    return LogisticProbe(hook, **settings).fit(rows, labels, groups=labelled.groups)


def probe_scores(
    model: HookedTransformer, probe: Probe, texts: Dataset, max_tokens: int = MAX_TOKENS
) -> torch.Tensor:
    """Returns the probe's score of each text, [B]."""
    hooks = list(probe.hook_names)
    rows = read(model, tokenize(model, texts, max_tokens), hooks)
    return probe.decision_function(side_by_side([rows[hook] for hook in hooks]))


def probe_identity(probe: Probe) -> list[Any]:
    """Returns all that decides a probe's scores, as JSON-ready data."""
    return [
        probe.kind,
        list(probe.hook_names),
        probe.coef_.double().tolist(),
        probe.intercept_.double().tolist(),
    ]
