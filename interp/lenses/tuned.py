"""The tuned lens (Belrose et al., 2023): an affine map a layer, read from tuned-lens's folders.

Shapes: L layers, d d_model.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ...model.transformer import HookedTransformer
from ...model.weights.atomic import write_json, write_tensors
from .lens import LogitLens

CONFIG = "config.json"
PARAMETERS = "params.safetensors"


class TunedLens(LogitLens):
    """A lens that moves residual streams by an affine map a layer: h + W h + b.

    Attributes:
        weights: fp32 [L, d, d], W of what enters block i, as tuned-lens numbers translators.
        biases: fp32 [L, d].
        config: What the folder says of it.
    """

    title = "Tuned lens"

    def __init__(
        self,
        model: HookedTransformer,
        weights: torch.Tensor,
        biases: torch.Tensor,
        config: dict[str, Any] | None = None,
    ) -> None:
        """Raises ValueError for maps of other shapes than the model's, or that are not finite."""
        super().__init__(model)
        c = model.config
        if tuple(weights.shape) != (c.n_layers, c.d_model, c.d_model):
            raise ValueError(
                f"weights {list(weights.shape)} do not fit {model.name}: expected "
                f"{[c.n_layers, c.d_model, c.d_model]}"
            )
        if tuple(biases.shape) != (c.n_layers, c.d_model):
            raise ValueError(f"biases {list(biases.shape)}: expected {[c.n_layers, c.d_model]}")
        for name, tensor in (("weights", weights), ("biases", biases)):
            if not bool(torch.isfinite(tensor).all()):
                raise ValueError(f"the lens's {name} hold NaN or infinity")
        self.weights, self.biases = weights.float(), biases.float()
        self.config = dict(config or {})

    def transported(self, resid: torch.Tensor, layer: int) -> torch.Tensor:
        """Returns h + W h + b of the residual stream after a block, fp32 [..., d].

        What leaves a block enters the next one, whose map is taken; after the last one there is
        none.
        """
        if layer == self.model.config.n_layers - 1:
            return resid
        x = resid.float()
        return x + x @ self.weights[layer + 1].T + self.biases[layer + 1]

    def save(self, folder: str | Path) -> None:
        """Writes config.json and params.safetensors. Raises OSError where they cannot be."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"{i}.weight": w.contiguous() for i, w in enumerate(self.weights)}
        tensors |= {f"{i}.bias": b.contiguous() for i, b in enumerate(self.biases)}
        write_tensors(folder / PARAMETERS, tensors, {})
        c = self.model.config
        described = {
            "base_model_name_or_path": Path(self.model.name).name,
            "d_model": c.d_model,
            "num_hidden_layers": c.n_layers,
            "bias": True,
            "lens_type": "linear_tuned_lens",
        }
        write_json(folder / CONFIG, described | self.config)

    @classmethod
    def load(cls, folder: str | Path, model: HookedTransformer) -> TunedLens:
        """Reads a folder of tuned-lens, its parameters as safetensors.

        tuned-lens itself writes params.pt, a pickle, which is never opened: the error says how to
        convert it.

        Raises FileNotFoundError, and ValueError for a damaged file, another kind of lens, or one
        that does not fit the model.
        """
        folder = Path(folder)
        path = folder / PARAMETERS
        if not path.exists():
            _refuse(folder)
        try:
            config = json.loads((folder / CONFIG).read_text("utf-8"))
            kind = config.get("lens_type", "linear_tuned_lens")
            found = load_file(path)
        except (SafetensorError, AttributeError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(f"{folder}: no tuned lens: {error}") from error
        if kind != "linear_tuned_lens":
            raise ValueError(f"{folder}: lens_type {kind!r}: expected 'linear_tuned_lens'")
        return cls(model, *_stacked(folder, found, model), config)


def _stacked(
    folder: Path, found: dict[str, torch.Tensor], model: HookedTransformer
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns all layers' weights and biases; a lens without biases has zeros."""
    c = model.config
    shapes = {"weight": (c.d_model, c.d_model), "bias": (c.d_model,)}
    known = {f"{i}.{part}" for i in range(c.n_layers) for part in shapes}
    if unknown := sorted(found.keys() - known):
        raise ValueError(f"{folder}: {c.n_layers} layers have no use for tensor {unknown[0]!r}")
    with_bias = any(name.endswith("bias") for name in found)
    parts = []
    for part, shape in shapes.items():
        rows = []
        for i in range(c.n_layers):
            if part == "bias" and not with_bias:
                rows.append(torch.zeros(shape, dtype=torch.float32, device="cpu"))
                continue
            tensor = found.get(f"{i}.{part}")
            if tensor is None or tuple(tensor.shape) != shape:
                stands = "is missing" if tensor is None else f"is {list(tensor.shape)}"
                raise ValueError(f"{folder}: {i}.{part} {stands}: expected {list(shape)}")
            rows.append(tensor.float())
        parts.append(torch.stack(rows))
    return parts[0], parts[1]


def _refuse(folder: Path) -> None:
    if (folder / "params.pt").exists():
        raise ValueError(
            f"{folder}: params.pt is a pickle, which is never opened here. Convert it where you "
            "trust it: save_file(torch.load('params.pt', weights_only=True), "
            f"'{PARAMETERS}') of safetensors.torch"
        )
    raise FileNotFoundError(f"{folder}: there is no {PARAMETERS}")
