"""The memory a trace may take, and its division among the parts."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_MEMORY = 4 << 30
_BYTES_OF_EDGE = 48
_FEWEST_EDGES = 64
_LARGEST_BATCH = 128


@dataclass(frozen=True)
class PromptSize:
    """The sizes that memory depends on.

    Attributes:
        n_positions: Tokens of the prompt, T.
        n_layers: L.
        n_heads: H.
        d_model: d.
        n_targets: Most features and logits that get edges.
    """

    n_positions: int
    n_layers: int
    n_heads: int
    d_model: int
    n_targets: int

    @property
    def activations(self) -> int:
        """Bytes of what one pass leaves: what is read, what is written, errors."""
        return 4 * 4 * self.n_layers * self.n_positions * self.d_model

    @property
    def streams(self) -> int:
        """Bytes of the residual stream before every block."""
        return 4 * self.n_layers * self.n_positions * self.d_model

    @property
    def patterns(self) -> int:
        """Bytes of every layer's attention pattern."""
        return 4 * self.n_layers * self.n_heads * self.n_positions**2

    @property
    def one_pattern(self) -> int:
        """Bytes of one layer's, and of the copies that the kernels make of it."""
        return 3 * self.patterns // self.n_layers

    def target(self, n_sources: int) -> int:
        """Bytes of one target while its edges are found."""
        return 4 * 8 * self.n_positions * self.d_model + 16 * n_sources


@dataclass(frozen=True)
class Budget:
    """The division of a trace's memory.

    Attributes:
        keep_patterns: Whether every layer's pattern is kept; otherwise each is computed again.
        batch: Targets whose edges are found together.
        edges: Most edges of a target that are kept.
    """

    keep_patterns: bool
    batch: int
    edges: int


def keeps_patterns(max_memory: int, size: PromptSize) -> bool:
    """Returns whether all patterns fit into a third of the memory."""
    return size.patterns <= max_memory // 3


def budget_of(max_memory: int, size: PromptSize, n_sources: int) -> Budget:
    """Returns how to trace within `max_memory` bytes beyond the model and the dictionaries.

    Raises ValueError where that is too little, with what would do.
    """
    keep = keeps_patterns(max_memory, size)
    fixed = size.activations + (size.patterns if keep else size.streams) + size.one_pattern
    of_edges = _FEWEST_EDGES * _BYTES_OF_EDGE * size.n_targets
    least = fixed + size.target(n_sources) + of_edges
    if least > max_memory:
        raise ValueError(
            f"max_memory = {max_memory:,} bytes: this prompt of {size.n_positions} tokens needs "
            f"{least:,} with {size.n_targets} targets; raise it, lower max_feature_nodes, or "
            "shorten the prompt"
        )
    left = max_memory - fixed
    batch = max(1, min(_LARGEST_BATCH, left // 4 // size.target(n_sources)))
    for_edges = left - batch * size.target(n_sources)
    return Budget(keep, batch, for_edges // (_BYTES_OF_EDGE * size.n_targets))
