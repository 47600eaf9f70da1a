"""What the documents show runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import bitlens
import pytest
import torch

ROOT = Path(bitlens.__file__).resolve().parent

PAGES = (
    "docs/hooks.md",
    "docs/migration.md",
    "docs/sources.md",
    "docs/prompt_cache.md",
    "docs/engine.md",
    "docs/evaluation.md",
    "docs/thinking.md",
    "docs/equivalence.md",
    "docs/pools.md",
    "docs/cache_cost.md",
    "docs/red_team.md",
)


def _python_blocks(document: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)


@pytest.mark.parametrize("document", ["README.md", *PAGES])
def test_examples_run(
    document: str, smollm2_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In order and in one namespace, as a reader would paste them."""
    monkeypatch.chdir(tmp_path)
    blocks = _python_blocks(document)
    assert blocks
    if any("import lm_eval" in block for block in blocks):
        pytest.importorskip("lm_eval", reason="extra lm-eval is not installed")
    namespace: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, document, "exec"), namespace)
    if document == "README.md":
        assert len([line for line in blocks[0].splitlines() if line.strip()]) <= 10
        assert namespace["cache"]["blocks.15.hook_resid_post"].shape[-1] == 576
        assert not torch.equal(namespace["logits"], namespace["ablated"])


WITH_DICTIONARIES = (
    "docs/dictionaries.md",
    "docs/splicing.md",
    "docs/features_and_precision.md",
    "docs/looking.md",
)


@pytest.mark.parametrize("document", WITH_DICTIONARIES)
def test_examples_with_dictionaries_run(
    document: str, smollm2_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder of their own, since they train."""
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    for block in _python_blocks(document):
        exec(compile(block, document, "exec"), namespace)
    if document == "docs/dictionaries.md":
        assert namespace["judged"].explained_variance > 0.3
        assert (tmp_path / "runs" / "first" / "dictionary" / "cfg.json").exists()
    if document == "docs/features_and_precision.md":
        # The page's figures: two in a hundred under bf16, several times as many for Q4_1.
        assert namespace["result"].wrong == namespace["coarse"].wrong == 0
        assert 0.01 < namespace["result"].changed_share < 0.04
        assert namespace["result"].certified_share > 0.4
        assert namespace["coarse"].changed_share > 0.1


def test_the_activation_example(smollm2_path: Path) -> None:
    script = ROOT / "docs" / "examples" / "read_activation.py"
    run = subprocess.run(
        [sys.executable, script, smollm2_path], capture_output=True, text=True, check=True
    )
    assert "blocks.15.hook_resid_post" in run.stdout
    assert "Paris" in run.stdout


def test_the_attribution_example(smollm2_path: Path) -> None:
    """To first order: estimates agree with what patching measures where the step is small."""
    script = ROOT / "docs" / "examples" / "attribution_patching.py"
    command = [sys.executable, script, smollm2_path, "--layers", "15"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    pairs = re.findall(r"([+-][\d.]+) / ([+-][\d.]+)", run.stdout)
    assert len(pairs) == 5
    assert max(abs(float(estimated)) for estimated, _ in pairs) > 1
    for estimated, measured in pairs:
        if abs(float(measured)) < 0.3:
            assert abs(float(estimated) - float(measured)) < 0.05


def test_links_point_at_files() -> None:
    pages = [path.relative_to(ROOT) for path in (ROOT / "docs").rglob("*.md")]
    for document in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", *map(str, pages)):
        path = ROOT / document
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
            assert (path.parent / target).exists(), f"{document} points at {target}"


def test_every_hook_name_is_documented(smollm2_path: Path) -> None:
    page = (ROOT / "docs" / "hooks.md").read_text()
    names = {name.rsplit(".", 1)[-1] for name in bitlens.load(smollm2_path).hook_names}
    assert not {name for name in names if name not in page and name != "hook_k_input"}


def test_the_index_names_every_page() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert not {page for page in pages if f"]({page})" not in index}
