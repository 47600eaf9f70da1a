"""The words in which lm-evaluation-harness asks for an answer, as those of a request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""Names of the longest answer; of several given, the first counts, as in the harness."""

PASSED = (
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
    "no_repeat_ngram_size",
)
"""Names that mean the same in a request."""

READ = ("until", "do_sample", "temperature", "seed", *LENGTHS)


def request_options(asked: Mapping[str, Any], default_length: int) -> dict[str, Any]:
    """Returns the fields of a request; raises ValueError for words that have none.

    Without `do_sample` the temperature decides, 0 where there is none; with `do_sample=True` it is
    1 unless given, as in transformers; `do_sample=False` is greedy.
    """
    unknown = sorted(set(asked) - {*READ, *PASSED})
    if unknown:
        raise ValueError(
            f"gen_kwargs: {', '.join(unknown)} cannot be passed on to bitlens; known are "
            f"{', '.join((*READ, *PASSED))}"
        )
    until = asked.get("until") or []
    lengths = [asked[name] for name in LENGTHS if asked.get(name) is not None]
    return {
        "stop": [until] if isinstance(until, str) else list(until),
        "max_new_tokens": int(lengths[0]) if lengths else default_length,
        "temperature": _temperature(asked.get("do_sample"), asked.get("temperature")),
        **{name: asked[name] for name in PASSED if asked.get(name) is not None},
    }


def _temperature(do_sample: bool | None, temperature: float | None) -> float:
    if do_sample is False:
        return 0.0
    if temperature is None:
        return 1.0 if do_sample else 0.0
    return float(temperature)
