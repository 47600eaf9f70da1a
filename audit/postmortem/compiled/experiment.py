"""Blocks and sampler of one model, compiled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ....model.interop.jax_operations import require_jax
from ....model.load import load
from ....model.sources.resolve import open_checkpoint
from ...texts import texts
from .blocks import BlockFindings, judge_blocks
from .samplers import SamplerFindings, judge_samplers

TOKENS = 32
MOST_TEXTS = 2
"""Prompts that blocks run on: each is `TOKENS` positions of every layer."""


@dataclass(frozen=True)
class CompiledReport:
    """The findings on both.

    Attributes:
        jax: Its version, for what XLA does may change with it.
    """

    jax: str
    blocks: BlockFindings
    samplers: tuple[SamplerFindings, ...]


def run_compiled(
    source: str,
    prompts: Sequence[str],
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> CompiledReport:
    """Compiles a model's blocks and a sampler on its logits, with the flag on and off.

    Raises as `judge_blocks` and `judge_samplers`.
    """
    jax = require_jax()
    checkpoint = open_checkpoint(source)
    model = load(checkpoint)
    written = texts(model, list(prompts[:MOST_TEXTS]), TOKENS, seed=0)
    blocks = judge_blocks(checkpoint, written.tokens_NP, progress)
    return CompiledReport(jax.__version__, blocks, judge_samplers(model, prompts, progress))
