"""`explore`: look at what a model makes of a prompt, in a notebook or in a file."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...model.transformer import HookedTransformer
from ..dictionaries import Dictionary, load_dictionary
from ..dictionaries.load import SHIPPED
from ..examples import Examples, load_examples
from ..lenses import JacobianLens
from .labels import Labels
from .live import LivePrompt
from .names import setup_code, shown_name
from .page import Page
from .prompt_page import prompt_page

if TYPE_CHECKING:
    from .widget import PageWidget

Given = (
    Dictionary
    | str
    | Path
    | Sequence[Dictionary | str | Path]
    | Mapping[str, Dictionary | str | Path]
    | None
)
"""Dictionaries, or what `load_dictionary` takes: one, several, or several by hook."""


def explore(
    model: HookedTransformer,
    prompt: str,
    dictionaries: Given = None,
    *,
    against: HookedTransformer | None = None,
    labels: Labels = None,
    jacobian_lens: JacobianLens | None = None,
) -> Page | PageWidget:
    """Returns a page on what a model makes of a prompt, which a notebook shows.

    In a notebook with `anywidget` (`pip install 'bitlens[notebook]'`) it is live: other prompts can
    be asked, and features steered. Elsewhere it is a page that `save(path)` writes to a file.

    Args:
        dictionaries: None takes the one that bitlens brings for this model.
        against: The same model under another policy, compared token for token.
        labels: What features are called: a file, labels by feature, or a function of a card.
        jacobian_lens: Shown beneath the logit lens (`bitlens.interp.lenses.fit_jacobian_lens`).

    Raises:
        ValueError: an empty prompt, or a model that bitlens brings no dictionary for.
        DictionaryError: a dictionary that does not fit the model.
    """
    page, live = explored(
        model,
        prompt,
        dictionaries,
        against=against,
        labels=labels,
        jacobian_lens=jacobian_lens,
    )
    if not _in_notebook():
        return page
    try:
        from .widget import PageWidget
    except ImportError:
        return page
    return PageWidget(page, live)


def explored(
    model: HookedTransformer,
    prompt: str,
    dictionaries: Given = None,
    *,
    against: HookedTransformer | None = None,
    labels: Labels = None,
    jacobian_lens: JacobianLens | None = None,
) -> tuple[Page, LivePrompt]:
    """Returns the page of a prompt, and what stands behind it where it is live.

    Arguments, and what is raised, are those of `explore`.
    """
    by_hook = _by_hook(model, dictionaries)
    examples = {hook: examples_of(dictionary) for hook, dictionary in by_hook.items()}
    setup = setup_code(model, by_hook)
    page = prompt_page(
        model,
        prompt,
        by_hook,
        examples=examples,
        against=against,
        labels=labels,
        jacobian_lens=jacobian_lens,
        setup=setup,
    )
    return page, LivePrompt(model, by_hook, examples, against, labels, jacobian_lens, setup)


def examples_of(dictionary: Dictionary) -> Examples | None:
    """Returns the examples beside a dictionary's file; None where there are none."""
    folder = dictionary.folder
    return None if folder is None else load_examples(folder, dictionary.cfg.d_sae)


def _by_hook(model: HookedTransformer, given: Given) -> dict[str, Dictionary]:
    if given is None:
        given = [alias for alias in SHIPPED if alias.split("/")[0] == shown_name(model)]
        if not given:
            raise ValueError(
                f"explore: bitlens brings no dictionary for {shown_name(model)}: give one"
            )
    elif isinstance(given, Mapping):
        given = list(given.values())
    elif isinstance(given, Dictionary | str | Path):
        given = [given]
    loaded = [
        each if isinstance(each, Dictionary) else load_dictionary(each, model=model)
        for each in given
    ]
    return {dictionary.cfg.hook_name: dictionary for dictionary in loaded}


def _in_notebook() -> bool:
    """Whether a kernel of Jupyter runs this."""
    shell = sys.modules.get("IPython")
    return shell is not None and hasattr(shell.get_ipython(), "kernel")
