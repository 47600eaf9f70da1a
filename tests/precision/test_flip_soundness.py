"""SmolLM2 in fp32 against bf16: no certified argmax flips, and most of those that could be are.

Tensor names: T positions, d d_model, V vocabulary, P positions of a prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import bitlens
import pytest
import torch
from bitlens import HookedTransformer
from bitlens.model.sources import open_checkpoint
from bitlens.model.weights.checkpoint import Checkpoint
from bitlens.precision.contracts import HUGGINGFACE_LLAMA_BF16, bitlens_contract
from bitlens.precision.flips import (
    FlipCertificate,
    Observed,
    enclose_final_norm,
    flip_certificate,
)
from bitlens.precision.head import Heads
from bitlens.precision.statistics import PairedRuns, calibrate_margin

ROOT = Path(bitlens.__file__).resolve().parent
PROMPT_LINES = (ROOT / "audit/postmortem/prompts.txt", ROOT / "tests/parity/prompts.txt")
LENGTH = 128
HIDDEN = "unembed.hook_in"


@dataclass(frozen=True)
class Pair:
    """One prompt through both policies."""

    logits_a_TV: torch.Tensor
    logits_b_TV: torch.Tensor
    hidden_a_Td: torch.Tensor
    hidden_b_Td: torch.Tensor
    residual_a_Td: torch.Tensor


class TwoRuns:
    """SmolLM2 under fp32 (run a) and bf16 (run b)."""

    def __init__(self, path: Path, in_bf16: HookedTransformer) -> None:
        self.checkpoint: Checkpoint = open_checkpoint(path)
        self.a, self.b = bitlens.load(path), in_bf16
        self.residual = f"blocks.{self.a.config.n_layers - 1}.hook_resid_post"
        W_U_dV = self.checkpoint.matrix("embed.weight").dequantize().mT
        contracts = (bitlens_contract("unembed", policy) for policy in ("fp32", "bf16"))
        self.heads = Heads(W_U_dV, *contracts, W_U_b=W_U_dV.bfloat16())

    def texts(self) -> Iterator[list[int]]:
        """Token rows: the shipped prompts, then the documents and the package's own source."""
        assert self.a.tokenizer is not None
        for file in PROMPT_LINES:
            lines = file.read_text(encoding="utf-8").splitlines()
            yield from (self.a.tokenizer.encode(line) for line in lines if line.strip())
        files = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("csrc/**/*.h")]
        files += [*ROOT.glob("model/**/*.py"), *ROOT.glob("precision/**/*.py")]
        for file in sorted(files):
            tokens = self.a.tokenizer.encode(file.read_text(encoding="utf-8"))
            yield from (tokens[i : i + LENGTH] for i in range(0, len(tokens), LENGTH))

    def __call__(self, tokens_P: list[int]) -> Pair:
        ids = torch.tensor([tokens_P])
        logits_a, a = self.a.run_with_cache(ids, names_filter=[HIDDEN, self.residual])
        logits_b, b = self.b.run_with_cache(ids, names_filter=HIDDEN)
        return Pair(logits_a[0], logits_b[0], a[HIDDEN][0], b[HIDDEN][0], a[self.residual][0])

    def proven(self, pair: Pair, contract_name: str = "bitlens") -> FlipCertificate:
        """Of casting the last residual, the final norm and the unembedding to bf16."""
        contract = (
            bitlens_contract("rms_norm", "bf16")
            if contract_name == "bitlens"
            else HUGGINGFACE_LLAMA_BF16["rms_norm"]
        )
        inputs = {
            "x": pair.residual_a_Td.bfloat16(),
            "weight": self.checkpoint.vector("ln_final.weight").bfloat16(),
            "eps": self.a.config.eps,
        }
        evidence = enclose_final_norm(self.heads, pair.hidden_a_Td, inputs, contract)
        return flip_certificate(pair.logits_a_TV, evidence)

    def measured(self, pair: Pair) -> FlipCertificate:
        evidence = Observed(self.heads, pair.hidden_a_Td, pair.hidden_b_Td)
        return flip_certificate(pair.logits_a_TV, evidence)


