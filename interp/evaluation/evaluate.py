"""`evaluate`: how good a dictionary is on held-out text."""

from __future__ import annotations

from collections.abc import Callable

from ...model.transformer import HookedTransformer
from ..activations import Packing, TextSource, open_text
from ..activations.documents import Split, Text
from ..dictionaries import Dictionary, check_fits
from .behaviour import Behaviour, behaviour
from .evaluated_text import read_text
from .result import EvalResult
from .survey import Survey, survey

N_TOKENS = 1 << 16
N_DEAD_TOKENS = 1_000_000

Progress = Callable[[str, int, int], None]
"""Called with the stage ("features", then "losses"), tokens done, and tokens in all."""


def evaluate(
    model: HookedTransformer,
    dictionary: Dictionary,
    *,
    text: Text | TextSource = None,
    n_tokens: int = N_TOKENS,
    n_dead_tokens: int = N_DEAD_TOKENS,
    split: Split = "held_out",
    packing: Packing | None = None,
    exclude_outliers: bool = True,
    strict: bool = True,
    progress: Progress | None = None,
) -> EvalResult:
    """Returns how good a dictionary is: its reconstructions, its features, what the model loses.

    The model runs on `n_dead_tokens` up to the dictionary's hook, and five times to the end on
    `n_tokens`. Texts with fewer tokens are read to their end, and the result says how many there
    were. Sums are fp64.

    Args:
        text: As `open_text` takes it; None is the default corpus.
        n_tokens: Tokens to judge reconstructions and losses on, rounded up to whole sequences.
        n_dead_tokens: Tokens in which a feature must be active once not to be dead; those of
            `n_tokens` come first.
        split: Documents to take: "held_out", which training never saw, or "all" of a text that
            training saw nothing of.
        packing: How documents become sequences; None takes the dictionary's context size.
        exclude_outliers: Whether rows of more than 3 times the median norm, found on the first
            8,192 tokens, count as outliers.
        strict: Whether a dictionary trained on a model of another fingerprint raises, or warns.
        progress: Called after every batch.

    Raises:
        DictionaryError: a dictionary that does not fit the model.
        ValueError: text without a sequence to judge, or a context longer than the model's.
    """
    check_fits(dictionary, model, strict=strict)
    packing = packing_of(dictionary) if packing is None else packing
    source = text if isinstance(text, TextSource) else open_text(text)
    found = read_text(model, source, packing, split, n_tokens, n_dead_tokens)
    in_all = max(found.n_tokens, n_dead_tokens)

    def report(stage: str, total: int) -> Callable[[int], None]:
        return lambda done: None if progress is None else progress(stage, done, total)

    seen = survey(model, dictionary, found, exclude_outliers, report("features", in_all))
    losses = behaviour(
        model,
        dictionary,
        found.sequences,
        seen.limits,
        seen.kept.mean(),
        report("losses", found.n_tokens),
    )
    return _result(seen, losses)


def packing_of(dictionary: Dictionary) -> Packing:
    """Returns how text is packed for a dictionary: contexts as long as those it was trained on."""
    size = dictionary.cfg.metadata.get("context_size")
    return Packing(size) if isinstance(size, int) and size >= 2 else Packing()


def _result(seen: Survey, losses: Behaviour) -> EvalResult:
    delta = losses.spliced - losses.plain
    return EvalResult(
        l0=seen.l0,
        explained_variance=seen.kept.explained_variance(),
        explained_variance_all=seen.every.explained_variance(),
        mse=seen.kept.mse(),
        cossim=seen.kept.cossim(),
        ce_loss_without_sae=losses.plain,
        ce_loss_with_sae=losses.spliced,
        ce_loss_with_ablation=losses.zero,
        ce_loss_with_mean_ablation=losses.mean,
        ce_loss_with_sae_all=losses.spliced_all,
        delta_ce=delta,
        delta_ce_all=losses.spliced_all - losses.plain,
        ce_loss_score=_recovered(losses.plain, losses.spliced, losses.zero),
        ce_loss_score_mean=_recovered(losses.plain, losses.spliced, losses.mean),
        kl_div_with_sae=losses.kl,
        dead_share=seen.activity.dead_share(),
        density=seen.activity.density(),
        n_tokens=seen.every.n_rows,
        n_excluded=seen.every.n_rows - seen.kept.n_rows,
        n_dead_tokens=seen.n_dead_tokens,
    )


def _recovered(plain: float, spliced: float, ablated: float) -> float:
    """The part of the damage that is undone; where ablating does none, 1 if nothing was lost."""
    if ablated == plain:
        return 1.0 if spliced == plain else 0.0
    return (ablated - spliced) / (ablated - plain)
