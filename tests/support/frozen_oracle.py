"""The frozen model in fp64, written once more: edges by autograd, and how far fp32 may be off.

Shapes: T positions, H heads, h d_head, d d_model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from bitlens.interp.circuits.replacement import Replacement

U = 2.0**-24


@dataclass(frozen=True, eq=False)
class Edges:
    """Edges into one target.

    Attributes:
        weights: From features as they are listed, errors by layer and position, embeddings.
        bias: What biases add.
        sizes: What each edge would be if every product on the way were of one sign.
        magnitude: The sum of these, biases included.
    """

    weights: torch.Tensor
    bias: float
    sizes: torch.Tensor
    magnitude: float


class FrozenOracle:
    """Edges of a prompt, in fp64: embeddings and MLP outputs are leaves of an autograd graph whose
    patterns and norm scales are constants."""

    def __init__(self, replacement: Replacement) -> None:
        self.r = replacement

    def of_feature(self, i: int) -> Edges:
        """Returns the edges into a feature."""
        f = self.r.features
        layer, position, feature = int(f.layer[i]), int(f.position[i]), f.feature[i : i + 1]
        vector = self.r.transcoders.encoder(layer, feature)[0].double()
        bias = float(self.r.transcoders.encoder_bias(layer, feature)[0])
        return self._edges(layer, position, vector, bias)

    def of_direction(self, vector: torch.Tensor) -> Edges:
        """Returns the edges into a direction of what the unembedding reads."""
        return self._edges(self.r.n_layers, self.r.n_positions - 1, vector.double(), 0.0)

    def _edges(self, layer: int, position: int, vector: torch.Tensor, bias: float) -> Edges:
        weights, biases = self._collected(*self._gradients(layer, position, vector, False), False)
        absolute = self._gradients(layer, position, vector.abs(), True)
        sizes, big = self._collected(*absolute, True)
        return Edges(weights, bias + biases, sizes, abs(bias) + big + float(sizes.sum()))

    def _gradients(
        self, layer: int, position: int, vector: torch.Tensor, absolute: bool
    ) -> tuple[list[torch.Tensor], float]:
        """The target's derivatives by the embeddings and by what each MLP before it wrote, and what
        attention's biases add; with every weight's magnitude, if `absolute`."""
        r, model = self.r, self.r.frozen.model
        size = (lambda x: x.double().abs()) if absolute else (lambda x: x.double())
        leaves = [torch.zeros_like(r.frozen.embed, dtype=torch.float64, requires_grad=True)]
        resid, n = leaves[0], r.n_layers
        for i in range(min(layer + 1, n)):
            resid = self._attention(i, resid, size)
            if i == layer:
                break
            leaf = torch.zeros_like(leaves[0], requires_grad=True)
            leaves.append(leaf)
            moved = leaf
            skip = r.transcoders.skip(i)
            if skip is not None:
                moved = moved + self._read(i, resid, size) @ size(skip).T
            if r.transcoders.writes.get(i) == "mlp.hook_out" and model.config.sandwich_norms:
                norm = model.blocks[i].ln2_post
                moved = moved * size(norm.w) / r.frozen.scale(i, "ln2_post").double()
            resid = resid + moved
        if layer == n:
            scale = r.frozen.scales()[-1][1].double()
            read = resid * size(model.ln_final.w) / scale
        else:
            read = self._read(layer, resid, size)
        target = read[position] @ vector
        grads = torch.autograd.grad(target, leaves)
        return list(grads), float(target.detach())  # the leaves are 0: what is left are biases

    def _read(self, layer: int, resid: torch.Tensor, size: Any) -> torch.Tensor:
        hook = self.r.transcoders.reads[layer]
        if hook in ("hook_mlp_in", "hook_resid_mid"):
            return resid
        read = resid / self.r.frozen.scale(layer, "ln2").double()
        return (
            read * size(self.r.frozen.model.blocks[layer].ln2.w) if hook == "mlp.hook_in" else read
        )

    def _attention(self, layer: int, resid: torch.Tensor, size: Any) -> torch.Tensor:
        r, block = self.r, self.r.frozen.model.blocks[layer]
        x = resid / r.frozen.scale(layer, "ln1").double() * size(block.ln1.w)
        v = torch.einsum("td,hdk->thk", x, size(block.attn.W_V)) + size(block.attn.b_V)
        z = torch.einsum("hqk,khd->qhd", size(r.frozen.patterns[layer]), v)
        out = torch.einsum("thk,hkd->td", z, size(block.attn.W_O)) + size(block.attn.b_O)
        if block.ln1_post is not None:
            out = out * size(block.ln1_post.w) / r.frozen.scale(layer, "ln1_post").double()
        return resid + out

    def _collected(
        self, gradients: list[torch.Tensor], bias: float, absolute: bool
    ) -> tuple[torch.Tensor, float]:
        """Edges from every source, and what all biases add; of magnitudes, if `absolute`."""
        r, f = self.r, self.r.features
        size = (lambda x: x.double().abs()) if absolute else (lambda x: x.double())
        of_features = torch.zeros(len(f), dtype=torch.float64)
        of_errors = torch.zeros(r.n_layers, r.n_positions, dtype=torch.float64)
        for layer, g in enumerate(gradients[1:]):
            of_errors[layer] = (g * size(r.errors[layer])).sum(1)
            b_dec = r.transcoders.b_dec(layer)
            bias += 0.0 if b_dec is None else float((g @ size(b_dec)).sum())
            for source in r.transcoders.sources(layer):
                start, stop = f.spans[source]
                table, rows = r.transcoders.decoder(source, layer, f.feature[start:stop])
                products = (g[f.position[start:stop]] * size(table[rows.long()])).sum(1)
                of_features[start:stop] += products * size(f.value[start:stop])
        of_embeddings = (gradients[0] * size(r.frozen.embed)).sum(1)
        return torch.cat([of_features, of_errors.flatten(), of_embeddings]), bias


def gamma(replacement: Replacement) -> float:
    """Returns gamma_n = n u / (1 - n u), the error that fp32 may make of a sum of magnitudes.

    n counts roundings on the longest way from a source to a target, forward in the model and back
    in the trace (Higham, 2002, section 3.1): per layer the products of W_V, the pattern and W_O,
    the norm, its weight, the residual adds, the sum over features and layers of what is decoded;
    then the encoder's product and the norm before it.
    """
    c, n = replacement.frozen.model.config, replacement.n_positions
    attention = c.d_model + n * c.n_heads + c.n_heads * c.d_head + c.d_model + 12
    decoded = replacement.n_layers * 50 + c.d_model + 8
    roundings = 2 * (c.n_layers * (attention + decoded) + 2 * c.d_model + 16)
    return roundings * U / (1 - roundings * U)
