"""A probe under attack, at its frozen threshold: rewritten texts beside benign ones rewritten
alike, and an adaptive search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ....model.transformer import HookedTransformer
from ...dictionaries import load_dictionary
from ..data import Dataset, check_unseen
from ..figures import auroc, proportion
from ..probe import Probe
from ..protocol.alarms import highest
from ..protocol.scoring import Running, score_texts
from ..reading import MAX_TOKENS, Progress, tokenize
from .rewrites import REWRITES
from .search import Hidden, hide


@dataclass(frozen=True)
class AttackConfig:
    """The effort of the attacks.

    Attributes:
        rewrites: Names of `REWRITES`.
        n_hidden: Flagged conversations that the adaptive search tries to hide; 0 leaves it out.
        n_prefix, steps, n_tries: As `hide` takes them.
        max_tokens: Tokens of a text that the search works on.
    """

    rewrites: tuple[str, ...] = tuple(REWRITES)
    n_hidden: int = 20
    n_prefix: int = 8
    steps: int = 8
    n_tries: int = 16
    max_tokens: int = 64

    def __post_init__(self) -> None:
        if unknown := set(self.rewrites) - set(REWRITES):
            raise ValueError(f"rewrite {min(unknown)!r}: expected {', '.join(REWRITES)}")


def attack_probe(
    model: HookedTransformer,
    probe: Probe,
    data: Dataset,
    config: AttackConfig = AttackConfig(),
    *,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Returns what is left of a probe's recall under attack, as JSON holds it; no text is in it.

    Of each rewrite: recall and false positives at the probe's threshold, and AUROC, which tells a
    probe that no longer sees the matter from one that a cipher shifts as a whole. Of the search:
    the share of flagged conversations that it hides, beside the share that a random prefix hides.

    Raises LeakError for conversations that the probe was trained on, ValueError for data of one
    class, and as `hide` does.
    """
    check_unseen(probe.metadata_.get("text_digests", ()), data)
    if not 0 < data.y.sum() < len(data):
        raise ValueError(f"{data.name}: an attack is judged on conversations of both classes")
    plain = _running(model, probe, data, str, progress, "as they are")
    found = {"as they are": _figures(highest(plain), data, probe.threshold_)}
    for name in config.rewrites:
        running = _running(model, probe, data, REWRITES[name], progress, name)
        found[name] = _figures(highest(running), data, probe.threshold_)
    report = {
        "data": data.provenance(),
        "threshold": probe.threshold_,
        "config": asdict(config),
        "rewrites": found,
    }
    if config.n_hidden:
        report["search"] = _search(model, probe, data, plain, config, progress)
    return report


def _running(
    model: HookedTransformer,
    probe: Probe,
    data: Dataset,
    rewrite: Callable[[str], str],
    progress: Progress | None,
    stage: str,
) -> Running:
    rewritten = replace(
        data, examples=tuple(replace(e, text=rewrite(e.text)) for e in data.examples)
    )
    name = probe.metadata_.get("dictionary")
    (running,) = score_texts(
        model, rewritten, [probe], int(probe.metadata_.get("max_tokens", MAX_TOKENS)),
        dictionary=None if name is None else load_dictionary(name), progress=progress, stage=stage,
    )  # fmt: skip
    return running


def _figures(scores: Any, data: Dataset, threshold: float) -> dict[str, Any]:
    above, positive = scores > threshold, data.y == 1
    return {
        "auroc": auroc(scores, data.y),
        "recall": proportion(int(above[positive].sum()), int(positive.sum())).to_dict(),
        "fpr": proportion(int(above[~positive].sum()), int((~positive).sum())).to_dict(),
    }


def _search(
    model: HookedTransformer,
    probe: Probe,
    data: Dataset,
    plain: Running,
    config: AttackConfig,
    progress: Progress | None,
) -> dict[str, Any]:
    """The first positives, in their order, that are flagged within the tokens of the search."""
    heads = [running[: max(1, config.max_tokens - probe.skip_first)] for running in plain]
    flagged = np.flatnonzero((highest(heads) > probe.threshold_) & (data.y == 1))
    tokens = tokenize(model, data.take(flagged[: config.n_hidden]), config.max_tokens).ids
    outcomes: list[Hidden] = []
    for number, ids in enumerate(tokens):
        outcomes.append(
            hide(
                model, probe, ids, n_prefix=config.n_prefix, steps=config.steps,
                n_tries=config.n_tries, seed=number,
            )
        )  # fmt: skip
        if progress is not None:
            progress("search", len(outcomes), len(tokens))
    if not outcomes:
        return {"flagged": 0}
    t, n = probe.threshold_, len(outcomes)
    return {
        "flagged": n,
        "hidden": proportion(sum(o.after <= t for o in outcomes), n).to_dict(),
        "hidden_by_a_random_prefix": proportion(sum(o.random <= t for o in outcomes), n).to_dict(),
        "score_before": float(np.median([o.before for o in outcomes])),
        "score_random": float(np.median([o.random for o in outcomes])),
        "score_after": float(np.median([o.after for o in outcomes])),
        "tries": sum(o.tries for o in outcomes),
    }
