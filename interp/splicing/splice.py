"""`splice`: dictionaries into a model, for the length of a `with` block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from ...model.hooks.registry import HookRegistry, Hooks
from ...model.transformer import HookedTransformer
from ..dictionaries import Dictionary, DictionaryError, check_fits
from .at_hook import DictionaryAtHook
from .edit import Edit
from .inner_hooks import inner_names
from .spliced import Spliced

Dictionaries = Dictionary | Sequence[Dictionary] | Mapping[str, Dictionary]


@contextmanager
def splice(
    model: HookedTransformer,
    dictionaries: Dictionaries,
    *,
    use_error_term: bool = True,
    edits: Sequence[Edit] = (),
    strict: bool = True,
) -> Iterator[Spliced]:
    """Runs dictionaries inside a model for the length of a `with` block.

    Every run of the model in the block goes through them: forward, `generate`, `run_with_cache`,
    hooks of the user's: on a hook that is written they see what was written, on one that a
    transcoder reads, it reads what they leave. At a hook that a dictionary writes, a row x
    becomes

    - x itself, bit for bit, with the error term and no feature edited to another value;
    - x + (decode(edited) - decode(original)), with the error term, where one is: both decoded and
      subtracted in fp32, then added to x in fp32, then rounded to the hook's dtype;
    - decode(edited), rounded to the hook's dtype, without the error term.

    A transcoder encodes what it reads at `hook_name`; x is what it finds at `hook_name_out`.
    Gradients are those of these formulas, where a run makes a graph (docs/splicing.md).

    Args:
        model: The model. Other threads go on without the dictionaries.
        dictionaries: One, several, or several by hook, as `load_dictionaries` returns them.
        use_error_term: Whether what a dictionary misses is kept.
        edits: Applied in order.
        strict: As `load_dictionary`: whether another fingerprint raises, or warns.

    Yields:
        The model with its inner hook points, and the rows that were encoded.

    Raises:
        DictionaryError: a dictionary that does not fit the model, or two that write one hook.
        ValueError: an edit that names no dictionary, feature or position there is; at the end of
            the block, one of a position that no run had.
    """
    each = _listed(dictionaries)
    for dictionary in each:
        check_fits(dictionary, model, strict=strict)
    _check_places(each, model)
    by_dictionary = _assigned(edits, each, model)
    inner = HookRegistry([name for d in each for name in inner_names(d.cfg)])
    places = [
        DictionaryAtHook(d, by_dictionary[i], use_error_term, inner) for i, d in enumerate(each)
    ]
    spliced = Spliced(model, places, inner)
    try:
        with model.hooks(_hooks(places)):
            yield spliced
    finally:
        spliced.end()
    for place in places:
        place.check_all_applied()


def _hooks(places: Sequence[DictionaryAtHook]) -> Hooks:
    """The functions to install; those that only read run last."""
    readers = [place.reader() for place in places]
    return [place.writer() for place in places] + [each for each in readers if each is not None]


def _listed(dictionaries: Dictionaries) -> list[Dictionary]:
    if isinstance(dictionaries, Mapping):
        for name, dictionary in dictionaries.items():
            cfg = dictionary.cfg
            if name not in (cfg.hook_name, cfg.hook_name_out):
                raise DictionaryError(
                    f"dictionaries[{name!r}] belongs to {cfg.hook_name}: a dictionary runs at the "
                    "hook it was trained on"
                )
        dictionaries = list(dictionaries.values())
    found = [dictionaries] if isinstance(dictionaries, Dictionary) else list(dictionaries)
    if not found:
        raise DictionaryError("splice: no dictionaries")
    for each in found:
        if not isinstance(each, Dictionary):
            raise DictionaryError(
                f"splice: expected bitlens.interp dictionaries, got {type(each).__name__}; SAELens "
                "objects go into bitlens.model.interop.sae_lens_model.SAELensModel"
            )
    return found


def _check_places(dictionaries: Sequence[Dictionary], model: HookedTransformer) -> None:
    written: set[str] = set()
    names = model.hook_names
    for cfg in (dictionary.cfg for dictionary in dictionaries):
        if cfg.hook_name_out in written:
            raise DictionaryError(f"two dictionaries write {cfg.hook_name_out}: splice one of them")
        written.add(cfg.hook_name_out)
        if names.index(cfg.hook_name) > names.index(cfg.hook_name_out):
            raise DictionaryError(
                f"{cfg.hook_name_out} comes before {cfg.hook_name}, which the dictionary reads"
            )


def _assigned(
    edits: Sequence[Edit], dictionaries: Sequence[Dictionary], model: HookedTransformer
) -> list[list[Edit]]:
    """The edits of each dictionary. Raises ValueError for one that can never be made."""
    found: list[list[Edit]] = [[] for _ in dictionaries]
    for edit in [edits] if isinstance(edits, Edit) else edits:
        which = [
            i
            for i, d in enumerate(dictionaries)
            if edit.hook_name in (None, d.cfg.hook_name, d.cfg.hook_name_out)
        ]
        if len(which) != 1:
            hooks = ", ".join(d.cfg.hook_name_out for d in dictionaries)
            raise ValueError(
                f"{edit}, hook_name = {edit.hook_name!r}, is for {len(which) or 'none'} of the "
                f"dictionaries; they write {hooks}: give one of these"
            )
        cfg = dictionaries[which[0]].cfg
        if edit.feature >= cfg.d_sae:
            raise ValueError(
                f"{edit}: the dictionary of {cfg.hook_name} has {cfg.d_sae} features, 0 to "
                f"{cfg.d_sae - 1}"
            )
        edit.check_context(model.config.n_ctx)
        found[which[0]].append(edit)
    return found
