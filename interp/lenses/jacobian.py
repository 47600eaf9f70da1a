"""The Jacobian lens: a layer's residual stream, moved to the last one by the mean Jacobian.

J_l = E_s [ sum over t >= s of d h_final[t] / d h_l[s] ], h_l the residual stream after block l,
h_final that after the last block, s every position of the text but first ones, whose activations
are unlike all others. To first order, J_l v is what a direction v at one position of layer l adds
to all later final streams, on average over contexts. Shapes: L layers, d d_model, V vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ...model.hooks.registry import HookFunction, HookPoint
from ...model.transformer import HookedTransformer
from ...model.weights.atomic import write_tensors
from ..activations import Packing, TextSource, open_text
from ..activations.documents import Text
from ..activations.sequences import Batch, batches
from ..evaluation.evaluated_text import first_tokens
from .lens import LogitLens

Progress = Callable[[int, int], None]
"""Called with tokens done and tokens in all."""


class JacobianLens(LogitLens):
    """A lens that moves residual streams by mean Jacobians.

    Attributes:
        J: fp32 [L - 1, d, d]: of every block but the last, whose Jacobian is 1.
        metadata: What it was fitted on.
    """

    title = "Jacobian lens"

    def __init__(self, model: HookedTransformer, J: torch.Tensor, metadata: dict[str, Any]) -> None:
        """Raises ValueError for Jacobians of other shapes than the model's, or of another model."""
        super().__init__(model)
        c = model.config
        if tuple(J.shape) != (c.n_layers - 1, c.d_model, c.d_model):
            raise ValueError(f"J {list(J.shape)} does not fit {model.name}: {c.n_layers} layers")
        expected = metadata.get("model_fingerprint")
        if expected is not None and expected != model.fingerprint():
            raise ValueError(
                f"the lens was fitted on a model with fingerprint {str(expected)[:12]}...; "
                f"{model.name} has {model.fingerprint()[:12]}..."
            )
        self.J = J.float()
        self.metadata = metadata

    def transported(self, resid: torch.Tensor, layer: int) -> torch.Tensor:
        """Returns J_l times the residual stream after a block, fp32 [..., d]."""
        if layer == self.model.config.n_layers - 1:
            return resid
        return resid.float() @ self.J[layer].T

    def save(self, path: str | Path) -> None:
        """Writes a safetensors file. Raises OSError where it cannot be written."""
        write_tensors(Path(path), {"J": self.J}, {"lens": json.dumps(self.metadata)})

    @classmethod
    def load(cls, path: str | Path, model: HookedTransformer) -> JacobianLens:
        """Reads what `save` wrote.

        Raises FileNotFoundError, and ValueError for a damaged file or a lens of another model.
        """
        try:
            with safe_open(path, framework="pt") as file:
                return cls(model, file.get_tensor("J"), json.loads(file.metadata()["lens"]))
        except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path}: no Jacobian lens: {error}") from error


def fit_jacobian_lens(
    model: HookedTransformer,
    *,
    text: Text | TextSource = None,
    output: str | Path,
    n_tokens: int = 4096,
    context_size: int = 128,
    batch_tokens: int = 512,
    progress: Progress | None = None,
) -> JacobianLens:
    """Returns the mean Jacobians of a model over a text, and writes them to `output`.

    Differentiates every dimension of the final stream, d backward passes a batch. A run that was
    interrupted goes on with the batch it was at, to the same bits; a finished one is read.

    Args:
        text: As `open_text` takes it; None is the default corpus.
        output: The file of the lens; beside it, until the end, one of what is summed so far.
        n_tokens: Tokens, rounded up to whole sequences.
        progress: Called after every batch.

    Raises:
        ValueError: a model without gradients or a tokenizer, text that is too short, or a file of
            another fit.
    """
    path = Path(output)
    source = text if isinstance(text, TextSource) else open_text(text)
    metadata = {
        "model_name": Path(model.name).name,
        "model_fingerprint": model.fingerprint(),
        "policy": model.ops.policy.name,
        "text": source.name,
        "text_sha256": source.digest,
        "n_tokens": n_tokens,
        "context_size": context_size,
        "batch_tokens": batch_tokens,
    }
    if path.exists():
        found = JacobianLens.load(path, model)
        _check_same(path, found.metadata, metadata)
        return found
    sums = _Sums(model, path.with_suffix(".partial.safetensors"), metadata)
    for number, batch in enumerate(_batches(model, source, n_tokens, context_size, batch_tokens)):
        if number >= sums.n_batches:
            sums.add(batch)
        if progress is not None:
            progress(sums.n_rows, n_tokens)
    if not sums.n_rows:
        raise ValueError(f"text {source.name!r}: no document is long enough")
    lens = JacobianLens(model, (sums.total / sums.n_rows).float(), metadata)
    lens.save(path)
    sums.remove()
    return lens


