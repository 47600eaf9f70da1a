"""Effects of B on A's next tokens: flips with intervals, margins, a certificate against flips.

Tensor names: N prompts, P positions of each, T positions, d d_model, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ..precision.contract import PrecisionContract
from ..precision.divergence.plain_run import require_unmoved
from ..precision.flips import Observed, enclose_final_norm, flip_certificate
from ..precision.head import Heads
from ..precision.statistics import EquivalencePlan, PairedRuns
from .paths import ModelPath
from .result import Equivalence, Flip, MarginBin, TokenFlips

if TYPE_CHECKING:
    from ..model.text.tokenizer import Tokenizer

EDGES = (0.0, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
_EXAMPLES = 20
_CONTEXT, _OPENING = 60, 40
_NOT_THROUGH_A_CAP = (
    "a soft cap follows the unembedding and may tie tokens, so that no position is proven"
)
_LOGITS_ONLY = "B shows logits only, so that no position is proven"


@dataclass(frozen=True)
class LastStep:
    """The end of a pass over one prompt.

    Attributes:
        logits_TV: What the tokens are chosen by.
        unembedded_TV: What the unembedding gave: the same, but before a soft cap.
        hidden_Td: What the unembedding made the logits of.
        norm_inputs: What the final norm made those of, by its contract's names.
    """

    logits_TV: torch.Tensor
    unembedded_TV: torch.Tensor
    hidden_Td: torch.Tensor
    norm_inputs: dict[str, Any]
    norm_contract: PrecisionContract


@torch.no_grad()
def last_step(path: ModelPath, tokens_P: torch.Tensor) -> LastStep:
    """Runs one prompt, plainly and observed. Raises UnobservedError where that differs in a bit."""
    unembed, norm = path.model.site("unembed"), path.model.site("ln_final")
    hidden: list[torch.Tensor] = []
    unembedded: list[torch.Tensor] = []
    norm_inputs: dict[str, Any] = {}

    def at_unembed(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if unembed.operands is not None:
            hidden.extend(unembed.operands(*args, **kwargs))
        result = original(*args, **kwargs)
        unembedded.append(result.detach().cpu().flatten(0, -2).float())
        return result

    def at_norm(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        norm_inputs.update(norm.bind(*args, **kwargs))
        return original(*args, **kwargs)

    plain = path.model(tokens_P)
    with (
        path.model.override("unembed", at_unembed),
        path.model.override("ln_final", at_norm),
    ):
        require_unmoved(plain, path.model(tokens_P), path.name)
    logits_TV = plain.cpu().flatten(0, -2)
    return LastStep(logits_TV.float(), unembedded[0], hidden[0], norm_inputs, norm.contract)


@torch.no_grad()
def heads(a: ModelPath, b: ModelPath, tokens_P: torch.Tensor) -> Heads:
    """Both unembeddings, seen in a pass over some tokens."""
    found = {}
    for name, path in (("a", a), ("b", b)):
        site = path.model.site("unembed")

        def visit(
            original: Callable[..., Any], *args: Any, site: Any = site, name: str = name, **kw: Any
        ) -> Any:
            found[name] = site.bind(*args, **kw)
            return original(*args, **kw)

        with path.model.override("unembed", visit):
            path.model(tokens_P[:1])
    contract_a, contract_b = (path.model.site("unembed").contract for path in (a, b))
    matrices = (found["a"]["b"], found["b"]["b"])
    same = matrices[0].dtype == matrices[1].dtype and torch.equal(*matrices)
    return Heads(matrices[0], contract_a, contract_b, None if same else matrices[1])


@dataclass(frozen=True)
class Certified:
    """Positions whose best token cannot have changed.

    Attributes:
        margin_T: Between A's best two.
        measured_T: By the distance of both runs.
        proven_T: By B's contracts, given the premises.
    """

    margin_T: torch.Tensor
    measured_T: torch.Tensor
    proven_T: torch.Tensor
    premises: tuple[str, ...]


def certified_by_states(heads: Heads, a: LastStep, b: LastStep) -> Certified:
    """Returns what the hidden states of both runs and B's contracts certify."""
    observed = Observed(heads, a.hidden_Td, b.hidden_Td)
    certificate = flip_certificate(a.unembedded_TV, observed)
    enclosed = enclose_final_norm(heads, a.hidden_Td, b.norm_inputs, b.norm_contract)
    proof = flip_certificate(a.unembedded_TV, enclosed)
    measured_T, proven_T, premises = certificate.certified_T, proof.certified_T, proof.premises
    if not (_is_uncapped(a) and _is_uncapped(b)):
        # A cap keeps the order of logits but may tie them, and a tie goes to the smaller id.
        measured_T = measured_T & _keeps_argmax(a) & _keeps_argmax(b)
        proven_T = torch.zeros_like(proven_T)
        premises = (*premises, _NOT_THROUGH_A_CAP)
    return Certified(certificate.margin_T, measured_T, proven_T, premises)