@dataclass
class Count:
    positions: int = 0
    agree: int = 0
    certified: int = 0
    wrong: int = 0
    clear: int = 0
    clear_certified: int = 0

    def add(self, certificate: FlipCertificate, token_b_T: torch.Tensor) -> None:
        agree_T = certificate.token_T == token_b_T
        clear_T = agree_T & (certificate.margin_T > 2 * certificate.bound_T)
        self.positions += len(agree_T)
        self.agree += int(agree_T.sum())
        self.certified += int(certificate.certified_T.sum())
        self.wrong += int((certificate.certified_T & ~agree_T).sum())
        self.clear += int(clear_T.sum())
        self.clear_certified += int((certificate.certified_T & clear_T).sum())

    def require_sound(self) -> None:
        assert self.wrong == 0
        assert self.clear > self.positions // 2
        assert self.clear_certified >= 0.9 * self.clear


@pytest.fixture(scope="module")
def runs(smollm2_path: Path, models: tuple[HookedTransformer, HookedTransformer]) -> TwoRuns:
    return TwoRuns(smollm2_path, models[0])


def tail_in_bf16(runs: TwoRuns, pair: Pair, twice: bool) -> torch.Tensor:
    """The argmax when only the tail of run a is bf16, by torch, in either order of its casts."""
    x_Td = pair.residual_a_Td.bfloat16().float()
    weight_d = runs.checkpoint.vector("ln_final.weight").bfloat16()
    normalized_Td = x_Td * torch.rsqrt(x_Td.square().mean(-1, keepdim=True) + runs.a.config.eps)
    if twice:
        hidden_Td = normalized_Td.bfloat16() * weight_d
    else:
        hidden_Td = (normalized_Td * weight_d.float()).bfloat16()
    logits_TV = hidden_Td.float() @ runs.heads.b_dV.float()
    return logits_TV.argmax(1)


def test_a_sample_of_prompts(runs: TwoRuns) -> None:
    measured, proven, proven_twice = Count(), Count(), Count()
    for tokens_P in islice(runs.texts(), 540, 570, 10):  # prompts, then documents
        pair = runs(tokens_P)
        measured.add(runs.measured(pair), pair.logits_b_TV.argmax(1))
        proven.add(runs.proven(pair), tail_in_bf16(runs, pair, twice=False))
        proven_twice.add(runs.proven(pair, "huggingface"), tail_in_bf16(runs, pair, twice=True))
    for count in (measured, proven, proven_twice):
        count.require_sound()
    assert proven.certified > proven.positions // 2


@pytest.mark.nightly
def test_a_hundred_thousand_positions(
    runs: TwoRuns,
    record_property: Callable[[str, object], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Measured on every row; proven on every eighth and said apart; statistical on the rest."""
    measured, proven, paired = Count(), Count(), PairedRuns()
    margins: list[float] = []
    flips: list[bool] = []
    prompts: list[int] = []
    for i, tokens_P in enumerate(runs.texts()):
        pair = runs(tokens_P)
        certificate, token_b_T = runs.measured(pair), pair.logits_b_TV.argmax(1)
        measured.add(certificate, token_b_T)
        if i % 8 == 0:
            proven.add(runs.proven(pair), tail_in_bf16(runs, pair, twice=False))
        paired.add(i, pair.logits_a_TV, pair.logits_b_TV)
        margins += certificate.margin_T.tolist()
        flips += (certificate.token_T != token_b_T).tolist()
        prompts += [i] * len(tokens_P)
        if measured.positions >= 100_000:
            break
    threshold = calibrate_margin(margins, flips, prompts, alpha=0.01)
    for name, found in (
        ("measured", measured),
        ("proven", proven),
        ("flips", paired.summary()),
        ("statistical", threshold),
    ):
        record_property(name, str(found))
        with capsys.disabled():
            print(f"\n{name}: {found}")
    assert measured.positions >= 100_000
    measured.require_sound()
    proven.require_sound()
    assert threshold.margin < max(margins)
