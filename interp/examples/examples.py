"""The strongest activations of a dictionary's features, kept beside its weights.

Shapes: F features, n examples a feature, W tokens of an example, m tokens promoted.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ...model.text.tokenizer import Tokenizer
from ...model.weights.atomic import write_tensors
from ..dictionaries import DictionaryError

EXAMPLES = "examples.safetensors"
STEPS = 255


@dataclass(frozen=True)
class Example:
    """One place where a feature fired.

    Attributes:
        tokens: Ids of the tokens about it.
        activations: The feature's activation at each, 0 where it was silent.
        peak: Which of them has the largest.
    """

    tokens: list[int]
    activations: list[float]
    peak: int


@dataclass(frozen=True, eq=False)
class Examples:
    """Examples of every feature, the largest activation first.

    Activations are kept in 255 steps of the largest of their feature.

    Attributes:
        tokens: int32 [F, n, W].
        steps: uint8 [F, n, W].
        lengths: uint8 [F, n], tokens of each example; 0 where there are fewer examples.
        peaks: uint8 [F, n].
        largest: fp32 [F], the largest activation seen; 0 for a feature that never fired.
        density: fp32 [F], the part of all tokens at which the feature fired.
        promoted: int32 [F, m], tokens whose logits the feature raises most, the first the most.
        suppressed: int32 [F, m], those that it lowers most.
        metadata: Text, number of tokens, licences.
    """

    tokens: torch.Tensor
    steps: torch.Tensor
    lengths: torch.Tensor
    peaks: torch.Tensor
    largest: torch.Tensor
    density: torch.Tensor
    promoted: torch.Tensor
    suppressed: torch.Tensor
    metadata: dict[str, Any]

    @property
    def n_features(self) -> int:
        return len(self.largest)

    def of(self, feature: int) -> list[Example]:
        """Returns a feature's examples. Raises IndexError for one that there is not."""
        if not 0 <= feature < self.n_features:
            raise IndexError(f"feature {feature} of {self.n_features}")
        found = []
        for i, length in enumerate(self.lengths[feature].tolist()):
            if length:
                steps = self.steps[feature, i, :length].tolist()
                scale = float(self.largest[feature]) / STEPS
                found.append(
                    Example(
                        self.tokens[feature, i, :length].tolist(),
                        [step * scale for step in steps],
                        int(self.peaks[feature, i]),
                    )
                )
        return found

    def with_token(self, token: int) -> list[int]:
        """Returns the features that fire most at a token in an example, or promote it most.

        Those with more such examples come first.
        """
        at_peak = self.tokens.gather(2, self.peaks.long()[:, :, None])[:, :, 0]
        count = ((at_peak == token) & (self.lengths > 0)).sum(1)
        score = 2 * count + (self.promoted[:, :3] == token).any(1)
        return _by_score(score)

    def with_text(self, text: str, tokenizer: Tokenizer) -> list[int]:
        """Returns the features with this text in an example, upper and lower case alike.

        Those with it in more examples come first.
        """
        wanted = text.casefold()
        score = torch.zeros(self.n_features, dtype=torch.int64, device="cpu")
        for feature in range(self.n_features):
            for example in self.of(feature):
                score[feature] += wanted in tokenizer.decode(example.tokens).casefold()
        return _by_score(score)

    def save(self, folder: Path) -> None:
        """Writes the examples beside a dictionary."""
        wide = ("tokens", "promoted", "suppressed")
        tensors = {
            name: getattr(self, name).to(torch.uint16) if name in wide else getattr(self, name)
            for name in _KINDS
        }
        if max(int(getattr(self, name).max()) for name in wide) >= 1 << 16:
            raise ValueError("examples: token ids of 65,536 and more are not kept")
        metadata = {"metadata": json.dumps(self.metadata)}
        write_tensors(folder / EXAMPLES, {n: x.contiguous() for n, x in tensors.items()}, metadata)


_KINDS = {
    "tokens": torch.uint16,
    "steps": torch.uint8,
    "lengths": torch.uint8,
    "peaks": torch.uint8,
    "largest": torch.float32,
    "density": torch.float32,
    "promoted": torch.uint16,
    "suppressed": torch.uint16,
}


def load_examples(folder: Path, n_features: int) -> Examples | None:
    """Reads the examples beside a dictionary; returns None where there are none.

    Raises DictionaryError for a damaged file, or one of another dictionary.
    """
    path = folder / EXAMPLES
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            found = {name: file.get_tensor(name) for name in _KINDS}
            metadata = json.loads((file.metadata() or {})["metadata"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise DictionaryError(f"{path}: damaged: {error}") from error
    f, n, w = found["tokens"].shape if found["tokens"].ndim == 3 else (0, 0, 0)
    m = found["promoted"].shape[-1]
    shapes = {"tokens": (f, n, w), "steps": (f, n, w), "lengths": (f, n), "peaks": (f, n)}
    shapes |= {"largest": (f,), "density": (f,), "promoted": (f, m), "suppressed": (f, m)}
    for name, dtype in _KINDS.items():
        x = found[name]
        if x.dtype != dtype or tuple(x.shape) != shapes[name] or f != n_features:
            raise DictionaryError(f"{path}: {name} does not fit a dictionary of {n_features}")
    lengths, peaks = found["lengths"].int(), found["peaks"].int()
    if bool((lengths > w).any()) or bool(((peaks >= lengths) & (lengths > 0)).any()):
        raise DictionaryError(f"{path}: an example is longer than its tokens")
    wide = {k: x.to(torch.int32) if x.dtype == torch.uint16 else x for k, x in found.items()}
    return Examples(**wide, metadata=metadata)


def _by_score(score: torch.Tensor) -> list[int]:
    order = torch.sort(score, descending=True, stable=True)
    return [int(f) for f, s in zip(order.indices, order.values, strict=True) if s > 0]
