"""Grades: planted faults are never shown to be equivalent, right platforms are never accused."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import bitlens
import pytest
import torch
from bitlens.audit import equivalence
from bitlens.audit.platforms import PLATFORMS, EquivalenceReport, Grade
from bitlens.audit.platforms.distance import Distance
from bitlens.audit.platforms.page import page
from bitlens.audit.platforms.platform import sampled_positions
from bitlens.audit.platforms.remote import Answer, PlatformError, run_remotely
from bitlens.model.interop.transformers_llama import transformers_llama
from bitlens.model.sources.resolve import open_checkpoint
from bitlens.model.transformer import HookedTransformer
from bitlens.precision.certificate import EquivalenceCertificate
from support.speaking_llama import write_speaking_llama

PROMPTS = ["the cat sat", "a dog ran", "what is", "hello", "numbers are", "once upon"]
Runner = Callable[[torch.Tensor], torch.Tensor]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_speaking_llama(tmp_path_factory.mktemp("platform"))


@pytest.fixture(scope="module")
def model(folder: Path) -> HookedTransformer:
    return bitlens.load(folder)


def _graded(monkeypatch: pytest.MonkeyPatch, folder: Path, run: Runner, name: str = "onnx") -> Any:
    """The row of a platform whose process is replaced by `run`."""
    (row,) = _report(monkeypatch, folder, run, name).rows
    return row


def _report(
    monkeypatch: pytest.MonkeyPatch, folder: Path, run: Callable[..., Any], name: str = "onnx"
) -> EquivalenceReport:
    def runs(
        source: str, platform: str, environment: object, tokens: torch.Tensor, n: int
    ) -> Iterator[Answer]:
        for tokens_P in tokens:
            found = run(tokens_P)
            yield found if isinstance(found, Answer) else Answer(found)

    monkeypatch.setattr(sys.modules["bitlens.audit.platforms.equivalence"], "run_remotely", runs)
    return equivalence(str(folder), [name], prompts=PROMPTS, tokens=24)


def _rounded_at(model: HookedTransformer, hook: str) -> Runner:
    def run(tokens_P: torch.Tensor) -> torch.Tensor:
        def rounded(value: torch.Tensor, hook: object) -> torch.Tensor:
            return value.to(torch.bfloat16).to(value.dtype)

        return model.run_with_hooks(tokens_P[None], fwd_hooks=[(hook, rounded)])[0]

    return run


def _swapped_heads(model: HookedTransformer) -> Runner:
    def run(tokens_P: torch.Tensor) -> torch.Tensor:
        def swapped(z: torch.Tensor, hook: object) -> torch.Tensor:
            return z[:, :, [1, 0, 2]]

        hooks = [("blocks.1.attn.hook_z", swapped)]
        return model.run_with_hooks(tokens_P[None], fwd_hooks=hooks)[0]

    return run


def test_planted_faults_are_not_shown_to_be_equivalent(
    monkeypatch: pytest.MonkeyPatch, folder: Path, model: HookedTransformer, tmp_path: Path
) -> None:
    other_base = bitlens.load(
        write_speaking_llama(
            tmp_path / "rope", rope_parameters={"rope_type": "default", "rope_theta": 20000.0}
        )
    )
    older = bitlens.load(write_speaking_llama(tmp_path / "older", seed=1))
    faults: dict[str, Runner] = {
        "a wrong RoPE base": lambda t: other_base(t[None])[0],
        "an old checkpoint": lambda t: older(t[None])[0],
        "tokens shifted by one": lambda t: model(t.roll(1)[None])[0],
        "a missing upcast in one layer": _rounded_at(model, "blocks.1.hook_mlp_out"),
        "two heads exchanged": _swapped_heads(model),
        "bf16 throughout": lambda t: bitlens.load(folder, dtype="bf16")(t[None])[0],
    }
    for fault, run in faults.items():
        row = _graded(monkeypatch, folder, run)
        assert row.grade is Grade.NOT_SHOWN, fault
        assert row.ratio > 2, fault
        assert row.is_different == (row.ratio_low > 2), fault


def test_right_platforms_are_equivalent(
    monkeypatch: pytest.MonkeyPatch, folder: Path, model: HookedTransformer
) -> None:
    torch_backend = bitlens.load(folder, backend="torch")
    for run in (lambda t: model(t[None])[0], lambda t: torch_backend(t[None])[0]):
        row = _graded(monkeypatch, folder, run)
        assert row.grade is Grade.EQUIVALENT
        assert row.tost_p < 0.05
        assert (row.flips, row.certified) == (0, 1)


def test_rounding_less_than_said_is_not_equivalent(
    monkeypatch: pytest.MonkeyPatch, folder: Path, model: HookedTransformer
) -> None:
    """fp32 logits under the name of a bf16 platform."""
    row = _graded(monkeypatch, folder, lambda t: model(t[None])[0], "compile-bf16")
    assert row.grade is Grade.NOT_SHOWN
    assert row.ratio < 0.01


def test_one_ulp_is_not_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, folder: Path, model: HookedTransformer
) -> None:
    def nudged(tokens_P: torch.Tensor) -> torch.Tensor:
        logits_PV = model(tokens_P[None])[0].clone()
        logits_PV[3, 5] = torch.nextafter(logits_PV[3, 5], torch.tensor(math.inf))
        return logits_PV

    assert _graded(monkeypatch, folder, nudged, "generic").grade is Grade.EQUIVALENT
    same = _graded(monkeypatch, folder, lambda t: model(t[None])[0], "generic")
    assert same.grade is Grade.SAME_BITS


def test_a_platform_that_fails_is_a_row(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    def fails(tokens_P: torch.Tensor) -> torch.Tensor:
        raise PlatformError("RuntimeError: this needs JAX: pip install 'bitlens[platforms]'")

    row = _graded(monkeypatch, folder, fails)
    assert row.grade is Grade.NOT_RUN
    assert "pip install" in row.error
    row = _graded(monkeypatch, folder, lambda t: torch.zeros(len(t), 3))
    assert "the reference has" in row.error


def test_operations_are_judged_only_of_the_code_that_ran(
    monkeypatch: pytest.MonkeyPatch, folder: Path, model: HookedTransformer
) -> None:
    """Every logit is twice that of the path whose operations could be seen; then none can be."""
    peer: Any = transformers_llama(open_checkpoint(folder), torch.float32)

    def run(tokens_P: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            logits_PV: torch.Tensor = peer(tokens_P[None], use_cache=False).logits[0]
        return logits_PV.clone()

    row = _graded(monkeypatch, folder, run, "hf")
    assert (row.grade, row.depth, row.remark) == (Grade.WITHIN_CONTRACT, "operations", None)
    row = _graded(monkeypatch, folder, lambda t: 2 * run(t), "hf")
    assert (row.grade, row.depth) == (Grade.NOT_SHOWN, "logits")
    assert "other bits" in row.remark

    def gone(*args: object) -> object:
        raise PlatformError("it ended with code 9")

    monkeypatch.setattr(sys.modules["bitlens.audit.platforms.equivalence"], "path_on_trial", gone)
    row = _graded(monkeypatch, folder, run, "hf")
    assert (row.grade, row.depth) == (Grade.EQUIVALENT, "logits")
    assert row.remark == "it ended with code 9"


def test_distance_by_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    reference = torch.randn(6, 9, generator=generator, dtype=torch.float64)
    other = reference + 0.3 * torch.randn(6, 9, generator=generator, dtype=torch.float64)
    tokens = torch.tensor([1, 4, 2, 8, 0, 3])
    distance = Distance()
    distance.add(tokens, reference, other)
    p, q = torch.log_softmax(reference, -1), torch.log_softmax(other, -1)
    assert distance.errors[0] == pytest.approx(float((p - q).square().mean().sqrt()))
    assert distance.kl == pytest.approx((p.exp() * (p - q)).sum(-1).tolist())
    following = [float(q[i, tokens[i + 1]] - p[i, tokens[i + 1]]) for i in range(5)]
    assert distance.token_errors == pytest.approx(following)
    assert distance.flips == (p.argmax(-1) != q.argmax(-1)).tolist()
    assert distance.broken == 0


def test_a_process_of_its_own(folder: Path, model: HookedTransformer) -> None:
    """The worker's bits are ours; its last word is the error."""
    tokens = torch.tensor([[5, 6, 7], [8, 9, 10]])
    found = list(run_remotely(str(folder), "generic", {"BITLENS_ISA": "generic"}, tokens, 3))
    assert torch.equal(torch.stack([answer.logits for answer in found]), model(tokens))
    with pytest.raises(PlatformError, match="none"):
        list(run_remotely(str(folder / "none"), "generic", {}, tokens, 3))
    with pytest.raises(PlatformError, match="shape"):
        list(run_remotely(str(folder), "generic", {}, tokens, 2))


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"platforms": ["tpu"]}, "tpu: choose of"),
        ({"platforms": []}, "none"),
        ({"margin": 1.0}, "margin"),
        ({"prompts": ["one"]}, "1 prompts"),
    ],
)
def test_bad_requests_are_refused(folder: Path, bad: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        equivalence(str(folder), **({"platforms": ["jax"]} | bad))


def test_a_wrong_list_of_best_tokens_is_a_violation(
    monkeypatch: pytest.MonkeyPatch, folder: Path, model: HookedTransformer
) -> None:
    def run(tokens_P: torch.Tensor, swapped: bool) -> Answer:
        logits_PV = model(tokens_P[None])[0]
        top_P5 = logits_PV.topk(5).indices
        if swapped:
            top_P5[7, :2] = top_P5[7, [1, 0]]
        return Answer(logits_PV, top_P5)

    row = _graded(monkeypatch, folder, lambda t: run(t, True), "jax-sharded")
    assert row.grade is Grade.NOT_SHOWN
    assert (
        row.first_violation == f"top-k: another list at {len(PROMPTS)} of {row.positions} positions"
    )
    right = _graded(monkeypatch, folder, lambda t: run(t, False), "jax-sharded")
    assert right.grade is Grade.EQUIVALENT


def test_positions_that_cost_a_request_are_sampled(
    monkeypatch: pytest.MonkeyPatch, folder: Path, model: HookedTransformer
) -> None:
    """Judged at those alone, beside our own error there; what is rounded is said."""
    assert sampled_positions(128) == [31, 63, 95, 127]
    assert sampled_positions(3) == [0, 1, 2]
    places = sampled_positions(24)
    monkeypatch.setattr(
        "bitlens.model.interop.llama_cpp.roundings", lambda checkpoint: "it rounds activations"
    )
    row = _graded(monkeypatch, folder, lambda t: model(t[None])[0][places], "llama.cpp")
    assert (row.grade, row.positions) == (Grade.EQUIVALENT, len(PROMPTS) * len(places))
    assert row.ratio == 1
    assert row.remark == "it rounds activations"
    rounded = _rounded_at(model, "blocks.1.hook_mlp_out")
    row = _graded(monkeypatch, folder, lambda t: rounded(t)[places], "llama.cpp")
    assert (row.grade, row.is_different) == (Grade.NOT_SHOWN, True)
    assert row.verdict == "not shown: different"


def test_slow_kernels_run_on_few_tokens(
    monkeypatch: pytest.MonkeyPatch, folder: Path, model: HookedTransformer
) -> None:
    generic = PLATFORMS["generic"]
    assert [generic.prompts(64, n) for n in (16, 128, 1000)] == [16, 2, 2]
    assert PLATFORMS["avx2"].prompts(64, 1000) == 64
    few = replace(generic, most_tokens=72)
    monkeypatch.setattr(
        sys.modules["bitlens.audit.platforms.equivalence"], "PLATFORMS", {"generic": few}
    )
    row = _graded(monkeypatch, folder, lambda t: model(t[None])[0], "generic")
    assert (row.grade, row.positions) == (Grade.SAME_BITS, 72)


def test_the_report_as_certificate_and_page(
    monkeypatch: pytest.MonkeyPatch, folder: Path, model: HookedTransformer
) -> None:
    report = _report(monkeypatch, folder, lambda t: model(t[None])[0], "generic")
    found = report.as_dict()
    assert found["format"] == "bitlens.equivalence-report/1"
    (row,) = found["rows"]
    stated = EquivalenceCertificate.from_json(json.dumps(row["certificate"]))
    assert stated.workload.positions == row["positions"]
    assert [each.holds for each in stated.proved] == [row["positions"]]
    assert stated.statistical[0].plan == report.digest
    assert stated.statistical[0].estimate == row["ratio"]
    bf16 = bitlens.load(folder, dtype="bf16")
    other = _report(monkeypatch, folder, lambda t: bf16(t[None])[0], "generic")
    assert EquivalenceCertificate.from_json(json.dumps(other.rows[0].certificate)).proved == ()
    for each, words in ((report, "1 of 1 platforms run the same model"), (other, "different")):
        html = page(each, [("command", "<script>alert(1)</script>")])
        assert words in html
        assert "<script>alert" not in html
        assert "http" not in html.replace("http-equiv", "").replace("http://www.w3.org", "")
