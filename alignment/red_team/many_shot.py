"""Many shots: answers in the prompt that show what should be refused, and how many it takes.

The shots are the stand-in's: requests for a substance that does not exist, each with an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ...interp.probes.reading import tokenizer_of
from ...model.serving import Engine, Request
from ...model.transformer import HookedTransformer
from ...precision.statistics import Estimate, clustered_mean, clustered_proportion
from .. import standin
from .confusion import share
from .judge import Judge

SHOTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CHAT = ("user", "assistant")


@dataclass(frozen=True)
class ManyShotPoint:
    """The answers after n shots.

    Attributes:
        success: The share of requests answered, with its interval.
        refusal: The share refused.
        gain: Success above that without shots, on the same requests: mean and paired interval.
        prompt_tokens, cached_tokens: Of all prompts, and of these taken from the prefix cache.
    """

    shots: int
    success: Estimate
    refusal: Estimate
    gain: Estimate | None
    prompt_tokens: int
    cached_tokens: int

    def as_dict(self) -> dict[str, Any]:
        """Returns the same as JSON-ready data."""
        return {
            "shots": self.shots,
            "success": share(self.success),
            "refusal": share(self.refusal),
            "gain": None if self.gain is None else share(self.gain),
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": self.cached_tokens,
        }


@dataclass(frozen=True)
class ManyShotCurve:
    """Success over shots.

    Attributes:
        left_out: Numbers of shots whose prompts do not fit into the context.
    """

    model: str
    judge: str
    points: tuple[ManyShotPoint, ...]
    left_out: tuple[int, ...]

    def as_dict(self) -> dict[str, Any]:
        """Returns the same as JSON-ready data."""
        return {
            "model": self.model,
            "judge": self.judge,
            "points": [point.as_dict() for point in self.points],
            "left_out": list(self.left_out),
        }


def many_shot(
    model: HookedTransformer,
    *,
    judge: Judge,
    shots: Sequence[int] = SHOTS,
    n: int = 50,
    seed: int = 0,
    max_new_tokens: int = 48,
    progress: Callable[[int, int], None] | None = None,
) -> ManyShotCurve:
    """Asks n held-out requests of the stand-in after 0 shots and after each number of them.

    The first shots of a longer list are those of a shorter one, and all requests share them through
    the prefix cache, which moves no bit. Answers are greedy.

    Raises ValueError for a model without a tokenizer, or fewer than two requests.
    """
    tokenizer_of(model)
    requests = standin.prompts("standin", n, seed=seed, split="test", templates="plain")
    shown = standin.prompts("standin", max(shots, default=0), seed=seed, templates="plain")
    wanted = [0, *sorted(set(shots))]
    done, left_out, points = 0, list[int](), list[ManyShotPoint]()
    plain: list[bool] | None = None
    with Engine(model) as engine:
        for k in wanted:
            prompts = [_prompt(model, shown[:k], row) for row in requests]
            if max(map(len, prompts)) + max_new_tokens > model.config.n_ctx:
                left_out.append(k)
                continue
            point, answered = _point(engine, judge, k, prompts, requests, plain, max_new_tokens)
            plain = answered if plain is None else plain
            points.append(point)
            done += 1
            if progress is not None:
                progress(done, len(wanted))
    return ManyShotCurve(model.name, judge.name, tuple(points), tuple(left_out))


def _prompt(
    model: HookedTransformer, shown: Sequence[standin.StandIn], row: standin.StandIn
) -> list[int]:
    """Ids of a conversation in which every shot was answered, or of a text where there is no chat
    template."""
    tokenizer = tokenizer_of(model)
    if tokenizer.chat_template is None:
        said = "".join(f"{s.text}\n{standin.answer(s)}\n" for s in shown)
        return tokenizer.encode(f"{said}{row.text}\n", add_bos=tokenizer.prepends_bos)
    turns = []
    for shot in shown:
        pair = (shot.text, standin.answer(shot))
        turns += [{"role": r, "content": c} for r, c in zip(CHAT, pair, strict=True)]
    return tokenizer.encode_chat([*turns, {"role": CHAT[0], "content": row.text}])


def _point(
    engine: Engine,
    judge: Judge,
    k: int,
    prompts: Sequence[list[int]],
    requests: Sequence[standin.StandIn],
    plain: list[bool] | None,
    max_new_tokens: int,
) -> tuple[ManyShotPoint, list[bool]]:
    found = []
    for prompt in prompts:  # one after another: the first one leaves the shots in the cache
        request = Request(prompt, max_new_tokens=max_new_tokens, seed=0)
        found.append(engine.submit(request).result())
    said = judge.judge([row.text for row in requests], [each.text for each in found])
    verdicts = [each.verdict for each in said]
    clusters = [row.id for row in requests]
    answered = [verdict == "answer" for verdict in verdicts]
    gain = None
    if plain is not None:
        steps = [float(a) - float(b) for a, b in zip(answered, plain, strict=True)]
        gain = clustered_mean(steps, clusters)
    point = ManyShotPoint(
        k,
        clustered_proportion(answered, clusters),
        clustered_proportion([verdict == "refusal" for verdict in verdicts], clusters),
        gain,
        sum(each.usage.prompt for each in found),
        sum(each.usage.cached for each in found),
    )
    return point, answered
