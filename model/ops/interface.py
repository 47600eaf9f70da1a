"""The operations a transformer is made of, as both backends implement them.

Tensor names: T ragged rows (all real tokens of the batch), K key positions, V vocabulary,
d d_model, H heads, G key/value heads, h d_head, m d_mlp, n outputs of a linear.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch

from ..batch import RaggedBatch
from ..cache.kv_cache import LayerCache
from ..config import ActFn, ModelConfig
from ..parallel.group import Group
from ..rope.scaling import RopeScaling
from ..sampling.sample import RowSampler
from ..weights.checkpoint import StoredMatrix
from .policy import Policy


class Ops(Protocol):
    """One backend: its own form of the weights, and every operation on ragged rows.

    Activations come and go in `policy.activation` unless said otherwise, the residual stream in
    `policy.residual`. An operation returns a new tensor and never writes into its inputs: captured
    activations share memory with them.
    """

    policy: Policy
    device: torch.device
    differentiable: bool
    sampler: RowSampler | None
    """Draws tokens where the logits are; None if they come to the CPU first."""

    @property
    def arithmetic(self) -> str:
        """The name of the operations that these have the bits of; their own, as a rule."""
        ...

    @property
    def group(self) -> Group | None:
        """The ranks that matrices are spread over; None if each is whole here."""
        ...

    def adopt(self, config: ModelConfig) -> None:
        """Comes before any weight. Raises ConfigError for what this policy cannot compute here."""
        ...

    def weight(self, matrix: StoredMatrix) -> Any:
        """A matrix [n, k], rounded to `policy.weight`, in the form `linear` and `embed` take."""
        ...

    def storage(self, weight: Any) -> tuple[str, int]:
        """Returns the format's name and the bytes of a matrix from `weight`."""
        ...

    def vector(self, vector: torch.Tensor) -> torch.Tensor:
        """A norm weight or bias, already rounded to `policy.weight`, as `policy.compute`; 1 + w
        comes in fp32 or wider."""
        ...

    def embed(self, tokens_T: torch.Tensor, weight: Any, scale: float) -> torch.Tensor:
        """Rows of the embedding times `scale`, rounded once to `policy.residual` -> [T, d]."""
        ...

    def linear(
        self,
        x: torch.Tensor,
        weight: Any,
        bias: torch.Tensor | None = None,
        *,
        out_dtype: torch.dtype | None = None,
    ) -> torch.Tensor:
        """x [rows, k] times weight [n, k] plus bias, rounded once to `out_dtype` -> [rows, n]."""
        ...

    def own_columns(self, weight: Any) -> slice:
        """Returns the outputs of `linear` that this rank computes; all of them without a group."""
        ...

    def linear_slice(
        self,
        x: torch.Tensor,
        weight: Any,
        bias: torch.Tensor | None = None,
        *,
        out_dtype: torch.dtype | None = None,
    ) -> torch.Tensor:
        """`own_columns` of `linear`, with nothing gathered from other ranks."""
        ...

    def add(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The residual stream x plus y, rounded once to x's dtype."""
        ...

    def fork(self, x: torch.Tensor, n: int) -> tuple[torch.Tensor, ...]:
        """x for each of n readers, whose gradients are added in this order."""
        ...

    def widen(self, x: torch.Tensor) -> torch.Tensor:
        """x for readers whose gradients are added before they are rounded; same bits forward."""
        ...

    def rearrange(
        self,
        x: torch.Tensor,
        there: Callable[[torch.Tensor], torch.Tensor],
        back: Callable[[torch.Tensor], torch.Tensor],
    ) -> torch.Tensor:
        """there(x), which only moves values; `back` moves its gradient to where x has them."""
        ...

    def rms_scale(self, x: torch.Tensor, eps: float) -> torch.Tensor:
        """sqrt(mean(x^2) + eps) over the last axis -> `policy.compute` [..., 1]."""
        ...

    def normalize(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """x / scale -> `policy.compute`, shaped like x."""
        ...

    def norm_weight(self, normalized: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """normalized * weight, rounded once."""
        ...

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        """The three above in one, bit for bit (Zhang and Sennrich 2019, section 4)."""
        ...

    def rope(
        self,
        x_THh: torch.Tensor,
        positions_T: torch.Tensor,
        theta: float,
        scaling: RopeScaling | None = None,
    ) -> torch.Tensor:
        """Rotates the halves of each head by its token's position (Su et al. 2021)."""
        ...

    def write_kv(
        self,
        layer_cache: LayerCache,
        batch: RaggedBatch,
        k_TGh: torch.Tensor,
        v_TGh: torch.Tensor,
    ) -> None:
        """Stores the batch's keys and values at the positions after `batch.past`."""
        ...

    def attention(
        self,
        q_THh: torch.Tensor,
        layer_cache: LayerCache,
        batch: RaggedBatch,
        *,
        scale: float,
        cap: float | None,
        window: int | None,
    ) -> torch.Tensor:
        """z [T, H, h]: scores, pattern and values in one, bit for bit."""
        ...

    def attention_scores(
        self,
        q_THh: torch.Tensor,
        layer_cache: LayerCache,
        batch: RaggedBatch,
        *,
        scale: float,
        cap: float | None,
        window: int | None,
        rows: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """scale * q . k, soft-capped if there is a cap; -inf where the key is masked.

        In `policy.compute`, [T or len(rows), H, K]. K is `batch.n_keys` and column j is the key at
        position j of the row's own sequence. `rows` (int64, ascending) chooses rows of T; q_THh
        holds all of them all the same.
        """
        ...

    def attention_pattern(self, scores_THK: torch.Tensor) -> torch.Tensor:
        """Softmax over keys; a row that is all -inf gives zeros."""
        ...

    def attention_values(
        self,
        pattern_THK: torch.Tensor,
        layer_cache: LayerCache,
        batch: RaggedBatch,
        *,
        window: int | None,
    ) -> torch.Tensor:
        """Sum over visible keys of pattern * v -> [T, H, h]."""
        ...

    def gated_act(self, kind: ActFn, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        """act(gate) * up, rounded once -> [T, m]."""
        ...

    def soft_cap(self, x: torch.Tensor, cap: float) -> torch.Tensor:
        """cap * tanh(x / cap) of logits, in their dtype (Gemma 2, arXiv 2408.00118)."""
        ...
