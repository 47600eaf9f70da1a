"""Planted faults in at least a hundred draws, right pairs in two hundred; customary checks beside.

Every draw is a model of its own weights, its fault in a layer, head or size of its own.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bitlens
import pytest
import torch
from bitlens.audit import equivalence
from bitlens.audit.platforms import Grade, PlatformRow
from bitlens.audit.platforms.remote import Answer
from bitlens.model.interop.transformers_llama import transformers_llama
from bitlens.model.sources.resolve import open_checkpoint
from bitlens.model.transformer import HookedTransformer
from support.speaking_llama import write_speaking_llama

PROMPTS = ["the cat sat", "a dog ran", "what is", "hello", "numbers are", "once upon"]
TOKENS = 24
Run = Callable[[torch.Tensor], torch.Tensor]
Fault = Callable[[Path, HookedTransformer, random.Random], Run]


def wrong_base(folder: Path, model: HookedTransformer, draws: random.Random) -> Run:
    base = 10_000.0 * draws.choice([0.5, 0.8, 1.25, 2.0, 50.0])
    rope = {"rope_type": "default", "rope_theta": base}
    seed = int(folder.name)
    other = bitlens.load(write_speaking_llama(folder / "base", seed=seed, rope_parameters=rope))
    return lambda tokens_P: other(tokens_P[None])[0]


def missing_upcast(folder: Path, model: HookedTransformer, draws: random.Random) -> Run:
    where = draws.choice(["attn_out", "mlp_out", "resid_mid", "resid_post"])
    name = f"blocks.{draws.randrange(2)}.hook_{where}"
    return hooked(model, name, lambda value: value.to(torch.bfloat16).to(value.dtype))


def transposed_head(folder: Path, model: HookedTransformer, draws: random.Random) -> Run:
    order = draws.choice([[1, 0, 2], [0, 2, 1], [2, 1, 0]])
    name = f"blocks.{draws.randrange(2)}.attn.hook_z"
    return hooked(model, name, lambda value: value[:, :, order])


def shifted_tokens(folder: Path, model: HookedTransformer, draws: random.Random) -> Run:
    by = draws.choice([-1, 1])
    return lambda tokens_P: model(tokens_P.roll(by)[None])[0]


def old_checkpoint(folder: Path, model: HookedTransformer, draws: random.Random) -> Run:
    """A step of training before: every weight of one matrix is a thousandth off."""
    import transformers

    peer = transformers.AutoModelForCausalLM.from_pretrained(folder / "model")
    generator = torch.Generator().manual_seed(draws.randrange(2**31))
    layer = peer.model.layers[draws.randrange(2)]
    weight = draws.choice([layer.mlp.down_proj, layer.self_attn.v_proj, layer.mlp.up_proj]).weight
    with torch.no_grad():
        weight.mul_(1 + 1e-3 * torch.randn(weight.shape, generator=generator))
    older = bitlens.load(peer)
    return lambda tokens_P: older(tokens_P[None])[0]


def hooked(model: HookedTransformer, name: str, change: Callable[..., torch.Tensor]) -> Run:
    def run(tokens_P: torch.Tensor) -> torch.Tensor:
        hooks = [(name, lambda value, hook: change(value))]
        return model.run_with_hooks(tokens_P[None], fwd_hooks=hooks)[0]

    return run


FAULTS: tuple[Fault, ...] = (
    wrong_base, missing_upcast, transposed_head, shifted_tokens, old_checkpoint,
)  # fmt: skip


def graded(monkeypatch: pytest.MonkeyPatch, folder: Path, run: Run) -> tuple[PlatformRow, Any]:
    """The row of a platform that is replaced by `run`, and the tokens that it saw."""
    seen: list[torch.Tensor] = []

    def runs(
        source: str, platform: str, environment: object, tokens_NP: torch.Tensor, n: int
    ) -> Iterator[Answer]:
        seen.extend(tokens_NP)
        return (Answer(run(tokens_P)) for tokens_P in tokens_NP)

    monkeypatch.setattr(sys.modules["bitlens.audit.platforms.equivalence"], "run_remotely", runs)
    (row,) = equivalence(str(folder / "model"), ["onnx"], prompts=PROMPTS, tokens=TOKENS).rows
    return row, seen


def default_close(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    """The tolerances of `torch.testing.assert_close`."""
    return torch.allclose(ours, theirs, rtol=1.3e-6, atol=1e-5)


def loosely_close(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    return torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3)


def similar(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    return bool(torch.cosine_similarity(ours, theirs, dim=-1).min() > 0.999)


def among_the_best(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    """Returns vLLM's `check_logprobs_close`: up to the first other token, it included, each is
    among the other's best five."""
    mine, other = ours.argmax(-1), theirs.argmax(-1)
    apart = (mine != other).nonzero()
    if not len(apart):
        return True
    at = int(apart[0])
    return bool(
        (theirs[at].topk(5).indices == mine[at]).any()
        and (ours[at].topk(5).indices == other[at]).any()
    )


