"""`stability`: which features survive the trip from one run of a model to another."""

from __future__ import annotations

from collections.abc import Callable

from ...model.transformer import HookedTransformer
from ..activations import Packing, TextSource, open_text
from ..activations.documents import Split, Text
from ..activations.read import read_rows
from ..activations.sequences import Batch
from ..dictionaries import Dictionary, check_fits, check_hooks
from ..evaluation.evaluate import packing_of
from ..evaluation.evaluated_text import padded_batches, read_text
from .result import StabilityResult
from .tally import Places, Tally

N_TOKENS = 1 << 14
_BATCH_POSITIONS = 4096
_CONTEXT = 60

Progress = Callable[[int, int], None]
"""Called with tokens done and tokens in all."""


def stability(
    a: HookedTransformer,
    b: HookedTransformer,
    dictionary: Dictionary,
    *,
    text: Text | TextSource = None,
    n_tokens: int = N_TOKENS,
    split: Split = "held_out",
    packing: Packing | None = None,
    strict: bool = True,
    progress: Progress | None = None,
) -> StabilityResult:
    """Returns which features are active in one of two runs alone, and which cannot have flipped.

    Both models read the same tokens up to the dictionary's hook, and the dictionary encodes what
    each has there in fp32. So all that differs is how the rows came about: run `a` may be the fp32
    research path, `b` the bf16 that is served, or other weights.

    Args:
        a, b: Models with one tokenizer; `a` is the reference.
        text: As `open_text` takes it; None is the default corpus.
        n_tokens: Tokens to read, rounded up to whole sequences; 16,384 make 10^6 pairs at k = 32.
        split: Documents to take: "held_out", which training never saw, or "all".
        packing: How documents become sequences; None takes the dictionary's context size.
        strict: Whether a dictionary trained on a model of another fingerprint than `a` raises, or
            warns.
        progress: Called after every batch.

    Raises:
        DictionaryError: a dictionary that does not fit a model.
        ValueError: models with other vocabularies, text without a sequence, activations that are
            not finite.
    """
    check_fits(dictionary, a, strict=strict)
    check_hooks(dictionary, b)
    if a.config.d_vocab != b.config.d_vocab:
        raise ValueError(
            f"stability: {a.name} has {a.config.d_vocab} tokens and {b.name} {b.config.d_vocab}; "
            "both must read the same ids"
        )
    packing = packing_of(dictionary) if packing is None else packing
    source = text if isinstance(text, TextSource) else open_text(text)
    found = read_text(a, source, packing, split, n_tokens, n_tokens)
    hook = dictionary.cfg.hook_name
    tally = Tally(dictionary, _context(a, found.sequences))
    first = done = 0
    for batch in padded_batches(found.sequences, _BATCH_POSITIONS):
        rows = [read_rows(model, batch, [hook])[hook] for model in (a, b)]
        tally.add(rows[0], rows[1], places_of(batch, first))
        first += len(batch.tokens)
        done += batch.n_tokens
        if progress is not None:
            progress(done, found.n_tokens)
    return tally.result()


def places_of(batch: Batch, first: int) -> Places:
    """Returns where a batch's rows stand in the text, whose sequence `first` is the batch's."""
    sequence, position = batch.mask.nonzero(as_tuple=True)
    return Places(sequence + first, position, batch.tokens[batch.mask])


def _context(model: HookedTransformer, sequences: list[list[int]]) -> Callable[[int, int], str]:
    def text(sequence: int, position: int) -> str:
        assert model.tokenizer is not None  # read_text asks for one
        ids = sequences[sequence][: position + 1]
        return model.tokenizer.decode(ids, skip_special=False)[-_CONTEXT:]

    return text
