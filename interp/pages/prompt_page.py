"""The page of a prompt: its tokens by their features, and what each layer makes of it.

Tensor names: P positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ...model.transformer import HookedTransformer
from ..activations.read import OUTLIER_FACTOR, row_norms
from ..dictionaries import Dictionary, check_fits
from ..examples import Examples
from ..lenses import JacobianLens, LogitLens, read_lens
from .cards import SHARD, CardMaker, about, in_shards
from .labels import Labels, labels_of
from .names import shown_name
from .page import Page, shard

Dictionaries = Mapping[str, Dictionary]


@dataclass(frozen=True)
class _Layer:
    """One dictionary on a prompt: by token, pairs of feature and activation, the largest first."""

    features: list[list[tuple[int, float]]]
    outliers: list[int]

    def active(self) -> list[int]:
        """The features of tokens that are no outliers, ascending."""
        rows = [row for i, row in enumerate(self.features) if i not in self.outliers]
        return sorted({feature for row in rows for feature, _ in row})


def prompt_page(
    model: HookedTransformer,
    prompt: str,
    dictionaries: Dictionaries,
    *,
    examples: Mapping[str, Examples | None] | None = None,
    against: HookedTransformer | None = None,
    labels: Labels = None,
    lens: bool = True,
    jacobian_lens: JacobianLens | None = None,
    setup: str = "",
) -> Page:
    """Returns the page of a prompt.

    Args:
        model: What runs it.
        prompt: One text.
        dictionaries: By hook name; each is a row of tokens on the page.
        examples: Where their features fire, by hook name (`load_examples`).
        against: The same model under another policy: what it gains, loses and flips is marked.
        labels: What features are called; of the first dictionary.
        lens: Whether to show the logit lens, a product with the unembedding for every layer.
        jacobian_lens: Shown beneath it (`fit_jacobian_lens`).
        setup: Python that makes `model` and `dictionaries`, for the code that the page shows.

    Raises:
        ValueError: an empty prompt, or an `against` with another tokenizer.
        DictionaryError: a dictionary that does not fit the model.
    """
    data, shards = prompt_data(
        model,
        prompt,
        dictionaries,
        examples=examples or {},
        against=against,
        labels=labels,
        lens=lens,
        jacobian_lens=jacobian_lens,
        setup=setup,
    )
    return Page(f"{prompt[:60]} · bitlens features", data, shards)


def prompt_data(
    model: HookedTransformer,
    prompt: str,
    dictionaries: Dictionaries,
    *,
    examples: Mapping[str, Examples | None],
    against: HookedTransformer | None,
    labels: Labels,
    lens: bool,
    jacobian_lens: JacobianLens | None,
    setup: str,
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Returns the data of a prompt's page, and its shards; arguments as `prompt_page`."""
    for dictionary in dictionaries.values():
        check_fits(dictionary, model)
    layers, logits = _run(model, prompt, dictionaries)
    beside = None if against is None else _run(against, prompt, dictionaries)
    shards: list[str] = []
    listed, shown, words = [], [], []
    for number, (hook, dictionary) in enumerate(dictionaries.items()):
        maker = CardMaker(model, dictionary, examples.get(hook))
        other = None if beside is None else beside[0][number]
        active = sorted({*layers[number].active(), *(other.active() if other else ())})
        cards = maker.cards(active)
        listed.append(
            {
                **described(dictionary),
                "ids": active,
                "first_shard": len(shards),
                "shard_size": SHARD,
                "labels": labels_of(labels if number == 0 else None, cards),
            }
        )
        shards += [shard(part) for part in in_shards(cards)]
        words.append({card["id"]: about(card) for card in cards})
        shown.append(_shown(number, layers[number], other))
    data = {
        "view": "prompt",
        "model": shown_name(model),
        "policy": model.ops.policy.name,
        "prompt": prompt,
        "tokens": model.to_str_tokens(prompt),
        "facts": [f"{len(logits)} tokens", *(f"{d['d_sae']:,} features" for d in listed)],
        "dictionaries": listed,
        "layers": shown,
        "words": words,
        "lenses": _lenses(model, prompt, jacobian_lens) if lens else [],
        "against": None if beside is None else _flips(model, against, logits, beside[1]),
        "setup": setup,
        "code": f"{setup}\nfrom bitlens.interp import explore\n\n"
        f"explore(model, {prompt!r}, dictionaries)\n",
    }
    return data, tuple(shards)


