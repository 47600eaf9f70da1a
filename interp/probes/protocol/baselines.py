"""Surface baselines: what the text alone, without the model's insides, tells about the labels.

A probe that does not beat them has not been shown to read anything but surface.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ....model.transformer import HookedTransformer
from ..extra import scikit_learn
from ..reading import TokenIds
from ..selection import best_of

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Scores = Callable[[Indices, Indices], Array]
"""Fits on some conversations and returns the scores of others, by their numbers."""

STRENGTHS = (0.1, 1.0, 10.0, 100.0)
"""The C that cross-validation inside the training split chooses from."""

LENGTH, TF_IDF = "length", "tf-idf"


def surface_baselines(
    model: HookedTransformer, tokens: TokenIds, y: Array, groups: Sequence[Any]
) -> dict[str, Scores]:
    """Returns the baselines by name: length, n-gram naive Bayes, the mean of the token embeddings,
    and tf-idf logistic regression. All see the tokens that the probe sees, as text."""
    texts = tokens.texts(model)
    lengths = np.log(np.array(tokens.lengths, dtype=np.float64))[:, None]
    table = model.W_E.detach()
    means = torch.stack([table[list(ids)].double().mean(0) for ids in tokens.ids]).numpy()
    return {
        LENGTH: lambda train, test: _logistic(lengths[train], y[train], 1.0, lengths[test]),
        "n-grams": lambda train, test: _naive_bayes(_of(texts, train), y[train], _of(texts, test)),
        "embeddings": lambda train, test: _regression(means[train], means[test], y, train, groups),
        TF_IDF: lambda train, test: _tf_idf(texts, train, test, y, groups),
    }


def _of(texts: Sequence[str], indices: Indices) -> list[str]:
    return [texts[int(i)] for i in indices]


def _logistic(x: Any, y: Array, c: float, other: Any) -> Array:
    preprocessing = scikit_learn("preprocessing")
    scaler = preprocessing.StandardScaler(with_mean=isinstance(x, np.ndarray)).fit(x)
    return _plain_logistic(scaler.transform(x), y, c, scaler.transform(other))


def _plain_logistic(x: Any, y: Array, c: float, other: Any) -> Array:
    linear = scikit_learn("linear_model")
    fit = linear.LogisticRegression(C=c, max_iter=2000).fit(x, y)
    return np.asarray(fit.decision_function(other), dtype=np.float64)


def _naive_bayes(texts: list[str], y: Array, others: list[str]) -> Array:
    text, bayes = scikit_learn("feature_extraction.text"), scikit_learn("naive_bayes")
    counter = text.CountVectorizer(ngram_range=(1, 2)).fit(texts)
    fit = bayes.MultinomialNB().fit(counter.transform(texts), y)
    log_p = fit.predict_joint_log_proba(counter.transform(others))
    return np.asarray(log_p[:, 1] - log_p[:, 0], dtype=np.float64)


def _regression(x: Array, others: Array, y: Array, train: Indices, groups: Sequence[Any]) -> Array:
    own = [groups[int(i)] for i in train]
    target = y[train]
    c = best_of(
        tuple(s * 1e-3 for s in STRENGTHS),  # of standardised columns
        lambda c: lambda a, b: _logistic(x[a], target[a], c, x[b]),
        target,
        own,
    )
    return _logistic(x, target, c, others)


def _tf_idf(
    texts: Sequence[str], train: Indices, test: Indices, y: Array, groups: Sequence[Any]
) -> Array:
    text = scikit_learn("feature_extraction.text")
    # The vocabulary and the inverse frequencies are of the whole training split: labels choose
    # nothing here, so the folds inside it leak none.
    vectors = text.TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).fit(_of(texts, train))
    x, others = vectors.transform(_of(texts, train)), vectors.transform(_of(texts, test))
    target, own = y[train], [groups[int(i)] for i in train]
    c = best_of(
        STRENGTHS, lambda c: lambda a, b: _plain_logistic(x[a], target[a], c, x[b]), target, own
    )
    return _plain_logistic(x, target, c, others)
