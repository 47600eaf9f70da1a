"""An audit of a path that shows nothing but logits, teacher-forced on A's texts.

Tensor names: N prompts, P positions of each, R those that B gives logits at, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

import torch

from ..model.weights.fingerprint import fingerprint
from ..precision.addresses import UnobservedError
from ..precision.divergence.difference import same_bits
from ..precision.fingerprint import environment_fingerprint
from .certify import certificate
from .paths import ModelPath
from .result import AuditResult, Divergence, Setting
from .texts import Texts
from .tokens import TokenCount, certified_by_logits

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class BlackBox:
    """A path whose operations nobody sees.

    Attributes:
        name, implementation, policy: As `ModelPath` has them.
        why: What keeps its operations from being judged.
        logits: Takes tokens [N, P]; yields a prompt's logits [R, V].
        positions: Those of a prompt of so many tokens that it gives logits at.
    """

    name: str
    implementation: str
    policy: str
    why: str
    logits: Callable[[torch.Tensor], Iterator[torch.Tensor]]
    positions: Callable[[int], Sequence[int]] = range


def platform_on_trial(source: str, choice: str) -> BlackBox:
    """Returns a platform that shows logits only; it runs in a process of its own."""
    from .platforms.platform import PLATFORMS
    from .platforms.remote import run_remotely

    platform = PLATFORMS[choice]

    def logits(tokens_NP: torch.Tensor) -> Iterator[torch.Tensor]:
        n = len(platform.positions(tokens_NP.shape[1]))
        found = run_remotely(source, choice, platform.environment, tokens_NP, n)
        return (answer.logits for answer in found)

    why = f"{platform.what}: its operations have no addresses"
    return BlackBox(choice, platform.what, platform.policy, why, logits, platform.positions)


def if_fused(b: ModelPath, tokens_P: torch.Tensor) -> BlackBox | None:
    """Returns a JAX path as a black box where XLA computes across its operations: apart they are
    another program, of which nothing follows for this one."""
    from ..model.interop.jax_addresses import JaxAddresses

    model = b.model
    if not isinstance(model, JaxAddresses):
        return None
    fusion = model.fusion(tokens_P)
    if fusion is None:
        return None
    why = f"XLA computes across operations: {fusion}"
    return BlackBox(
        b.name, b.implementation, b.policy, why, lambda tokens: (model(t)[0] for t in tokens)
    )


@torch.no_grad()
def audit_by_logits(
    name: str, a: ModelPath, b: BlackBox, written: Texts, margin: float, seed: int, tell: Progress
) -> AuditResult:
    """Counts tokens that B changes. Raises UnobservedError where B gives two runs other bits."""
    tokens_NP = written.tokens_NP
    places = list(b.positions(tokens_NP.shape[1]))
    count = TokenCount(a.tokenizer, margin)
    first, n = torch.empty(0), len(tokens_NP)
    for i, logits_RV in enumerate(_twice_the_first(b, tokens_NP)):
        if i == n:
            _require_same(b.name, first, logits_RV)
            continue
        first = logits_RV if i == 0 else first
        a_RV, b_RV = a.model(tokens_NP[i])[0][places].float(), logits_RV.float()
        count.add(i, tokens_NP[i], a_RV, b_RV, certified_by_logits(a_RV, b_RV), places)
        tell("tokens", i + 1, n)
    flips = count.result()
    stated = certificate(name, a, b, tokens_NP, (), flips)
    digests = {"tokens of all prompts": stated["workload"]["tokens"]}
    if a.checkpoint is not None:
        digests = {"model A": fingerprint(a.checkpoint)} | digests
    setting = Setting(
        model=name,
        a=a.name,
        b=b.name,
        prompts=len(tokens_NP),
        positions=flips.positions,
        written=written.written,
        checked_prompts=0,
        rows_per_op=0,
        seed=seed,
        only_a=(),
        only_b=(),
        environment=asdict(environment_fingerprint()),
        digests=digests,
    )
    nowhere = Divergence("bits", None, None, None, None)
    return AuditResult(
        setting, (), (), (), nowhere, None, flips, stated, depth="logits", why_logits=b.why
    )


def _twice_the_first(b: BlackBox, tokens_NP: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yields the logits of all prompts, then the first one's again."""
    again_NP = torch.cat([tokens_NP, tokens_NP[:1]])
    given = 0
    for logits_RV in b.logits(again_NP):
        yield logits_RV
        given += 1
    if given < len(again_NP):
        raise UnobservedError(f"{b.name} gave logits for {given} prompts of {len(again_NP)}")


def _require_same(name: str, first: torch.Tensor, again: torch.Tensor) -> None:
    if not same_bits(first, again):
        raise UnobservedError(
            f"{name} is not deterministic: two runs over the same tokens differ, so nothing can "
            "be concluded"
        )