def described(dictionary: Dictionary) -> dict[str, Any]:
    """Returns what every page says of a dictionary."""
    cfg = dictionary.cfg
    return {
        "hook_name": cfg.hook_name,
        "hook_name_out": cfg.hook_name_out,
        "d_sae": cfg.d_sae,
        "architecture": cfg.architecture,
    }


def _run(
    model: HookedTransformer, prompt: str, dictionaries: Dictionaries
) -> tuple[list[_Layer], torch.Tensor]:
    """The features of every dictionary, and the logits [P, V]."""
    if not prompt:
        raise ValueError("explore: the prompt is empty")
    names = [d.cfg.hook_name for d in dictionaries.values()]
    with torch.no_grad():
        logits, cache = model.run_with_cache(prompt, names_filter=names)
    layers = [_layer(d, cache[d.cfg.hook_name][0].flatten(1)) for d in dictionaries.values()]
    return layers, logits[0]


def _layer(dictionary: Dictionary, rows: torch.Tensor) -> _Layer:
    norms = row_norms(rows)
    outlying = norms > OUTLIER_FACTOR * norms.median()
    found = dictionary.encode_sparse(rows.float())
    features: list[list[tuple[int, float]]] = []
    for begin, end in zip(found.indptr[:-1].tolist(), found.indptr[1:].tolist(), strict=True):
        pairs = zip(
            found.indices[begin:end].tolist(), found.values[begin:end].tolist(), strict=True
        )
        features.append(sorted(pairs, key=lambda pair: -pair[1]))
    return _Layer(features, outlying.nonzero()[:, 0].tolist())


def _shown(number: int, layer: _Layer, other: _Layer | None) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "dictionary": number,
        "features": [[(f, round(a, 4)) for f, a in row] for row in layer.features],
        "outliers": layer.outliers,
    }
    if other is not None:
        skipped = {*layer.outliers, *other.outliers}
        changes = []
        for i, (row, row_b) in enumerate(zip(layer.features, other.features, strict=True)):
            a, b = {f for f, _ in row}, {f for f, _ in row_b}
            same = i in skipped
            changes.append(
                {"gained": [] if same else sorted(b - a), "lost": [] if same else sorted(a - b)}
            )
        shown["changes"] = changes
    return shown


def _flips(
    model: HookedTransformer,
    against: HookedTransformer | None,
    logits_PV: torch.Tensor,
    others_PV: torch.Tensor,
) -> dict[str, Any]:
    assert against is not None
    if logits_PV.shape != others_PV.shape:
        raise ValueError(f"against: {against.name} reads the prompt as other tokens")
    best, best_b = logits_PV.argmax(-1), others_PV.argmax(-1)
    at = (best != best_b).nonzero()[:, 0]
    a, b = (_strings(model, ids[at]) for ids in (best, best_b))
    flips = [{"position": p, "a": x, "b": y} for p, x, y in zip(at.tolist(), a, b, strict=True)]
    return {"name": against.ops.policy.name, "flips": flips}


def _lenses(
    model: HookedTransformer, prompt: str, jacobian_lens: JacobianLens | None
) -> list[dict[str, Any]]:
    about = (
        "What the model would say after each token if it ended at this layer; underlined where "
        "that is what it says in the end. The darker, the more probable."
    )
    shown = [_lens(LogitLens(model), prompt, "Logit lens", about)]
    if jacobian_lens is not None:
        about = "The same with each layer moved to the last one by the mean Jacobian between them."
        shown.append(_lens(jacobian_lens, prompt, "Jacobian lens", about))
    return shown


def _lens(lens: LogitLens, prompt: str, name: str, about: str) -> dict[str, Any]:
    model = lens.model
    found = read_lens(lens, prompt, n_tokens=1)
    rows = [
        {
            "name": str(i),
            "top": [
                (token, round(p, 4))
                for token, p in zip(
                    _strings(model, found.tokens[i, :, 0]),
                    found.probabilities[i, :, 0].tolist(),
                    strict=True,
                )
            ],
        }
        for i in range(len(found.tokens))
    ]
    return {"name": name, "about": about, "rows": rows}


def _strings(model: HookedTransformer, ids: torch.Tensor | Sequence[int]) -> list[str]:
    found = ids.tolist() if isinstance(ids, torch.Tensor) else list(ids)
    tokenizer = model.tokenizer
    return [str(i) for i in found] if tokenizer is None else tokenizer.token_strings(found)
