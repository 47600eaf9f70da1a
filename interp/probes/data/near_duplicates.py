"""Near-duplicates: texts whose sets of words overlap by a Jaccard index of at least 0.6."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from .example import DataError, Dataset

JACCARD = 0.6


class LeakError(DataError):
    """Raised where a probe would be judged on examples that it was fitted on."""


def without_near_duplicates(dataset: Dataset, threshold: float = JACCARD) -> Dataset:
    """Returns the examples that resemble no earlier one of another group, and how many were left
    out. Examples of one group are never split, so they may resemble each other."""
    examples, dropped = dataset.examples, set[int]()
    for i, j in resembling([e.words() for e in dataset], threshold):
        if i not in dropped and examples[i].group != examples[j].group:
            dropped.add(j)
    kept = tuple(e for i, e in enumerate(examples) if i not in dropped)
    before = dataset.removed.get("near duplicates", 0)
    removed = {**dataset.removed, "near duplicates": before + len(dropped)}
    return Dataset(dataset.name, kept, dataset.digest, removed)


def check_no_leak(train: Dataset, test: Dataset, threshold: float = JACCARD) -> None:
    """Raises LeakError where a test example is in the training data, resembles one of it, or
    shares a group with it."""
    shared = set(train.groups) & set(test.groups)
    if shared:
        raise LeakError(
            f"{len(shared)} groups are in {train.name} and in {test.name}, {min(shared)!r} among "
            "them: split by group"
        )
    both = [e.words() for e in train] + [e.words() for e in test]
    n = len(train)
    found = [(i, j) for i, j in resembling(both, threshold) if i < n <= j]
    if found:
        i, j = found[0]
        raise LeakError(
            f"{len({j for _, j in found})} examples of {test.name} resemble training examples "
            f"(word Jaccard of at least {threshold}): {test.examples[j - n].id!r} resembles "
            f"{train.examples[i].id!r}; remove near-duplicates before splitting"
        )


def resembling(
    words: Sequence[frozenset[str]], threshold: float = JACCARD
) -> Iterator[tuple[int, int]]:
    """Yields the pairs i < j whose Jaccard index is at least the threshold, by ascending j.

    Exact: two sets so alike share one of their rarest (1 - threshold) |set| + 1 words, so only
    these are looked up (Chaudhuri et al., 2006).
    """
    frequency = Counter(word for each in words for word in each)
    holders: dict[str, list[int]] = defaultdict(list)
    for j, own in enumerate(words):
        rare = sorted(own, key=lambda word: (frequency[word], word))
        prefix = rare[: len(own) - math.ceil(threshold * len(own)) + 1]
        for i in sorted({i for word in prefix for i in holders[word]}):
            if not threshold <= len(words[i]) / len(own) <= 1 / threshold:
                continue
            common = len(own & words[i])
            if common >= threshold * (len(own) + len(words[i]) - common):
                yield i, j
        for word in prefix:
            holders[word].append(j)