CUSTOMARY = {
    "assert_close": default_close,
    "assert_close, 1e-3": loosely_close,
    "cosine .999": similar,
    "top 5": among_the_best,
}


@pytest.mark.nightly
def test_faults_in_a_hundred_draws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    missed, passed = [], Counter[str]()
    for seed in range(100):
        draws, fault = random.Random(seed), FAULTS[seed % len(FAULTS)]
        folder = tmp_path / str(seed)
        model = bitlens.load(write_speaking_llama(folder / "model", seed=seed))
        run = fault(folder, model, draws)
        row, seen = graded(monkeypatch, folder, run)
        assert row.error is None
        if row.grade is not Grade.NOT_SHOWN:
            missed.append((fault.__name__, seed, row.ratio))
        pairs = [(model(tokens_P[None])[0], run(tokens_P)) for tokens_P in seen]
        for name, check in CUSTOMARY.items():
            passed[name] += all(check(ours, theirs) for ours, theirs in pairs)
    print(f"of 100 faults, passed by {dict(passed)}; not seen by the grades: {missed}")
    assert not missed
    assert passed["cosine .999"] > 0  # control: it is not that any check sees such faults
    assert passed["top 5"] > 0


@pytest.mark.nightly
def test_right_pairs_in_two_hundred_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """transformers in fp32, torch's kernels under our own model, and the same platform twice."""
    accused, alarms = [], Counter[str]()
    for seed in range(67):
        folder = tmp_path / str(seed)
        source = write_speaking_llama(folder / "model", seed=seed)
        own, other = bitlens.load(source), bitlens.load(source, backend="torch")
        peer: Any = transformers_llama(open_checkpoint(source), torch.float32)

        def transformers_run(tokens_P: torch.Tensor, peer: Any = peer) -> torch.Tensor:
            with torch.inference_mode():
                logits_PV: torch.Tensor = peer(tokens_P[None]).logits[0]
            return logits_PV.clone()

        runs: dict[str, Run] = {
            "the same": lambda tokens_P, own=own: own(tokens_P[None])[0],  # type: ignore[misc]
            "torch": lambda tokens_P, other=other: other(tokens_P[None])[0],  # type: ignore[misc]
            "transformers": transformers_run,
        }
        for name, run in runs.items():
            row, seen = graded(monkeypatch, folder, run)
            pairs = [(own(tokens_P[None])[0], run(tokens_P)) for tokens_P in seen]
            for check_name, check in CUSTOMARY.items():
                alarms[check_name] += not all(check(ours, theirs) for ours, theirs in pairs)
            if row.grade is not Grade.EQUIVALENT or row.is_different:
                accused.append((name, seed, row.ratio))
    print(f"of 201 right pairs, refused by {dict(alarms)}; by the grades: {accused}")
    assert not accused
