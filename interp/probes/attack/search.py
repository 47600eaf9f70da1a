"""An adaptive attack: tokens before a text that keep the probe's running score low all through it.

Greedy coordinate search (Zou et al., 2023, arXiv 2307.15043): the gradient of the score by a
prefix token's embedding ranks the vocabulary, the best few are tried, and the best one stays. The
text itself is left as it is. A suffix could not help: a monitor has raised its alarm before it.

Shapes: P tokens of a prefix, S of prefix and text, V vocabulary, D width of the probe's rows.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ....model.hooks.registry import HookPoint, Hooks, layer_of
from ....model.transformer import HookedTransformer
from ..probe import Probe
from ..reading import TokenIds, read, side_by_side


@dataclass(frozen=True)
class Hidden:
    """The outcome of a search.

    Attributes:
        before: The largest running score of the text alone.
        random: That behind the random prefix from which the search begins: what dilution does.
        after: That behind the prefix which was found.
        tries: Prefixes that were scored.
    """

    before: float
    random: float
    after: float
    tries: int


def hide(
    model: HookedTransformer,
    probe: Probe,
    text: Sequence[int],
    *,
    n_prefix: int = 8,
    steps: int = 8,
    n_tries: int = 16,
    seed: int = 0,
) -> Hidden:
    """Searches a prefix that hides a text from a probe.

    Args:
        text: Token ids, with the BOS at their head where the model has one.
        n_prefix: Tokens of the prefix, which stands behind the BOS.
        steps: Tokens changed, one a step, from the first to the last and round again.
        n_tries: Tokens tried in a step.
        seed: Of the first prefix.

    Raises ValueError for numbers below 1, and for a probe of features, which has no gradient here.
    """
    if min(n_prefix, steps, n_tries) < 1:
        raise ValueError(
            f"n_prefix = {n_prefix}, steps = {steps}, n_tries = {n_tries}: expected 1+"
        )
    if "dictionary" in probe.metadata_:
        raise ValueError("the search needs a probe of activations, not of a dictionary's features")
    bos = getattr(model.tokenizer, "bos_id", None)
    head = [text[0]] if len(text) and text[0] == bos else []
    rest = list(text[len(head) :])
    generator = random.Random(seed)
    prefix = [generator.randrange(model.config.d_vocab) for _ in range(n_prefix)]
    before = float(_highest(model, probe, [[*head, *rest]]))
    first = best = float(_highest(model, probe, [[*head, *prefix, *rest]]))
    tries = 1
    for step in range(steps):
        at = step % n_prefix
        slope_V = _slope(model, probe, [*head, *prefix, *rest], len(head) + at)
        tokens = slope_V.topk(min(n_tries, len(slope_V)), largest=False).indices.tolist()
        tried = [[*prefix[:at], token, *prefix[at + 1 :]] for token in tokens]
        scores = _highest(model, probe, [[*head, *p, *rest] for p in tried])
        tries += len(tried)
        if float(scores.min()) < best:
            best, prefix = float(scores.min()), tried[int(scores.argmin())]
    return Hidden(before, first, best, tries)


def _highest(
    model: HookedTransformer, probe: Probe, sequences: Sequence[Sequence[int]]
) -> torch.Tensor:
    """The largest running score of each sequence, which decides whether it is flagged."""
    tokens = TokenIds(tuple(map(tuple, sequences)), max(map(len, sequences)))
    rows = read(model, tokens, probe.hook_names)
    scores = probe.running_scores(side_by_side([rows[name] for name in probe.hook_names]))
    return scores.nan_to_num(-torch.inf).amax(1)


def _slope(model: HookedTransformer, probe: Probe, tokens: Sequence[int], at: int) -> torch.Tensor:
    """To first order, what each token of the vocabulary in this place would do to the mean of the
    tokens' own scores, fp32 [V]."""
    found: dict[str, torch.Tensor] = {}
    leaf: list[torch.Tensor] = []

    def embed(tensor: torch.Tensor, *, hook: HookPoint) -> torch.Tensor:
        leaf.append(tensor.detach().clone().requires_grad_())
        return leaf[0]

    def keep(tensor: torch.Tensor, *, hook: HookPoint) -> None:
        found[hook.name] = tensor

    hooks: Hooks = [("hook_embed", embed), *((name, keep) for name in probe.hook_names)]

    layers = [layer_of(name) for name in probe.hook_names]
    inner = [layer for layer in layers if layer is not None]
    with torch.enable_grad():
        model.run_with_hooks(
            torch.tensor([list(tokens)], dtype=torch.int64, device="cpu"),
            fwd_hooks=hooks,
            return_type=None,
            stop_at_layer=max(inner) + 1 if len(inner) == len(layers) else None,
        )
        rows_SD = torch.cat([found[name][0].flatten(1).float() for name in probe.hook_names], -1)
        score = (rows_SD[probe.skip_first :] @ probe.coef_.T).mean()
        (slope_1Sd,) = torch.autograd.grad(score, leaf)
    return model.W_E.detach().float() @ slope_1Sd[0, at].float()