def certified_by_logits(a_TV: torch.Tensor, b_TV: torch.Tensor) -> Certified:
    """Returns what logits alone certify: nothing is proven."""
    true_TV = torch.log_softmax(a_TV.double(), -1)
    distance_T = (torch.log_softmax(b_TV.double(), -1) - true_TV).abs().amax(-1)
    best_T2 = true_TV.topk(2, dim=-1).values
    margin_T = best_T2[:, 0] - best_T2[:, 1]
    measured_T = margin_T > 2 * distance_T
    return Certified(margin_T, measured_T, torch.zeros_like(measured_T), (_LOGITS_ONLY,))


class TokenCount:
    """Collects prompt by prompt."""

    def __init__(self, tokenizer: Tokenizer | None, margin: float) -> None:
        self._tokenizer = tokenizer
        self._plan = EquivalencePlan("rate of token flips", margin)
        self._runs = PairedRuns()
        self._flipped: list[bool] = []
        self._prompt_of: list[int] = []
        self._positions = [0] * len(EDGES)
        self._flips = [0] * len(EDGES)
        self._certified = self._proven = self._broken = 0
        self._premises: tuple[str, ...] = ()
        self._examples: list[Flip] = []

    def add(
        self,
        prompt: int,
        tokens_P: torch.Tensor,
        a_TV: torch.Tensor,
        b_TV: torch.Tensor,
        certified: Certified,
        places: Sequence[int] | None = None,
    ) -> None:
        """Counts one prompt's positions, by default all. Raises ValueError for other
        vocabularies."""
        self._runs.add(prompt, a_TV, b_TV)
        flipped_T = a_TV.argmax(-1) != b_TV.argmax(-1)
        self._premises = certified.premises
        self._certified += int(certified.measured_T.sum())
        self._proven += int(certified.proven_T.sum())
        self._broken += int(((certified.measured_T | certified.proven_T) & flipped_T).sum())
        self._flipped += flipped_T.tolist()
        self._prompt_of += [prompt] * len(flipped_T)
        edges = torch.tensor(EDGES, dtype=certified.margin_T.dtype)
        bin_T = torch.bucketize(certified.margin_T, edges, right=True) - 1
        for bin_, flipped in zip(bin_T.tolist(), flipped_T.tolist(), strict=True):
            self._positions[bin_] += 1
            self._flips[bin_] += flipped
        for t in flipped_T.nonzero()[:, 0].tolist():
            at = t if places is None else places[t]
            self._examples.append(self._flip(prompt, tokens_P, at, (a_TV[t], b_TV[t])))
        self._examples.sort(key=lambda flip: -flip.margin_a)
        del self._examples[_EXAMPLES:]

    def result(self) -> TokenFlips:
        """Everything counted. Raises ValueError for fewer than two prompts."""
        summary = self._runs.summary()
        test = self._plan.test_rate(self._flipped, self._prompt_of)
        edges = zip(EDGES, (*EDGES[1:], float("inf")), strict=True)
        bins = zip(edges, self._positions, self._flips, strict=True)
        flipped_prompts = {p for p, f in zip(self._prompt_of, self._flipped, strict=True) if f}
        return TokenFlips(
            positions=summary.positions,
            prompts=summary.prompts,
            flips=summary.flips,
            prompts_with_flips=len(flipped_prompts),
            interval=(summary.interval.low, summary.interval.high),
            clustered_interval=(summary.by_prompt.interval.low, summary.by_prompt.interval.high),
            mean_kl=summary.kl.mean,
            kl_interval=(summary.kl.interval.low, summary.kl.interval.high),
            certified=self._certified,
            proven=self._proven,
            premises=self._premises,
            broken_certificates=self._broken,
            equivalence=Equivalence(
                self._plan.margin, test.p_value, test.equivalent, self._plan.digest
            ),
            margins=tuple(MarginBin(*edge, n, flips) for edge, n, flips in bins),
            examples=tuple(self._examples),
        )

    def _flip(
        self, prompt: int, tokens_P: torch.Tensor, t: int, logits_2V: Sequence[torch.Tensor]
    ) -> Flip:
        tops = [logits_V.double().topk(2).values for logits_V in logits_2V]
        best = [int(logits_V.argmax()) for logits_V in logits_2V]
        if self._tokenizer is None:
            context, names = str(tokens_P[: t + 1].tolist()[-8:]), [str(i) for i in best]
            opening = ""
        else:
            context = self._tokenizer.decode(tokens_P[: t + 1].tolist(), skip_special=False)
            names = self._tokenizer.token_strings(best)
            opening = self._tokenizer.decode(tokens_P.tolist()[:_OPENING], skip_special=False)
        return Flip(
            prompt,
            t,
            _visible(context[-_CONTEXT:]),
            _visible(names[0]),
            _visible(names[1]),
            float(tops[0][0] - tops[0][1]),
            float(tops[1][0] - tops[1][1]),
            _visible(opening[:_OPENING]),
        )


def _is_uncapped(step: LastStep) -> bool:
    return torch.equal(step.logits_TV, step.unembedded_TV)


def _keeps_argmax(step: LastStep) -> torch.Tensor:
    return step.logits_TV.argmax(-1) == step.unembedded_TV.argmax(-1)


def _visible(text: str) -> str:
    return text.replace("\n", "⏎").replace("\t", "⇥")
