"""What SAELens's tutorials do, with only the load line changed.

Each idiom is a function of a model, an SAE and tokens. It runs on SAELens's HookedSAETransformer
and on ours with equal weights; the difference of the numbers must stay within the sum of both error
bounds. To first order these are derivatives of the number by the output of each operation, the
SAE's among them, from the fp64 path, times that operation's own error (error_bounds.py). The model
is random and small: after SmolLM2's thirty layers the worst case says nothing, and
tests/parity/test_transformer_lens.py compares its hooks step by step.
Tensor names: B batch, P positions, V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import bitlens
import pytest
import torch
from bitlens.model.interop.sae_lens_model import SAELensModel
from bitlens.model.transformer import HookedTransformer
from datasets import Dataset
from sae_lens import ActivationsStore
from sae_lens.evals import EvalConfig, run_evals
from sae_lens.training.activation_scaler import ActivationScaler
from support.error_bounds import LogitBounds, Rounding
from support.random_models import BOS, byte_tokenizer, random_checkpoint
from support.sae_lens_cases import D_SAE, Subject, subject

Tensor = torch.Tensor
Idiom = Callable[[Any, Any], Tensor]

OURS, THEIRS = Rounding(), Rounding(angles=True)
SHOWN = 12
"""Of an idiom's numbers so many are compared, spread over all of them."""


@pytest.fixture(scope="module")
def small() -> Subject:
    checkpoint = random_checkpoint("llama", tokenizer=byte_tokenizer())
    return subject(checkpoint, 1, [BOS, 3, 1, 4, 1, 5, 9, 2])


# The idioms.


def splice_in(model: Any, sae: Any, tokens: Tensor) -> Tensor:
    logits = model.run_with_saes(tokens, saes=[sae])
    return logits[0, -1]


def read_latents(model: Any, sae: Any, tokens: Tensor) -> Tensor:
    _, cache = model.run_with_cache_with_saes(tokens, saes=[sae])
    return cache[f"{sae.cfg.metadata.hook_name}.hook_sae_acts_post"][0]


def ablate_a_latent(model: Any, sae: Any, tokens: Tensor) -> Tensor:
    def ablate(acts: Tensor, hook: Any) -> Tensor:
        acts[:, :, 7] = 0
        return acts

    inside = f"{sae.cfg.metadata.hook_name}.hook_sae_acts_post"
    with model.saes(saes=[sae], use_error_term=True):
        logits = model.run_with_hooks(tokens, fwd_hooks=[(inside, ablate)])
    return logits[0, -1]


def steer(model: Any, sae: Any, tokens: Tensor) -> Tensor:
    def add(resid: Tensor, hook: Any) -> Tensor:
        return resid + 4 * sae.W_dec[7]

    logits = model.run_with_hooks(tokens, fwd_hooks=[(sae.cfg.metadata.hook_name, add)])
    return logits[0, -1]


def attribute(model: Any, sae: Any, tokens: Tensor) -> Tensor:
    """Each latent's direct share of the last token's logit."""
    _, cache = model.run_with_cache_with_saes(tokens, saes=[sae])
    acts = cache[f"{sae.cfg.metadata.hook_name}.hook_sae_acts_post"][0, -1]
    return acts * (sae.W_dec @ model.W_U[:, int(tokens[0, -1])])


def stored_activations(model: Any, sae: Any, tokens: Tensor) -> Tensor:
    store = store_of(model, sae, tokens)
    return store.get_activations(store.get_batch_tokens())


def evaluate(model: Any, sae: Any, tokens: Tensor) -> Tensor:
    config = EvalConfig(
        batch_size_prompts=len(tokens),
        n_eval_reconstruction_batches=1,
        compute_kl=True,
        compute_ce_loss=True,
    )
    store = store_of(model, sae, tokens)
    metrics, _ = run_evals(sae, store, model, ActivationScaler(), config)
    flat = {name: x for group in metrics.values() for name, x in group.items()}
    return torch.tensor([flat[name] for name in METRICS], dtype=torch.float64)


METRICS = (
    "ce_loss_without_sae",
    "ce_loss_with_sae",
    "ce_loss_with_ablation",
    "kl_div_with_sae",
    "kl_div_with_ablation",
)


