"""SentencePiece BPE (Llama 2, Mistral, Gemma) as a `tokenizers` BPE.

SentencePiece stores scores, not merges: the pair whose concatenation scores highest merges first.
"""

from __future__ import annotations

from collections.abc import Sequence

import tokenizers
from tokenizers import decoders, models, normalizers

from ..text.library_errors import library_errors
from ..weights.checkpoint import CheckpointError

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""What SentencePiece writes for a space."""

_UNKNOWN = "<unk>"

# Values of tokenizer.ggml.token_type.
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4

MAX_PIECE = 1024
"""Characters of a normal token; finding its merges takes time quadratic in them."""

WAY_OUT = "load the model from a Hugging Face directory with its tokenizer.json instead"


def sentencepiece_bpe(
    tokens: Sequence[str],
    types: Sequence[float],
    scores: Sequence[float],
    add_space_prefix: bool,
    file: str,
) -> tokenizers.Tokenizer:
    """Builds the tokenizer; characters outside the vocabulary become their bytes' <0xXX> tokens.

    Args:
        types: tokenizer.ggml.token_type; only normal tokens are merged into. Where there are
            user-defined ones, the caller adds them, to match before any of this.

    Raises:
        CheckpointError: a token appears twice or is longer than any real one, there is no <unk>,
            or user-defined tokens meet a space prefix or are written with the sign for a space:
            whether such see spaces before or after normalisation differs from model to model.
    """
    vocab = {token: i for i, token in enumerate(tokens)}
    if len(vocab) != len(tokens) or _UNKNOWN not in vocab:
        raise CheckpointError(f"{file}: tokenizer.ggml.tokens: expected {_UNKNOWN}, no token twice")
    user_defined = [t for t, kind in zip(tokens, types, strict=True) if kind == USER_DEFINED]
    if any(add_space_prefix or SPACE in token for token in user_defined):
        raise CheckpointError(
            f"{file}: user-defined tokens beside a space prefix, or with {SPACE} in them, are not "
            f"supported; {WAY_OUT}"
        )
    normal = {token: i for token, i in vocab.items() if types[i] == NORMAL}
    longest = max(map(len, normal), default=0)
    if longest > MAX_PIECE:
        raise CheckpointError(f"{file}: a token of {longest} characters; at most {MAX_PIECE} work")
    with library_errors(lambda e: CheckpointError(f"{file}: tokenizer.ggml.tokens: {e}")):
        bpe = models.BPE(
            vocab=vocab,
            merges=_merges(normal, scores),
            unk_token=_UNKNOWN,
            fuse_unk=True,
            byte_fallback=True,
        )
    backend = tokenizers.Tokenizer(bpe)
    to_pieces: list[normalizers.Normalizer] = [normalizers.Replace(" ", SPACE)]
    to_text: list[decoders.Decoder] = [
        decoders.Replace(SPACE, " "),
        decoders.ByteFallback(),
        decoders.Fuse(),
    ]
    if add_space_prefix:
        to_pieces.insert(0, normalizers.Prepend(SPACE))
        to_text.append(decoders.Strip(content=" ", left=1))
    backend.normalizer = normalizers.Sequence(to_pieces)
    backend.decoder = decoders.Sequence(to_text)
    return backend


def _merges(vocab: dict[str, int], scores: Sequence[float]) -> list[tuple[str, str]]:
    """Every split of a token into two, best score first; of one token's splits, long left first."""
    ranked: list[tuple[float, int, str, str]] = []
    for token, token_id in vocab.items():
        for cut in range(1, len(token)):
            if token[:cut] in vocab and token[cut:] in vocab:
                ranked.append((-scores[token_id], -cut, token[:cut], token[cut:]))
    ranked.sort(key=lambda entry: entry[:2])
    return [(left, right) for *_, left, right in ranked]