class _Sums:
    """Jacobians summed over positions, kept on disk after every batch."""

    def __init__(self, model: HookedTransformer, path: Path, metadata: dict[str, Any]) -> None:
        c = model.config
        self._model, self._path, self._metadata = model, path, metadata
        self.total = torch.zeros(
            c.n_layers - 1, c.d_model, c.d_model, dtype=torch.float64, device="cpu"
        )
        self.n_batches = self.n_rows = 0
        if not path.exists():
            return
        try:
            with safe_open(path, framework="pt") as file:
                state = json.loads(file.metadata()["state"])
                self.total = file.get_tensor("total")
        except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is damaged ({error}); remove it to begin anew") from error
        _check_same(path, state["metadata"], metadata)
        self.n_batches, self.n_rows = state["n_batches"], state["n_rows"]

    def add(self, batch: Batch) -> None:
        """Adds the Jacobians of a batch, dimension by dimension."""
        final, leaves, counted = _recorded(self._model, batch)
        for i in range(final.shape[2]):
            seed = torch.zeros_like(final)
            seed[..., i][batch.mask] = 1.0
            rows = torch.autograd.grad(final, leaves, seed, retain_graph=True)
            for layer, row in enumerate(rows):
                self.total[layer, i] += row.double()
        self.n_batches += 1
        self.n_rows += counted
        state = {"n_batches": self.n_batches, "n_rows": self.n_rows, "metadata": self._metadata}
        write_tensors(self._path, {"total": self.total}, {"state": json.dumps(state)})

    def remove(self) -> None:
        """Removes the file."""
        self._path.unlink(missing_ok=True)


def _recorded(
    model: HookedTransformer, batch: Batch
) -> tuple[torch.Tensor, list[torch.Tensor], int]:
    """The final stream [B, P, d] in a graph; for each block a leaf [d] that is added to every
    position but first ones; and how many these are."""
    c = model.config
    later = batch.mask.clone()
    later[:, 0] = False
    leaves = [
        torch.zeros(c.d_model, requires_grad=True, dtype=torch.float32, device="cpu")
        for _ in range(c.n_layers - 1)
    ]
    found: list[torch.Tensor] = []

    def adding(leaf: torch.Tensor) -> HookFunction:
        def add(tensor: torch.Tensor, *, hook: HookPoint) -> torch.Tensor:
            return tensor + later[..., None].to(tensor.dtype) * leaf.to(tensor.dtype)

        return add

    def keep(tensor: torch.Tensor, *, hook: HookPoint) -> None:
        found.append(tensor)

    hooks: list[tuple[str, HookFunction]] = [
        (f"blocks.{i}.hook_resid_post", adding(leaf)) for i, leaf in enumerate(leaves)
    ]
    hooks.append((f"blocks.{c.n_layers - 1}.hook_resid_post", keep))
    with torch.enable_grad():
        model.run_with_hooks(
            batch.tokens, hooks, attention_mask=batch.mask.to(torch.int64), return_type=None
        )
    return found[0], leaves, int(later.sum())


def _batches(
    model: HookedTransformer,
    source: TextSource,
    n_tokens: int,
    context_size: int,
    batch_tokens: int,
) -> list[Batch]:
    if model.tokenizer is None:
        raise ValueError("fit_jacobian_lens: this model was loaded without a tokenizer")
    if context_size > model.config.n_ctx:
        raise ValueError(f"context_size = {context_size} exceeds the model's {model.config.n_ctx}")
    sequences = Packing(context_size).sequences(source.documents("train"), model.tokenizer)
    return list(batches(first_tokens(sequences, n_tokens), batch_tokens))


def _check_same(path: Path, found: dict[str, Any], expected: dict[str, Any]) -> None:
    for name, value in expected.items():
        if found.get(name) != value:
            raise ValueError(
                f"{path} is of a fit with {name} = {found.get(name)!r}, not {value!r}: name "
                "another file, or remove it"
            )