def store_of(model: Any, sae: Any, tokens: Tensor) -> ActivationsStore:
    dataset = Dataset.from_dict({"tokens": tokens.tolist()})
    size = {"store_batch_size_prompts": len(tokens), "total_tokens": len(tokens)}
    return ActivationsStore.from_sae(model, sae, dataset, **size)


# The same in fp64, where gradients flow, and what their own arithmetic adds.


class InDouble(SAELensModel):
    """Ours in fp64: what a cache keeps stays in the graph, and the SAE's operations have errors."""

    def __init__(self, model: HookedTransformer, bounds: LogitBounds) -> None:
        super().__init__(model)
        self.bounds = bounds

    def run_with_cache(self, tokens: Any, *_: Any, **options: Any) -> tuple[Tensor, Any]:
        """What the idioms read: the latents."""
        found: dict[str, Tensor] = {}
        (name,) = (f"{at}.hook_sae_acts_post" for at in self.acts_to_saes)

        def keep(acts: Tensor, hook: Any) -> None:
            found[name] = acts

        return self.run_with_hooks(tokens, fwd_hooks=[(name, keep)]), found

    def _splice(self, name: str) -> Callable[..., Tensor]:
        sae, error_term = self.acts_to_saes[name], self._error_terms[name]

        def fn(x: Tensor, *, hook: Any) -> Tensor:
            y = self.decode(sae, sae.hook_sae_acts_post(self.encode(sae, x)))
            if not error_term:
                return y
            missed = x - self.decode(sae, self.encode(sae, x))
            missed = self.bounds.inexact(missed, lambda rounding: rounding.u * missed.abs())
            total = y + missed
            return self.bounds.inexact(total, lambda rounding: rounding.u * total.abs())

        return fn

    def encode(self, sae: Any, x: Tensor) -> Tensor:
        pre = (x - sae.b_dec) @ sae.W_enc + sae.b_enc
        sizes = (x.abs() + sae.b_dec.abs()) @ sae.W_enc.abs() + sae.b_enc.abs()

        def off(rounding: Rounding) -> Tensor:
            error = rounding.gamma(x.shape[-1] + 3) * sizes
            return error.where(pre > -error, 0.0)  # ReLU drops what is surely negative

        return self.bounds.inexact(pre.relu(), off)

    def decode(self, sae: Any, acts: Tensor) -> Tensor:
        y = acts @ sae.W_dec + sae.b_dec
        sizes = acts.abs() @ sae.W_dec.abs() + sae.b_dec.abs()
        return self.bounds.inexact(y, lambda rounding: rounding.gamma(D_SAE + 2) * sizes)


def attribution_error(model: InDouble, sae: Any, tokens: Tensor) -> Tensor:
    _, cache = model.run_with_cache_with_saes(tokens, saes=[sae])
    acts = cache[f"{sae.cfg.metadata.hook_name}.hook_sae_acts_post"][0, -1]
    sizes = acts * (sae.W_dec.abs() @ model.W_U[:, int(tokens[0, -1])].abs())
    return OURS.gamma(sae.W_dec.shape[1] + 2) * sizes


def activations_in_double(model: InDouble, sae: Any, tokens: Tensor) -> Tensor:
    found: list[Tensor] = []
    hook = sae.cfg.metadata.hook_name
    model.run_with_hooks(tokens, fwd_hooks=[(hook, lambda resid, hook: found.append(resid))])
    return found[0]


def metrics_in_double(model: InDouble, sae: Any, tokens: Tensor) -> Tensor:
    """METRICS by their definition."""
    clean, spliced, ablated = three_logits(model, sae, tokens)
    losses = [-log_p(logits, tokens).mean() for logits in (clean, spliced, ablated)]
    return torch.stack([*losses, divergence(clean, spliced), divergence(clean, ablated)])


def three_logits(model: InDouble, sae: Any, tokens: Tensor) -> list[Tensor]:
    """Clean, with the SAE in, and with zeros in its place."""
    zeros = [(sae.cfg.metadata.hook_name, lambda resid, hook: torch.zeros_like(resid))]
    ablated = model.run_with_hooks(tokens, fwd_hooks=zeros)
    return [model(tokens), model.run_with_saes(tokens, saes=[sae]), ablated]


def log_p(logits: Tensor, tokens: Tensor) -> Tensor:
    found: Tensor = logits[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:, None])
    return found


def divergence(clean: Tensor, other: Tensor) -> Tensor:
    p = clean.softmax(-1)
    return (p * (clean.log_softmax(-1) - other.log_softmax(-1))).sum(-1).mean()


def metrics_error(model: InDouble, sae: Any, tokens: Tensor) -> Tensor:
    """Of what comes after the logits: log-probabilities, and the sums that the metrics are."""
    clean, *others = three_logits(model, sae, tokens)
    of_mean = OURS.gamma(tokens.numel() + 2)
    losses = [
        log_p_error(x).mean() + of_mean * log_p(x, tokens).abs().mean() for x in (clean, *others)
    ]
    divergences = []
    for other in others:
        difference_BPV = (clean.log_softmax(-1) - other.log_softmax(-1)).abs()
        off_BP = log_p_error(clean)
        # The probabilities in front are off by as much, relative to them.
        terms_BPV = off_BP[..., None] * (1 + difference_BPV) + log_p_error(other)[..., None]
        sums_BPV = OURS.gamma(clean.shape[-1] + tokens.numel() + 4) * difference_BPV
        divergences.append((clean.softmax(-1) * (terms_BPV + sums_BPV)).sum(-1).mean())
    return torch.stack([*losses, *divergences])


def log_p_error(logits: Tensor) -> Tensor:
    """Of log_softmax [B, P], at its worst entry: V exponentials summed, and subtractions."""
    largest = logits.abs().amax(-1) + logits.logsumexp(-1).abs()
    return OURS.gamma(logits.shape[-1] + 4) + 8 * OURS.u * largest


@dataclass(frozen=True)
class Compared:
    """An idiom; where SAELens's own code has no gradients, its numbers in fp64; and the error of
    what it computes on top of activations."""

    run: Idiom
    in_double: Idiom | None = None
    error: Idiom | None = None


IDIOMS = [
    Compared(splice_in),
    Compared(read_latents),
    Compared(ablate_a_latent),
    Compared(steer),
    Compared(attribute, error=attribution_error),
    Compared(stored_activations, activations_in_double),
    Compared(evaluate, metrics_in_double, metrics_error),
]


def shown(numbers: Tensor) -> Tensor:
    """SHOWN of them, or all."""
    flat = numbers.flatten()
    return flat[:: max(1, len(flat) // SHOWN)][:SHOWN]


def bound_of(idiom: Compared, case: Subject) -> Tensor:
    """Of the difference of ours and theirs."""
    double = bitlens.load(case.checkpoint, backend="torch", dtype="fp64")
    bounds = LogitBounds(double, (OURS, THEIRS))
    sae = copy.deepcopy(case.sae).to(torch.float64)
    run = idiom.in_double or idiom.run
    _, (ours, theirs) = bounds.of(
        lambda model: shown(run(InDouble(model, bounds), sae, case.tokens))
    )
    bound = ours + theirs
    if idiom.error is not None:
        error = idiom.error(InDouble(double, bounds), sae, case.tokens)
        bound = bound + 2 * shown(error).detach()
    return bound


def assert_same(idiom: Compared, case: Subject) -> None:
    ours, theirs = (
        idiom.run(model, case.sae, case.tokens).detach() for model in (case.ours, case.theirs)
    )
    assert ours.shape == theirs.shape
    bound = bound_of(idiom, case)
    difference = (shown(ours).double() - shown(theirs).double()).abs()
    assert bool((difference <= bound).all()), float((difference / bound).max())
    # The bound says something: it is far below the numbers.
    assert float(bound.norm()) < 1e-2 * float(shown(theirs).norm())


def name_of(idiom: Compared) -> str:
    return idiom.run.__name__


@pytest.mark.parametrize("idiom", IDIOMS, ids=name_of)
def test_an_idiom(idiom: Compared, small: Subject) -> None:
    assert_same(idiom, small)


def test_the_bound_tells_another_latent(small: Subject) -> None:
    def another(model: Any, sae: Any, tokens: Tensor) -> Tensor:
        rolled = copy.deepcopy(sae)
        rolled.W_dec.data = rolled.W_dec.roll(1, 0)
        return steer(model, rolled, tokens)

    bound = bound_of(Compared(steer), small)
    found = shown(another(small.ours, small.sae, small.tokens))
    expected = shown(steer(small.theirs, small.sae, small.tokens).detach())
    assert bool(((found - expected).abs() > bound).any())
